"""C declarations turned into BTF: what a case needs of structures and function signatures, without a compiler.

    struct value { int count; struct bpf_spin_lock lock; struct task_struct *task [kptr]; };
    static int callback(int index, void *data);
    int global(struct __sk_buff *ctx, int *number [nonnull]);

A word in brackets is a tag: of the pointee for the kernel pointer tags, else of the member, the argument or the function.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field

from tcbpf.obj.btf import Btf, Kind
from tcbpf.obj.btf_parse import parse

SIZED = {
    "char": (1, 1),
    "u8": (1, 0),
    "s8": (1, 1),
    "u16": (2, 0),
    "s16": (2, 1),
    "u32": (4, 0),
    "int": (4, 1),
    "u64": (8, 0),
    "s64": (8, 1),
}
OPAQUE = {
    "bpf_spin_lock": 4,
    "bpf_res_spin_lock": 4,
    "bpf_timer": 16,
    "bpf_wq": 16,
    "bpf_list_head": 16,
    "bpf_list_node": 24,
    "bpf_rb_root": 16,
    "bpf_rb_node": 32,
    "bpf_refcount": 4,
    "bpf_dynptr": 16,
    "__sk_buff": 192,
    "xdp_md": 24,
}
POINTEE_TAGS = {"kptr", "kptr_untrusted", "percpu_kptr"}
_TOKEN = re.compile(r"\w+|[{}();,*\[\]:]")


@dataclass
class Declarations:
    """BTF under way: records by id, strings, and the ids of what has a name."""

    records: list[bytes] = field(default_factory=list)
    strings: bytearray = field(default_factory=lambda: bytearray(b"\0"))
    named: dict[str, int] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=lambda: {0: 0})
    functions: dict[str, tuple[int, bool]] = field(default_factory=dict)  # name: type id, whether it is global

    def btf(self) -> Btf:
        """Return what has been declared."""
        types = b"".join(self.records)
        head = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(self.strings))
        return parse(head + types + bytes(self.strings))

    def text(self, word: str) -> int:
        """Return where a string lies."""
        if not word:
            return 0
        self.strings += word.encode() + b"\0"
        return len(self.strings) - len(word) - 1

    def add(self, kind: Kind, name: str, word: int, more: bytes = b"", count: int = 0, size: int = 0) -> int:
        """Add a type and return its id."""
        self.records.append(struct.pack("<III", self.text(name), int(kind) << 24 | count, word) + more)
        self.sizes[len(self.records)] = size
        return len(self.records)

    def type(self, word: str) -> int:
        """Return the id of a type by its name: "int", "struct value", "void"."""
        if word == "void":
            return 0
        if word not in self.named:
            bare = word.removeprefix("struct ")
            if bare in SIZED:
                size, sign = SIZED[bare]
                self.named[word] = self.add(Kind.INT, bare, size, struct.pack("<I", sign << 24 | size * 8), size=size)
            else:
                self.named[word] = self.structure(bare, [], OPAQUE.get(bare, 0))
        return self.named[word]

    def pointer(self, id: int) -> int:
        """Return the id of a pointer to a type."""
        return self.add(Kind.PTR, "", id, size=8)

    def structure(self, name: str, members: list[tuple[str, int, str]], size: int = 0) -> int:
        """Add a structure of (name, type, tag) members, laid out as C does."""
        off, rows = 0, b""
        for word, id, _ in members:
            align = min(8, self.sizes[id] & -self.sizes[id]) if self.sizes[id] else 1
            off = -(-off // align) * align
            rows += struct.pack("<III", self.text(word), id, off * 8)
            off += self.sizes[id]
        if members:
            size = -(-off // 8) * 8 if off > 4 else off
        id = self.add(Kind.STRUCT, name, size, rows, len(members), size)
        self.named[f"struct {name}"] = id
        for component, (_, _, tag) in enumerate(members):
            if tag:
                self.add(Kind.DECL_TAG, tag, id, struct.pack("<i", component))
        return id

    def function(self, name: str, result: int, params: list[tuple[str, int, str]], *, is_global: bool) -> None:
        """Add a function of (name, type, tag) parameters."""
        rows = b"".join(struct.pack("<II", self.text(word), id) for word, id, _ in params)
        proto = self.add(Kind.FUNC_PROTO, "", result, rows, len(params))
        id = self.add(Kind.FUNC, name, proto, count=int(is_global))
        self.functions[name] = id, is_global
        for component, (_, _, tag) in enumerate(params):
            if tag:
                self.add(Kind.DECL_TAG, f"arg:{tag}", id, struct.pack("<i", component))


def declare(text: str) -> Declarations:
    """Return what some declarations declare."""
    made = Declarations()
    tokens = _TOKEN.findall(text)
    while tokens:
        _declaration(made, tokens)
    return made


def _declaration(made: Declarations, tokens: list[str]) -> None:
    is_static = tokens[0] == "static" and bool(tokens.pop(0))
    if tokens[0] == "struct" and tokens[2] == "{":
        name = tokens[1]
        del tokens[:3]
        members = []
        while tokens[0] != "}":
            members.append(_member(made, tokens))
            assert tokens.pop(0) == ";", tokens
        del tokens[:2]
        made.structure(name, members)
        return
    name, result, _ = _member(made, tokens)
    assert tokens.pop(0) == "(", tokens
    params = []
    if tokens[:2] == ["void", ")"]:
        tokens.pop(0)
    while tokens[0] != ")":
        params.append(_member(made, tokens))
        if tokens[0] == ",":
            tokens.pop(0)
    tokens.pop(0)
    made.function(name, result, params, is_global=not is_static)
    while tokens[0] == "[":
        end = tokens.index("]")
        made.add(Kind.DECL_TAG, "".join(tokens[1:end]), made.functions[name][0], struct.pack("<i", -1))
        del tokens[: end + 1]
    tokens.pop(0)


def _member(made: Declarations, tokens: list[str]) -> tuple[str, int, str]:
    """Read "TYPE *NAME[COUNT] [TAG]" and return the name, the type and the tag that is not the pointee's."""
    word = tokens.pop(0)
    if word == "struct":
        word += " " + tokens.pop(0)
    id, stars = made.type(word), 0
    while tokens[0] == "*":
        tokens.pop(0)
        stars += 1
    name, tag = (tokens.pop(0) if re.fullmatch(r"\w+", tokens[0]) else ""), ""
    count = 0
    while tokens[0] == "[":
        end = tokens.index("]")
        inside = "".join(tokens[1:end])
        if inside.isdigit():
            count = int(inside)
        else:
            tag = inside
        del tokens[: end + 1]
    if tag in POINTEE_TAGS:
        id, tag = made.add(Kind.TYPE_TAG, tag, id), ""
    for _ in range(stars):
        id = made.pointer(id)
    if count:
        size = made.sizes[id] * count
        index = made.type("int")
        id = made.add(Kind.ARRAY, "", 0, struct.pack("<III", id, index, count), size=size)
    return name, id, tag

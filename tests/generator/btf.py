"""The type information that generated programs and their maps share: one small blob, written here once."""

from __future__ import annotations

import struct
from functools import cache

from tcbpf.obj.btf import GLOBAL, MAGIC, STATIC, Btf, Kind
from tcbpf.obj.btf_parse import parse

SKB_CONTEXT, XDP_CONTEXT = "__sk_buff", "xdp_md"
GLOBALS = {
    "scalar": ("int",),
    "scalars": ("int", "long", "char"),
    "context": ("ctx",),
    "context_scalar": ("ctx", "int"),
    "memory": ("int *",),
    "memory_scalar": ("pair *", "int"),
    "dynptr": ("bpf_dynptr *",),
    "nothing": (),
    "wide": ("wide *", "wide *"),
    "char": ("char",),
}
"""The global functions that programs may have, by name, and their parameters; "ctx" is the program type's context."""

STATICS = ("static_0", "static_1", "static_2", "static_3", "static_4", "static_5")
"""The names of functions that are not global, callbacks included."""


class _Writer:
    """Gathers type records and strings."""

    def __init__(self) -> None:
        self.types: list[bytes] = []
        self.strings = b"\0"
        self.ids: dict[str, int] = {}

    def add(self, name: str, kind: Kind, word: int, tail: bytes = b"", *, count: int = 0, key: str = "") -> int:
        """Append a type and return its id; `key` (the name by default) finds it again."""
        at = self._text(name)
        self.types.append(struct.pack("<III", at, kind << 24 | count, word) + tail)
        self.ids[key or name] = len(self.types)
        return len(self.types)

    def integer(self, name: str, size: int, encoding: int) -> None:
        """Append an integer type."""
        self.add(name, Kind.INT, size, struct.pack("<I", encoding << 24 | 8 * size))

    def record(self, name: str, size: int, *members: tuple[str, str, int]) -> None:
        """Append a structure of (name, type, byte offset)."""
        tail = b"".join(struct.pack("<III", self._text(n), self.ids[t], 8 * off) for n, t, off in members)
        self.add(name, Kind.STRUCT, size, tail, count=len(members))

    def pointer(self, to: str) -> None:
        """Append a pointer, found as "TO *"."""
        self.add("", Kind.PTR, self.ids[to], key=f"{to} *")

    def function(self, name: str, linkage: int, *parameters: str, key: str = "") -> None:
        """Append a function that returns int."""
        tail = b"".join(struct.pack("<II", self._text(f"a{i}"), self.ids[t]) for i, t in enumerate(parameters))
        proto = self.add("", Kind.FUNC_PROTO, self.ids["int"], tail, count=len(parameters), key=f"proto {key or name}")
        self.add(name, Kind.FUNC, proto, count=linkage, key=key)

    def blob(self) -> bytes:
        """Return all of it."""
        types = b"".join(self.types)
        return struct.pack("<HBBIIIII", MAGIC, 1, 0, 24, 0, len(types), len(types), len(self.strings)) + types + self.strings

    def _text(self, name: str) -> int:
        if not name:
            return 0
        self.strings += name.encode() + b"\0"
        return len(self.strings) - len(name) - 1


@cache
def types() -> tuple[Btf, dict[str, int]]:
    """Return the blob and its ids: a type by its name, a pointer by "NAME *", a function by its name.

    A global function with a context is there twice, as "xdp NAME" for xdp.
    """
    w = _Writer()
    w.integer("int", 4, 1)
    w.integer("long", 8, 1)
    w.integer("char", 1, 0)
    for name, size in (("bpf_spin_lock", 4), ("bpf_timer", 16), (SKB_CONTEXT, 192), (XDP_CONTEXT, 24), ("bpf_dynptr", 16)):
        w.record(name, size, ("first", "int", 0))
    w.record("pair", 16, ("one", "long", 0), ("two", "long", 8))
    w.record("wide", 40, ("one", "long", 0), ("last", "int", 36))
    w.record("task_struct", 8, ("first", "long", 0))
    for name in ("int", SKB_CONTEXT, XDP_CONTEXT, "pair", "wide", "bpf_dynptr"):
        w.pointer(name)
    for tag in ("kptr", "kptr_untrusted"):
        w.add(tag, Kind.TYPE_TAG, w.ids["task_struct"], key=f"tag {tag}")
        w.add("", Kind.PTR, w.ids[f"tag {tag}"], key=f"{tag} *")
    w.record("locked", 32, ("number", "int", 0), ("lock", "bpf_spin_lock", 4), ("data", "long", 8))
    w.record("timed", 32, ("data", "long", 0), ("timer", "bpf_timer", 8))
    w.record("kept", 24, ("data", "long", 0), ("task", "kptr *", 8), ("loose", "kptr_untrusted *", 16))
    for name in STATICS:
        w.function(name, STATIC)
    for name, parameters in GLOBALS.items():
        w.function(name, GLOBAL, *(f"{SKB_CONTEXT} *" if p == "ctx" else p for p in parameters))
        if "ctx" in parameters:
            w.function(name, GLOBAL, *(f"{XDP_CONTEXT} *" if p == "ctx" else p for p in parameters), key=f"xdp {name}")
    w.function("main", GLOBAL, f"{SKB_CONTEXT} *")
    return parse(w.blob()), w.ids

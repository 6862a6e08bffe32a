"""BTF, the type information of BPF objects: parse, look up, measure, name.

Source:  Documentation/bpf/btf.rst; include/uapi/linux/btf.h.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cached_property
from typing import NamedTuple

from tcbpf.errors import ObjectError

MAGIC = 0xEB9F
POINTER_SIZE = 8
MAX_DEPTH = 64  # of modifiers, typedefs and nested arrays: more is a cycle
MAX_SIZE = 1 << 31
STATIC, GLOBAL, EXTERN = 0, 1, 2  # linkage of functions and variables
KSYM_SIZE = 4  # of what stands for an external symbol in .ksyms

_HEADER = struct.Struct("<HBBIIIII")
_TYPE = struct.Struct("<III")
_W = struct.Struct("<I")
_COMPONENT = struct.Struct("<i")


class Kind(IntEnum):
    """What a type is. The numbers are BTF_KIND_*."""

    VOID, INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT = range(12)
    FUNC, FUNC_PROTO, VAR, DATASEC, FLOAT, DECL_TAG, TYPE_TAG, ENUM64 = range(12, 20)


MODIFIERS = frozenset({Kind.TYPEDEF, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG})


@dataclass(frozen=True, slots=True)
class Member:
    """A part of a type: a struct's member, an enumerator, a parameter or a section's variable.

    Units:   offset and bits in bits for struct members (bits 0: not a bit-field); in bytes for a section's variables,
             where `value` is the size. `value` is the number of an enumerator.
    """

    name: str
    type: int = 0
    offset: int = 0
    bits: int = 0
    value: int = 0


@dataclass(frozen=True, slots=True)
class Type:
    """One type.

    Units:   size in bytes. type is the id referred to (pointee, element, return type, aliased type, ...), 0 for void.
             nelems is an array's. linkage is a function's or variable's; encoding an integer's (1 signed, 2 char).
    """

    id: int
    kind: Kind
    name: str
    size: int = 0
    type: int = 0
    index_type: int = 0
    nelems: int = 0
    encoding: int = 0
    bits: int = 0
    bit_offset: int = 0
    linkage: int = 0
    flag: bool = False
    members: tuple[Member, ...] = ()
    start: int = 0  # of its record, in bytes from the start of the blob

    @property
    def signed(self) -> bool:
        """Whether an integer or enumeration has a sign."""
        return self.flag if self.kind in (Kind.ENUM, Kind.ENUM64) else self.encoding & 1 != 0


VOID = Type(0, Kind.VOID, "void")


class Btf:
    """A blob of BTF and the types it holds, by id; id 0 is void."""

    def __init__(self, raw: bytes, types: Sequence[Type], strings: tuple[int, int]) -> None:
        self.raw, self.types, self._strings = raw, types, strings

    def __len__(self) -> int:
        return len(self.types)

    def __getitem__(self, id: int) -> Type:
        """Return the type of that id.

        Raises:  ObjectError when there is none.
        """
        if not 0 <= id < len(self.types):
            raise ObjectError(f"type id {id} of {len(self.types)}", section=".BTF")
        return self.types[id]

    def string(self, offset: int) -> str:
        """Return the string at `offset` of the string section."""
        start, size = self._strings
        return _text(self.raw, start, size, offset)

    @cached_property
    def _offsets(self) -> dict[str, int]:
        start, size = self._strings
        found: dict[str, int] = {}
        at = 0
        for text in self.raw[start : start + size].split(b"\0"):
            found.setdefault(text.decode("utf-8", "backslashreplace"), at)
            at += len(text) + 1
        return found

    def offset_of(self, text: str) -> int:
        """Return where the string section holds `text`, or 0 (the empty string)."""
        return self._offsets.get(text, 0)

    def named(self, name: str) -> Iterator[Type]:
        """Yield every type of that name."""
        return iter(self._by_name.get(name, ()))

    @cached_property
    def _by_name(self) -> dict[str, tuple[Type, ...]]:
        found: dict[str, tuple[Type, ...]] = {}
        for row in self.types:
            if row.name:
                found[row.name] = (*found.get(row.name, ()), row)
        return found

    def find(self, name: str, *kinds: Kind) -> Type | None:
        """Return the first type of that name (and of one of `kinds`), or None."""
        return next((row for row in self.named(name) if not kinds or row.kind in kinds), None)

    def decl_tags(self, id: int) -> Sequence[tuple[int, str]]:
        """Return the declaration tags on a type, each with the member or parameter it is on, -1 for the type itself."""
        return self._decl_tags.get(id, ())

    @cached_property
    def _decl_tags(self) -> dict[int, list[tuple[int, str]]]:
        found: dict[int, list[tuple[int, str]]] = {}
        for row in self.types:
            if row.kind is Kind.DECL_TAG:
                (component,) = _COMPONENT.unpack_from(self.raw, row.start + _TYPE.size)
                found.setdefault(row.type, []).append((component, row.name))
        return found

    def resolve(self, id: int) -> Type:
        """Return the type behind typedefs and qualifiers.

        Raises:  ObjectError for a cycle.
        """
        row = self[id]
        for _ in range(MAX_DEPTH):
            if row.kind not in MODIFIERS:
                return row
            row = self[row.type]
        raise ObjectError(f"type id {id} is a cycle", section=".BTF")

    def sizeof(self, id: int) -> int:
        """Return the size of a type in bytes.

        Raises:  ObjectError when it has none (void, a function, an incomplete type).
        """
        count = 1
        for _ in range(MAX_DEPTH):
            row = self.resolve(id)
            if row.kind == Kind.ARRAY:
                count, id = count * row.nelems, row.type
                continue
            size = POINTER_SIZE if row.kind == Kind.PTR else row.size
            if row.kind == Kind.VAR:
                id = row.type
                continue
            if row.kind in (Kind.VOID, Kind.FWD, Kind.FUNC, Kind.FUNC_PROTO):
                raise ObjectError(f"{self.name(id)} has no size", section=".BTF")
            if count * size >= MAX_SIZE:
                raise ObjectError(f"{self.name(id)} is too large", section=".BTF")
            return count * size
        raise ObjectError(f"type id {id} is a cycle", section=".BTF")

    def name(self, id: int) -> str:
        """Return how C spells a type: "struct key *", "__u8[4]"."""
        after = ""
        for _ in range(MAX_DEPTH):
            row = self[id]
            if row.kind == Kind.PTR:
                after, id = "*" + after, row.type
            elif row.kind == Kind.ARRAY:
                after, id = after + f"[{row.nelems}]", row.type
            elif row.kind in (Kind.CONST, Kind.VOLATILE):
                after, id = (after if not after else f" {row.kind.name.lower()}{after}"), row.type
            elif row.kind in (Kind.RESTRICT, Kind.TYPE_TAG):
                id = row.type
            else:
                word = {
                    Kind.STRUCT: "struct ",
                    Kind.UNION: "union ",
                    Kind.ENUM: "enum ",
                    Kind.ENUM64: "enum ",
                    Kind.FWD: "struct ",
                }
                text = word.get(row.kind, "") + (row.name or "(anonymous)")
                return text + (" " if after.startswith("*") else "") + after
        raise ObjectError(f"type id {id} is a cycle", section=".BTF")

    def linkage_made_static(self, names: set[str]) -> Btf:
        """Return the same with the functions of these names static: what a hidden symbol asks for."""
        raw = bytearray(self.raw)
        for row in self.types:
            if row.kind == Kind.FUNC and row.name in names:
                _W.pack_into(raw, row.start + 4, _W.unpack_from(raw, row.start + 4)[0] & ~0xFFFF)
        return parse(bytes(raw))

    def sections_placed(self, size_of: Callable[[str], int | None], offset_of: Callable[[str, str], int | None]) -> Btf:
        """Return the same with each section's size, and its variables' offsets in order, as the object file has them.

        Compilers leave both 0; the kernel refuses that. size_of(section) and offset_of(section, variable) know.
        """
        raw = bytearray(self.raw)
        for row in self.types:
            if row.kind != Kind.DATASEC or (size := size_of(row.name)) is None:
                continue
            _W.pack_into(raw, row.start + 8, size)
            entries = []
            for m in row.members:
                at = offset_of(row.name, m.name)
                entries.append((m.offset if at is None else at, m.type, m.value))
            for i, (at, id, length) in enumerate(sorted(entries)):
                struct.pack_into("<III", raw, row.start + 12 + i * 12, id, at & 0xFFFFFFFF, length)
        return parse(bytes(raw))

    def externs_placed(self) -> Btf:
        """Return the same with what is only declared turned into what the kernel takes, which knows no external linkage.

        Functions become global, with names for their parameters; in a section a number stands for each of them.

        Source:  what libbpf's bpf_object__collect_externs() leaves.
        """
        functions = [row for row in self.types if row.kind == Kind.FUNC and row.linkage == EXTERN]
        variables = [row for row in self.types if row.kind == Kind.VAR and row.linkage == EXTERN]
        if not functions and not variables:
            return self
        raw = bytearray(self.raw)
        for row in functions:
            _W.pack_into(raw, row.start + 4, int(Kind.FUNC) << 24 | GLOBAL)
            proto = self[row.type].start + _TYPE.size
            for at in range(proto, proto + 8 * len(self[row.type].members), 8):
                if not _W.unpack_from(raw, at)[0]:
                    raw[at : at + 4] = raw[row.start : row.start + 4]
        for row in variables:
            _W.pack_into(raw, row.start + _TYPE.size, GLOBAL)
        section = self.find(".ksyms", Kind.DATASEC)
        return parse(bytes(raw)) if section is None else self._with_numbers(raw, section)

    def _with_numbers(self, raw: bytearray, section: Type) -> Btf:
        """Return a blob in which everything in .ksyms is a number of KSYM_SIZE bytes."""
        number = next((row.id for row in self.types if row.kind == Kind.INT and row.size == KSYM_SIZE), 0)
        stand_in = b""
        for i, m in enumerate(section.members):
            row, id = self[m.type], m.type
            if row.kind == Kind.FUNC:
                stand_in = bytes(raw[row.start : row.start + 4]) + struct.pack("<III", int(Kind.VAR) << 24, number, GLOBAL)
                id = len(self.types)
            elif row.kind == Kind.VAR:
                _W.pack_into(raw, row.start + 8, number)
            struct.pack_into("<III", raw, section.start + _TYPE.size + i * 12, id, i * KSYM_SIZE, KSYM_SIZE)
        _W.pack_into(raw, section.start + 8, KSYM_SIZE * len(section.members))
        return parse(bytes(_with_type(raw, stand_in) if stand_in else raw))


def _with_type(raw: bytearray, record: bytes) -> bytearray:
    """Return a blob with one more type at the end."""
    (_, end), _ = extent(bytes(raw))
    *head, type_off, type_len, str_off, str_len = _HEADER.unpack_from(raw)
    if str_off >= type_off + type_len:
        str_off += len(record)
    raw[end:end] = record
    _HEADER.pack_into(raw, 0, *head, type_off, type_len + len(record), str_off, str_len)
    return raw


def parse(raw: bytes) -> Btf:
    """Return the types of a BTF blob, all of them read and checked.

    Raises:  ObjectError when it is damaged.
    """
    (at, end), strings = extent(raw)
    rows = [VOID]
    try:
        while at < end:
            size = record_size(raw, at)
            if at + size > end:
                raise ObjectError(f"type {len(rows)} is cut off", section=".BTF", offset=at)
            rows.append(read_type(raw, len(rows), at, strings))
            at += size
    except struct.error:
        raise ObjectError("a type is cut off", section=".BTF", offset=at) from None
    for row in rows:
        for name, id in (("", row.type), *((m.name, m.type) for m in row.members)):
            if id >= len(rows):
                raise ObjectError(
                    f"type {row.id} {name} refers to type id {id} of {len(rows)}", section=".BTF", offset=row.start
                )
        if row.kind == Kind.DATASEC:
            rows[row.id] = replace(row, members=tuple(replace(m, name=rows[m.type].name) for m in row.members))
    _check_finite(rows)
    return Btf(raw, rows, strings)


def _check_finite(rows: Sequence[Type]) -> None:
    """Refuse a type that contains itself, other than through a pointer: who walks its parts would never end."""
    done: set[int] = set()
    for start in rows:
        open_: dict[int, Iterator[int]] = {}
        waiting = [start.id]
        while waiting:
            id = waiting[-1]
            if id not in open_:
                if id in done:
                    waiting.pop()
                    continue
                open_[id] = _parts(rows[id])
            part = next(open_[id], 0)
            if not part:
                done.add(waiting.pop())
                del open_[id]
            elif part in open_:
                raise ObjectError(f"type {part} contains itself", section=".BTF", offset=rows[part].start)
            elif part not in done:
                waiting.append(part)


def _parts(row: Type) -> Iterator[int]:
    """Yield the ids of the types that lie in one: members, elements, what an alias stands for."""
    if row.kind in (Kind.STRUCT, Kind.UNION):
        yield from (m.type for m in row.members if m.type)
    elif row.kind in MODIFIERS or row.kind == Kind.ARRAY:
        yield row.type


def extent(raw: bytes) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return (start, end) of the types and (start, size) of the strings.

    Raises:  ObjectError when they are not in the blob.
    """
    if len(raw) < _HEADER.size:
        raise ObjectError(f"{len(raw)} bytes, shorter than its header", section=".BTF", offset=0)
    magic, version, _, hdr_len, type_off, type_len, str_off, str_len = _HEADER.unpack_from(raw)
    if magic != MAGIC or version != 1:
        raise ObjectError(f"magic {magic:#x} version {version}, not {MAGIC:#x} version 1", section=".BTF", offset=0)
    types, strings = hdr_len + type_off, hdr_len + str_off
    if types + type_len > len(raw) or strings + str_len > len(raw):
        raise ObjectError(f"types or strings lie beyond its {len(raw)} bytes", section=".BTF", offset=8)
    return (types, types + type_len), (strings, str_len)


def record_size(raw: bytes, at: int) -> int:
    """Return the length in bytes of the type record at `at`.

    Raises:  ObjectError for a kind that does not exist; struct.error beyond the end.
    """
    info: int = _TYPE.unpack_from(raw, at)[1]
    known = _WIDTHS.get(info >> 24 & 31)
    if known is None:
        raise ObjectError(f"unknown kind {info >> 24 & 31}", section=".BTF", offset=at)
    return _TYPE.size + known[0] + known[1] * (info & 0xFFFF)


def read_type(raw: bytes, id: int, at: int, strings: tuple[int, int]) -> Type:
    """Return the type whose record is at `at`.

    Raises:  ObjectError for a name that is not there.
    """
    name, info, word = _TYPE.unpack_from(raw, at)

    def text(offset: int) -> str:
        return _text(raw, *strings, offset)

    kind = Kind(info >> 24 & 31)
    return _READERS[kind](_Head(id, kind, text(name), word, info & 0xFFFF, info >> 31 != 0, at, raw, text))


def _text(raw: bytes, start: int, size: int, offset: int) -> str:
    if offset >= size and offset:
        raise ObjectError(f"string at {offset:#x} of {size:#x}", section=".BTF", offset=start)
    end = raw.find(b"\0", start + offset, start + size)
    return raw[start + offset : end if end >= 0 else start + size].decode("utf-8", "backslashreplace")


class _Head(NamedTuple):
    """What every type record begins with, and where the rest of it is."""

    id: int
    kind: Kind
    name: str
    word: int  # size or type
    vlen: int
    flag: bool
    start: int
    raw: bytes
    text: Callable[[int], str]

    def rows(self, form: struct.Struct) -> list[tuple[int, ...]]:
        """Return the `vlen` entries that follow."""
        at = self.start + _TYPE.size
        return [form.unpack_from(self.raw, at + i * form.size) for i in range(self.vlen)]

    def one(self, form: struct.Struct) -> tuple[int, ...]:
        """Return the one entry that follows."""
        return form.unpack_from(self.raw, self.start + _TYPE.size)


def _int(h: _Head) -> Type:
    (info,) = h.one(_W)
    return Type(
        h.id,
        h.kind,
        h.name,
        size=h.word,
        encoding=info >> 24 & 15,
        bit_offset=info >> 16 & 255,
        bits=info & 255,
        start=h.start,
    )


def _sized(h: _Head) -> Type:
    return Type(h.id, h.kind, h.name, size=h.word, start=h.start)


def _reference(h: _Head) -> Type:
    return Type(h.id, h.kind, h.name, type=h.word, linkage=h.vlen, flag=h.flag, start=h.start)


def _fwd(h: _Head) -> Type:
    return Type(h.id, h.kind, h.name, flag=h.flag, start=h.start)


def _array(h: _Head) -> Type:
    element, index, nelems = h.one(_TYPE)
    return Type(h.id, h.kind, h.name, type=element, index_type=index, nelems=nelems, start=h.start)


def _struct(h: _Head) -> Type:
    members = tuple(
        Member(h.text(name), id, place & 0xFFFFFF if h.flag else place, place >> 24 if h.flag else 0)
        for name, id, place in h.rows(_TYPE)
    )
    return Type(h.id, h.kind, h.name, size=h.word, flag=h.flag, members=members, start=h.start)


def _enum(h: _Head) -> Type:
    if h.kind == Kind.ENUM64:
        wide = [(name, high << 32 | low) for name, low, high in h.rows(_TYPE)]
        rows = [(name, value - (1 << 64) if h.flag and value >> 63 else value) for name, value in wide]
    else:
        rows = [(name, value) for name, value in h.rows(_ENUM_SIGNED if h.flag else _PAIR)]
    return Type(
        h.id,
        h.kind,
        h.name,
        size=h.word,
        flag=h.flag,
        members=tuple(Member(h.text(n), value=v) for n, v in rows),
        start=h.start,
    )


def _proto(h: _Head) -> Type:
    return Type(h.id, h.kind, h.name, type=h.word, members=tuple(Member(h.text(n), t) for n, t in h.rows(_PAIR)), start=h.start)


def _var(h: _Head) -> Type:
    return Type(h.id, h.kind, h.name, type=h.word, linkage=h.one(_W)[0], start=h.start)


def _datasec(h: _Head) -> Type:
    return Type(
        h.id,
        h.kind,
        h.name,
        size=h.word,
        members=tuple(Member("", t, o, 0, s) for t, o, s in h.rows(_TYPE)),
        start=h.start,
    )


_PAIR, _ENUM_SIGNED = struct.Struct("<II"), struct.Struct("<Ii")
_WIDTHS: dict[int, tuple[int, int]] = {  # bytes behind the head, and bytes of each entry
    Kind.INT: (4, 0),
    Kind.PTR: (0, 0),
    Kind.ARRAY: (12, 0),
    Kind.STRUCT: (0, 12),
    Kind.UNION: (0, 12),
    Kind.ENUM: (0, 8),
    Kind.FWD: (0, 0),
    Kind.TYPEDEF: (0, 0),
    Kind.VOLATILE: (0, 0),
    Kind.CONST: (0, 0),
    Kind.RESTRICT: (0, 0),
    Kind.FUNC: (0, 0),
    Kind.FUNC_PROTO: (0, 8),
    Kind.VAR: (4, 0),
    Kind.DATASEC: (0, 12),
    Kind.FLOAT: (0, 0),
    Kind.DECL_TAG: (4, 0),
    Kind.TYPE_TAG: (0, 0),
    Kind.ENUM64: (0, 12),
}
_READERS: dict[Kind, Callable[[_Head], Type]] = {
    **dict.fromkeys((*MODIFIERS, Kind.PTR, Kind.FUNC, Kind.DECL_TAG), _reference),
    Kind.INT: _int,
    Kind.ARRAY: _array,
    Kind.STRUCT: _struct,
    Kind.UNION: _struct,
    Kind.ENUM: _enum,
    Kind.ENUM64: _enum,
    Kind.FWD: _fwd,
    Kind.FUNC_PROTO: _proto,
    Kind.VAR: _var,
    Kind.DATASEC: _datasec,
    Kind.FLOAT: _sized,
}

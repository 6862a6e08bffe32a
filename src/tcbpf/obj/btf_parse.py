"""From the bytes of a BTF blob to its types, each record checked.

Source:  Documentation/bpf/btf.rst; btf_check_all_metas(), kernel/bpf/btf.c (v6.18).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from tcbpf.errors import ObjectError
from tcbpf.obj.btf import MAGIC, MODIFIERS, VOID, Btf, Kind, Member, Type, text_at

HEADER = struct.Struct("<HBBIIIII")
TYPE = struct.Struct("<III")
_W = struct.Struct("<I")
_COMPONENT = struct.Struct("<i")


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
    if len(raw) < HEADER.size:
        raise ObjectError(f"{len(raw)} bytes, shorter than its header", section=".BTF", offset=0)
    magic, version, _, hdr_len, type_off, type_len, str_off, str_len = HEADER.unpack_from(raw)
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
    info: int = TYPE.unpack_from(raw, at)[1]
    known = _WIDTHS.get(info >> 24 & 31)
    if known is None:
        raise ObjectError(f"unknown kind {info >> 24 & 31}", section=".BTF", offset=at)
    return TYPE.size + known[0] + known[1] * (info & 0xFFFF)


def read_type(raw: bytes, id: int, at: int, strings: tuple[int, int]) -> Type:
    """Return the type whose record is at `at`.

    Raises:  ObjectError for a name that is not there.
    """
    name, info, word = TYPE.unpack_from(raw, at)

    def text(offset: int) -> str:
        return text_at(raw, *strings, offset)

    kind = Kind(info >> 24 & 31)
    return _READERS[kind](_Head(id, kind, text(name), word, info & 0xFFFF, info >> 31 != 0, at, raw, text))


class _Head(NamedTuple):
    """The fields that every type record begins with, and the place of the rest."""

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
        at = self.start + TYPE.size
        return [form.unpack_from(self.raw, at + i * form.size) for i in range(self.vlen)]

    def one(self, form: struct.Struct) -> tuple[int, ...]:
        """Return the one entry that follows."""
        return form.unpack_from(self.raw, self.start + TYPE.size)


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


def _decl_tag(h: _Head) -> Type:
    return Type(h.id, h.kind, h.name, type=h.word, linkage=h.vlen, flag=h.flag, start=h.start, component=h.one(_COMPONENT)[0])


def _fwd(h: _Head) -> Type:
    return Type(h.id, h.kind, h.name, flag=h.flag, start=h.start)


def _array(h: _Head) -> Type:
    element, index, nelems = h.one(TYPE)
    return Type(h.id, h.kind, h.name, type=element, index_type=index, nelems=nelems, start=h.start)


def _struct(h: _Head) -> Type:
    members = tuple(
        Member(h.text(name), id, place & 0xFFFFFF if h.flag else place, place >> 24 if h.flag else 0)
        for name, id, place in h.rows(TYPE)
    )
    return Type(h.id, h.kind, h.name, size=h.word, flag=h.flag, members=members, start=h.start)


def _enum(h: _Head) -> Type:
    if h.kind == Kind.ENUM64:
        wide = [(name, high << 32 | low) for name, low, high in h.rows(TYPE)]
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
        members=tuple(Member("", t, o, 0, s) for t, o, s in h.rows(TYPE)),
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
    **dict.fromkeys((*MODIFIERS, Kind.PTR, Kind.FUNC), _reference),
    Kind.DECL_TAG: _decl_tag,
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

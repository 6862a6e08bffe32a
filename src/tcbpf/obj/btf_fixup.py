"""BTF as the kernel takes it, of BTF as a compiler leaves it: places, sizes and linkage that only the ELF file tells."""

from __future__ import annotations

import struct
from collections.abc import Callable

from tcbpf.obj.btf import EXTERN, GLOBAL, Btf, Kind, Type
from tcbpf.obj.btf_parse import HEADER, TYPE, extent, parse

KSYM_SIZE = 4  # of the number that stands for an external symbol in .ksyms
_W = struct.Struct("<I")


def make_static(btf: Btf, names: set[str]) -> Btf:
    """Return the same with the functions of these names static, as libbpf takes hidden symbols."""
    raw = bytearray(btf.raw)
    for row in btf.types:
        if row.kind == Kind.FUNC and row.name in names:
            _W.pack_into(raw, row.start + 4, _W.unpack_from(raw, row.start + 4)[0] & ~0xFFFF)
    return parse(bytes(raw))


def place_sections(btf: Btf, size_of: Callable[[str], int | None], offset_of: Callable[[str, str], int | None]) -> Btf:
    """Return the same with each section's size, and its variables' offsets in order, as the object file has them.

    Compilers leave both 0; the kernel refuses that. size_of(section) and offset_of(section, variable) know.
    """
    raw = bytearray(btf.raw)
    for row in btf.types:
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


def define_externs(btf: Btf) -> Btf:
    """Return the same with declarations made definitions: the kernel knows no external linkage.

    Functions become global, with names for their parameters; in a section a number stands for each of them.

    Source:  bpf_object__collect_externs(), libbpf.
    """
    functions = [row for row in btf.types if row.kind == Kind.FUNC and row.linkage == EXTERN]
    variables = [row for row in btf.types if row.kind == Kind.VAR and row.linkage == EXTERN]
    if not functions and not variables:
        return btf
    raw = bytearray(btf.raw)
    for row in functions:
        _W.pack_into(raw, row.start + 4, int(Kind.FUNC) << 24 | GLOBAL)
        proto = btf[row.type].start + TYPE.size
        for at in range(proto, proto + 8 * len(btf[row.type].members), 8):
            if not _W.unpack_from(raw, at)[0]:
                raw[at : at + 4] = raw[row.start : row.start + 4]
    for row in variables:
        _W.pack_into(raw, row.start + TYPE.size, GLOBAL)
    section = btf.find(".ksyms", Kind.DATASEC)
    return parse(bytes(raw)) if section is None else _with_numbers(btf, raw, section)


def _with_numbers(btf: Btf, raw: bytearray, section: Type) -> Btf:
    """Return a blob in which everything in .ksyms is a number of KSYM_SIZE bytes."""
    number = next((row.id for row in btf.types if row.kind == Kind.INT and row.size == KSYM_SIZE), 0)
    stand_in = b""
    for i, m in enumerate(section.members):
        row, id = btf[m.type], m.type
        if row.kind == Kind.FUNC:
            stand_in = bytes(raw[row.start : row.start + 4]) + struct.pack("<III", int(Kind.VAR) << 24, number, GLOBAL)
            id = len(btf.types)
        elif row.kind == Kind.VAR:
            _W.pack_into(raw, row.start + 8, number)
        struct.pack_into("<III", raw, section.start + TYPE.size + i * 12, id, i * KSYM_SIZE, KSYM_SIZE)
    _W.pack_into(raw, section.start + 8, KSYM_SIZE * len(section.members))
    return parse(bytes(_with_type(raw, stand_in) if stand_in else raw))


def _with_type(raw: bytearray, record: bytes) -> bytearray:
    """Return a blob with one more type at the end."""
    (_, end), _ = extent(bytes(raw))
    *head, type_off, type_len, str_off, str_len = HEADER.unpack_from(raw)
    if str_off >= type_off + type_len:
        str_off += len(record)
    raw[end:end] = record
    HEADER.pack_into(raw, 0, *head, type_off, type_len + len(record), str_off, str_len)
    return raw

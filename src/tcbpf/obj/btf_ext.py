""".BTF.ext: which function and which source line each instruction belongs to, and what CO-RE wants patched.

Source:  Documentation/bpf/btf.rst, "BTF.ext section"; struct bpf_core_relo, include/uapi/linux/bpf.h.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from tcbpf.errors import ObjectError
from tcbpf.obj.btf import MAGIC, Btf

_HEADER = struct.Struct("<HBBI")
_SPAN = struct.Struct("<II")
_SECTION = struct.Struct("<II")
SECTION = ".BTF.ext"

CORE_KINDS = (
    "field_byte_offset",
    "field_byte_size",
    "field_exists",
    "field_signed",
    "field_lshift_u64",
    "field_rshift_u64",
    "local_type_id",
    "target_type_id",
    "type_exists",
    "type_size",
    "enumval_exists",
    "enumval_value",
    "type_matches",
)


@dataclass(frozen=True, slots=True)
class FuncInfo:
    """A function begins. Units: offset in bytes from the start of its ELF section."""

    offset: int
    type_id: int


@dataclass(frozen=True, slots=True)
class LineInfo:
    """A source line begins. Units: offset in bytes from the start of the ELF section; file, text as string offsets."""

    offset: int
    file: int
    text: int
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class CoreRelo:
    """A CO-RE relocation: `access` is the text of the path, as "0:1:2". Units: as FuncInfo."""

    offset: int
    type_id: int
    access: str
    kind: str


@dataclass(frozen=True, slots=True)
class BtfExt:
    """The three tables, each by ELF section name, in order of offset."""

    funcs: dict[str, tuple[FuncInfo, ...]]
    lines: dict[str, tuple[LineInfo, ...]]
    core: dict[str, tuple[CoreRelo, ...]]


def parse(raw: bytes, btf: Btf) -> BtfExt:
    """Return the tables of a .BTF.ext section; strings are in `btf`.

    Raises:  ObjectError when it is damaged.
    """
    if len(raw) < 24:
        raise ObjectError(f"{len(raw)} bytes, shorter than its header", section=SECTION, offset=0)
    magic, version, _, hdr_len = _HEADER.unpack_from(raw)
    if magic != MAGIC or version != 1 or not 24 <= hdr_len <= len(raw):
        raise ObjectError(f"magic {magic:#x} version {version}, header of {hdr_len} bytes", section=SECTION, offset=0)
    spans = [_SPAN.unpack_from(raw, at) if at + 8 <= hdr_len else (0, 0) for at in (8, 16, 24)]
    funcs = {s: tuple(FuncInfo(*r[:2]) for r in rows) for s, rows in _table(raw, hdr_len, spans[0], 2, btf).items()}
    lines = {
        s: tuple(LineInfo(r[0], r[1], r[2], r[3] >> 10, r[3] & 1023) for r in rows)
        for s, rows in _table(raw, hdr_len, spans[1], 4, btf).items()
    }
    core = {
        s: tuple(CoreRelo(r[0], r[1], btf.string(r[2]), _core_kind(r[3])) for r in rows)
        for s, rows in _table(raw, hdr_len, spans[2], 4, btf).items()
    }
    return BtfExt(funcs, lines, core)


def _core_kind(number: int) -> str:
    return CORE_KINDS[number] if number < len(CORE_KINDS) else f"kind {number}"


def _table(raw: bytes, base: int, span: tuple[int, int], words: int, btf: Btf) -> dict[str, list[tuple[int, ...]]]:
    """Return the records (their first `words` 32-bit words) of one table by section, sorted by offset."""
    at, end = base + span[0], base + span[0] + span[1]
    found: dict[str, list[tuple[int, ...]]] = {}
    if not span[1]:
        return found
    if end > len(raw) or span[1] < 4:
        raise ObjectError(f"a table lies beyond its {len(raw)} bytes", section=SECTION, offset=at)
    record = int.from_bytes(raw[at : at + 4], "little")
    if record < words * 4 or record % 4:
        raise ObjectError(f"records of {record} bytes", section=SECTION, offset=at)
    at += 4
    form = struct.Struct(f"<{words}I")
    while at + _SECTION.size <= end:
        name, count = _SECTION.unpack_from(raw, at)
        at += _SECTION.size
        if at + count * record > end:
            raise ObjectError(f"{count} records of {record} bytes are cut off", section=SECTION, offset=at)
        found.setdefault(btf.string(name), []).extend(form.unpack_from(raw, at + i * record) for i in range(count))
        at += count * record
    for rows in found.values():
        rows.sort(key=lambda row: row[0])
    return found

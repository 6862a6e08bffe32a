"""Linking: one relocatable object into one position-independent image.

Only relocations that are relative and stay inside the image are accepted.

Source:  ELF-64 object file format; System V ABI, AMD64 supplement (relocation types).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tcbpf.errors import InternalError
from tcbpf.vm.jit.image import PAGE, TRAP, Image, page_up

_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELA = struct.Struct("<QQq")
_PROGBITS, _SYMTAB, _RELA_TYPE, _NOBITS = 1, 2, 4, 8
_ALLOC, _WRITE, _EXEC = 2, 1, 4
_RELATIVE = {2: "<i", 4: "<i", 24: "<q"}  # R_X86_64_PC32, PLT32, PC64


def _round(value: int, to: int) -> int:
    return -(-value // to) * to


@dataclass(slots=True)
class _Section:
    type: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    align: int
    place: int = -1  # where it lies in the image, -1 for nowhere


def link(obj: bytes, exported: Sequence[str]) -> Image:
    """Return the image of an x86-64 ELF relocatable.

    Raises:  InternalError when the object has writable data, an unresolved symbol or an absolute relocation.
    """
    sections = _sections(obj)
    loaded = [sections[i] for i in _needed(obj, sections, exported) if sections[i].size]
    text = _lay(obj, [s for s in loaded if s.flags & _EXEC], 0, TRAP)
    distance = page_up(len(text)) + PAGE
    data = _lay(obj, [s for s in loaded if not s.flags & _EXEC and s.type == _PROGBITS], distance, b"\0")
    if any(s.flags & _WRITE for s in loaded):
        raise InternalError("machine code with writable data")
    symbols = _symbols(obj, sections)
    for section in sections:
        if section.type == _RELA_TYPE and sections[section.info].place >= 0:
            _relocate(obj, section, sections[section.info].place, symbols, text, data, distance)
    entries = {name: place for name, place in symbols if name in exported and place is not None}
    if len(entries) != len(exported):
        raise InternalError(f"machine code without {sorted(set(exported) - set(entries))}")
    return Image(bytes(text), bytes(data), entries)


def _sections(obj: bytes) -> list[_Section]:
    start = struct.unpack_from("<Q", obj, 0x28)[0]
    size, count = struct.unpack_from("<HH", obj, 0x3A)
    found = []
    for i in range(count):
        _, kind, flags, _, offset, length, lnk, info, align, _ = _SECTION.unpack_from(obj, start + i * size)
        found.append(_Section(kind, flags, offset, length, lnk, info, max(align, 1)))
    return found


def _needed(obj: bytes, sections: Sequence[_Section], exported: Sequence[str]) -> list[int]:
    """Return the sections that the exported symbols reach, in file order."""
    homes = _homes(obj, sections)
    reached: set[int] = set()
    todo = [home for name, home in homes if name in exported]
    while todo:
        section = todo.pop()
        if section in reached or not 0 < section < len(sections) or not sections[section].flags & _ALLOC:
            continue
        reached.add(section)
        for rela in sections:
            if rela.type == _RELA_TYPE and rela.info == section:
                todo += [homes[info >> 32][1] for _, info, _ in _relocations(obj, rela)]
    return sorted(reached)


def _relocations(obj: bytes, rela: _Section) -> Iterator[tuple[int, int, int]]:
    return _RELA.iter_unpack(obj[rela.offset : rela.offset + rela.size])


def _homes(obj: bytes, sections: Sequence[_Section]) -> list[tuple[str, int]]:
    """Return each symbol's name and section, in table order."""
    table = next(s for s in sections if s.type == _SYMTAB)
    names = sections[table.link]
    found = []
    for name, _, _, index, _, _ in _SYMBOL.iter_unpack(obj[table.offset : table.offset + table.size]):
        start = names.offset + name
        found.append((obj[start : obj.index(b"\0", start)].decode(), index))
    return found


def _lay(obj: bytes, sections: Sequence[_Section], start: int, filler: bytes) -> bytearray:
    """Return the sections one after the other, and note where each came to lie."""
    out = bytearray()
    for section in sections:
        if section.type == _NOBITS and section.size:
            raise InternalError("machine code with zero-initialised data")
        out += filler * (_round(len(out), section.align) - len(out))
        section.place = start + len(out)
        out += obj[section.offset : section.offset + section.size]
    return out


def _symbols(obj: bytes, sections: Sequence[_Section]) -> list[tuple[str, int | None]]:
    """Return the symbols in table order: name and place in the image, None for what is not in it."""
    table = next(s for s in sections if s.type == _SYMTAB)
    values = [value for _, _, _, _, value, _ in _SYMBOL.iter_unpack(obj[table.offset : table.offset + table.size])]
    found: list[tuple[str, int | None]] = []
    for (name, index), value in zip(_homes(obj, sections), values, strict=True):
        section = sections[index] if 0 < index < len(sections) else None
        found.append((name, section.place + value if section is not None and section.place >= 0 else None))
    return found


def _relocate(
    obj: bytes,
    rela: _Section,
    base: int,
    symbols: Sequence[tuple[str, int | None]],
    text: bytearray,
    data: bytearray,
    distance: int,
) -> None:
    for offset, info, addend in _relocations(obj, rela):
        name, place = symbols[info >> 32]
        form = _RELATIVE.get(info & 0xFFFFFFFF)
        if form is None or place is None:
            raise InternalError(f"machine code with relocation {info & 0xFFFFFFFF} of {name or 'a section'!r}")
        where = base + offset
        target, start = (data, distance) if where >= distance else (text, 0)
        struct.pack_into(form, target, where - start, place + addend - where)

"""Linking: one relocatable object into one position-independent image, and its form on disk.

An image is text, then a gap of at least a page, then read-only data at a fixed distance; nothing in it depends on where
it is loaded, so loading is copying. Only relocations that are relative to the place and stay inside the image are accepted.

Source:  ELF-64 object file format; System V ABI, AMD64 supplement (relocation types).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tcbpf.errors import InternalError

PAGE = 4096
TRAP = b"\xcc"                 # int3, x86-64
MAGIC = b"tcbpfjit"
_HEAD = struct.Struct("<8s32sIIII")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELA = struct.Struct("<QQq")
_PROGBITS, _SYMTAB, _RELA_TYPE, _NOBITS = 1, 2, 4, 8
_ALLOC, _WRITE, _EXEC = 2, 1, 4
_RELATIVE = {2: "<i", 4: "<i", 24: "<q"}                               # R_X86_64_PC32, PLT32, PC64


@dataclass(frozen=True, slots=True)
class Image:
    """Machine code that can be placed anywhere.

    Units:   entries are offsets into text; data lies `distance` bytes after the start of text.
    """

    text: bytes
    data: bytes
    entries: Mapping[str, int]

    @property
    def distance(self) -> int:
        """From the start of text to the start of data: a page that both touch cannot exist, wherever text starts."""
        return _round(len(self.text), PAGE) + PAGE

    def pack(self) -> bytes:
        """Return the image's bytes for the cache, a digest of them in front."""
        names = "\n".join(f"{name} {off}" for name, off in self.entries.items()).encode()
        rest = names + self.text + self.data
        digest = hashlib.sha256(rest).digest()
        return _HEAD.pack(MAGIC, digest, len(names), len(self.text), len(self.data), 0) + rest

    @classmethod
    def unpack(cls, raw: bytes) -> Image | None:
        """Return the image that `pack` wrote, or None when a byte of it is not as it was."""
        if len(raw) < _HEAD.size:
            return None
        magic, digest, names, text, data, _ = _HEAD.unpack_from(raw)
        rest = raw[_HEAD.size:]
        if magic != MAGIC or len(rest) != names + text + data or hashlib.sha256(rest).digest() != digest:
            return None
        entries = dict(line.split(" ") for line in rest[:names].decode().split("\n"))
        return cls(rest[names:names + text], rest[names + text:], {name: int(off) for name, off in entries.items()})


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
    place: int = -1            # where it lies in the image, -1 for nowhere


def link(obj: bytes, exported: Sequence[str]) -> Image:
    """Return the image of an x86-64 ELF relocatable.

    Raises:  InternalError when the object has writable data, an unresolved symbol or an absolute relocation.
    """
    sections = _sections(obj)
    loaded = [s for s in sections if s.flags & _ALLOC and s.size]
    text = _lay(obj, [s for s in loaded if s.flags & _EXEC], 0, TRAP)
    distance = _round(len(text), PAGE) + PAGE
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


def _lay(obj: bytes, sections: Sequence[_Section], start: int, filler: bytes) -> bytearray:
    """Return the sections one after the other, and note where each came to lie."""
    out = bytearray()
    for section in sections:
        if section.type == _NOBITS and section.size:
            raise InternalError("machine code with zero-initialised data")
        out += filler * (_round(len(out), section.align) - len(out))
        section.place = start + len(out)
        out += obj[section.offset:section.offset + section.size]
    return out


def _symbols(obj: bytes, sections: Sequence[_Section]) -> list[tuple[str, int | None]]:
    """Return the symbols in table order: name and place in the image, None for what is not in it."""
    table = next(s for s in sections if s.type == _SYMTAB)
    names = sections[table.link]
    found: list[tuple[str, int | None]] = []
    for at in range(table.offset, table.offset + table.size, _SYMBOL.size):
        name, _, _, index, value, _ = _SYMBOL.unpack_from(obj, at)
        end = obj.index(b"\0", names.offset + name)
        section = sections[index] if 0 < index < len(sections) else None
        place = section.place + value if section is not None and section.place >= 0 else None
        found.append((obj[names.offset + name:end].decode(), place))
    return found


def _relocate(obj: bytes, rela: _Section, base: int, symbols: Sequence[tuple[str, int | None]], text: bytearray,
              data: bytearray, distance: int) -> None:
    for at in range(rela.offset, rela.offset + rela.size, _RELA.size):
        offset, info, addend = _RELA.unpack_from(obj, at)
        name, place = symbols[info >> 32]
        form = _RELATIVE.get(info & 0xFFFFFFFF)
        if form is None or place is None:
            raise InternalError(f"machine code with relocation {info & 0xFFFFFFFF} of {name or 'a section'!r}")
        where = base + offset
        target, start = (data, distance) if where >= distance else (text, 0)
        struct.pack_into(form, target, where - start, place + addend - where)

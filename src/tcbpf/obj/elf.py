"""ELF64 little-endian relocatable objects: sections, symbols, relocations, and nothing more.

Every number of the file is checked before it is used, so that a damaged file is an ObjectError and never another
exception. A general ELF library costs more to import than all that a warm `tcbpf run` does; the tests hold this
reader to one.

Source:  ELF-64 object file format 1.5; include/uapi/linux/elf-em.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from tcbpf.errors import ObjectError

EM_NONE, EM_BPF = 0, 247
SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_NOBITS, SHT_REL, SHT_RELA = 1, 2, 3, 8, 9, 4
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR = 1, 2, 4
SHN_UNDEF, SHN_LORESERVE = 0, 0xFF00
STB_LOCAL, STB_GLOBAL, STB_WEAK = 0, 1, 2
STT_NOTYPE, STT_OBJECT, STT_FUNC, STT_SECTION, STT_FILE = range(5)
STV_INTERNAL, STV_HIDDEN = 1, 2
R_BPF_NONE, R_BPF_64_64, R_BPF_64_ABS64, R_BPF_64_ABS32, R_BPF_64_NODYLD32, R_BPF_64_32 = 0, 1, 2, 3, 4, 10

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_REL = struct.Struct("<QQ")
MACHINES = {
    3: "x86",
    8: "MIPS",
    20: "PowerPC",
    21: "PowerPC64",
    22: "S/390",
    40: "ARM",
    62: "x86-64",
    183: "AArch64",
    243: "RISC-V",
}
MAX_SECTIONS = 1 << 16


@dataclass(frozen=True, slots=True)
class Section:
    """One section. `data` is empty for NOBITS, whose `size` counts all the same."""

    index: int
    name: str
    type: int
    flags: int
    size: int
    link: int
    info: int
    data: bytes

    @property
    def label(self) -> str:
        """Return the name used in messages, or its index if it has none."""
        return self.name or f"section {self.index}"

    @property
    def executable(self) -> bool:
        """True when it holds instructions."""
        return self.type == SHT_PROGBITS and self.flags & SHF_EXECINSTR != 0


@dataclass(frozen=True, slots=True)
class Symbol:
    """One symbol; `section` is an index, SHN_UNDEF for one that another file must define."""

    name: str
    value: int
    size: int
    bind: int
    type: int
    visibility: int
    section: int


@dataclass(frozen=True, slots=True)
class Rel:
    """One relocation: the place at `offset` of its section refers to symbol number `symbol`."""

    offset: int
    type: int
    symbol: int


@dataclass(frozen=True)
class Elf:
    """The parts of a file that a BPF loader reads."""

    path: str
    machine: int
    sections: tuple[Section, ...]
    symbols: tuple[Symbol, ...]
    relocations: dict[int, tuple[Rel, ...]]  # by the index of the section they patch

    def section(self, name: str) -> Section | None:
        """Return the first section of that name, or None."""
        return next((s for s in self.sections if s.name == name), None)

    def at(self, index: int) -> Section | None:
        """Return the section of that index, or None for the reserved ones."""
        return self.sections[index] if 0 < index < len(self.sections) else None


def read(raw: bytes, path: str = "") -> Elf:
    """Return the sections, symbols and relocations of an object file.

    Raises:  ObjectError for a file that is not ELF, for another machine or byte order, and for a damaged file.
    """
    _check_ident(raw, path)
    (_, kind, machine, _, _, _, shoff, _, _, _, _, shentsize, shnum, shstrndx) = _unpack(_HEADER, raw, 0, path, "ELF header")
    if machine not in (EM_NONE, EM_BPF):
        named = MACHINES.get(machine, f"machine {machine}")
        raise ObjectError(
            "ELF format error, ELF file not for eBPF?", path=path, hint=f"it is for {named}; compile with -target bpf"
        )
    if kind != 1:
        raise ObjectError("ELF format error, not a relocatable object", path=path, hint="compile with -c")
    if shentsize != _SECTION.size or not 0 < shnum < MAX_SECTIONS:
        raise ObjectError(f"{shnum} section headers of {shentsize} bytes", path=path, section="ELF header", offset=0x3A)
    headers = [_unpack(_SECTION, raw, shoff + i * _SECTION.size, path, "section headers") for i in range(shnum)]
    sections = tuple(_sections(raw, headers, shstrndx, path))
    symtab = next((s for s in sections if s.type == SHT_SYMTAB), None)
    symbols = tuple(_symbols(symtab, sections, path)) if symtab else ()
    return Elf(path, machine, sections, symbols, _relocations(sections, len(symbols), path))


def _check_ident(raw: bytes, path: str) -> None:
    if raw[:4] != b"\x7fELF":
        raise ObjectError(
            "not an ELF file", path=path, hint="an object is made by clang -target bpf -c, or by tcbpf from C source"
        )
    if len(raw) < _HEADER.size:
        raise ObjectError(f"the file ends after {len(raw)} bytes", path=path, section="ELF header", offset=len(raw))
    if raw[4] != 2:
        raise ObjectError("ELF format error, ELF file not for eBPF?", path=path, hint="it is a 32-bit file")
    if raw[5] == 2:
        raise ObjectError("We are little endian, eBPF object is big endian!", path=path, hint="compile with -target bpfel")
    if raw[5] != 1:
        raise ObjectError(f"unknown byte order {raw[5]}", path=path, section="ELF header", offset=5)


def _unpack(form: struct.Struct, raw: bytes, offset: int, path: str, place: str) -> tuple[int, ...]:
    if not 0 <= offset <= len(raw) - form.size:
        raise ObjectError(f"lies beyond the end of the file ({len(raw)} bytes)", path=path, section=place, offset=offset)
    return form.unpack_from(raw, offset)


def _string(table: bytes, offset: int) -> str:
    """Return the text at `offset` of a string table; a table that lacks its last zero is read to its end."""
    end = table.find(b"\0", offset)
    return table[offset : end if end >= 0 else None].decode("utf-8", "backslashreplace")


def _sections(raw: bytes, headers: list[tuple[int, ...]], shstrndx: int, path: str) -> Iterator[Section]:
    contents = []
    for i, (_, kind, _, _, offset, size, *_rest) in enumerate(headers):
        held = 0 if kind == SHT_NOBITS or i == 0 else size
        if offset + held > len(raw) and held:
            raise ObjectError(
                f"{size} bytes at {offset:#x} lie beyond the end of the file ({len(raw)} bytes)",
                path=path,
                section=f"section {i}",
                offset=0,
            )
        contents.append(raw[offset : offset + held])
    if shstrndx >= len(headers):
        raise ObjectError(
            f"section names in section {shstrndx} of {len(headers)}", path=path, section="ELF header", offset=0x3E
        )
    for i, (name, kind, flags, _, _, size, link, info, _, _) in enumerate(headers):
        yield Section(i, _string(contents[shstrndx], name), kind, flags, size, link, info, contents[i])


def _symbols(symtab: Section, sections: tuple[Section, ...], path: str) -> Iterator[Symbol]:
    if symtab.link >= len(sections):
        raise ObjectError(f"names in section {symtab.link} of {len(sections)}", path=path, section=symtab.label)
    if len(symtab.data) % _SYMBOL.size:
        raise ObjectError(f"{len(symtab.data)} bytes are not whole symbols", path=path, section=symtab.label)
    names = sections[symtab.link].data
    for name, info, other, section, value, size in _SYMBOL.iter_unpack(symtab.data):
        if section < SHN_LORESERVE and section >= len(sections):
            raise ObjectError(
                f"symbol {_string(names, name)!r} in section {section} of {len(sections)}",
                path=path,
                section=symtab.label,
            )
        text = _string(names, name)
        if info & 15 == STT_SECTION and not text and section < len(sections):
            text = sections[section].name
        yield Symbol(text, value, size, info >> 4, info & 15, other & 3, section)


def _relocations(sections: tuple[Section, ...], symbols: int, path: str) -> dict[int, tuple[Rel, ...]]:
    found: dict[int, tuple[Rel, ...]] = {}
    for section in sections:
        if section.type == SHT_RELA and section.info < len(sections) and sections[section.info].executable:
            raise ObjectError("relocations with addends, which no BPF compiler writes", path=path, section=section.label)
        if section.type != SHT_REL:
            continue
        if section.info >= len(sections) or len(section.data) % _REL.size:
            raise ObjectError(
                f"damaged: {len(section.data)} bytes for section {section.info}", path=path, section=section.label
            )
        rows = []
        for at, (offset, info) in enumerate(_REL.iter_unpack(section.data)):
            if info >> 32 >= symbols:
                raise ObjectError(
                    f"names symbol {info >> 32} of {symbols}", path=path, section=section.label, offset=at * _REL.size
                )
            rows.append(Rel(offset, info & 0xFFFFFFFF, info >> 32))
        found[section.info] = found.get(section.info, ()) + tuple(sorted(rows, key=lambda r: r.offset))
    return found

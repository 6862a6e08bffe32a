"""From the bytes of an object file to an Object: its declarations, nothing of this machine.

Source:  the ELF conventions of iproute2 and libbpf; Documentation/bpf/llvm_reloc.rst. Paper, "Front End".
"""

from __future__ import annotations

import hashlib
import os
import struct
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tcbpf.errors import InputError, ObjectError
from tcbpf.isa.insn import SLOT_SIZE, Insn, decode
from tcbpf.obj import btf_ext as ext_
from tcbpf.obj import core
from tcbpf.obj import elf as elf_
from tcbpf.obj.btf import GLOBAL, Btf, Kind
from tcbpf.obj.btf_ext import BtfExt
from tcbpf.obj.btf_fixup import define_externs, make_static, place_sections
from tcbpf.obj.btf_parse import parse
from tcbpf.obj.elf import Elf, Rel, Section, Symbol
from tcbpf.obj.mapdefs import Declared, declared
from tcbpf.obj.program import Code, Line, Object, Reloc
from tcbpf.tables.opcodes import CALL, JMP, LD_IMM64, PSEUDO_CALL

MAX_LICENSE = 128


def load(source: str | os.PathLike[str] | bytes, *, path: str = "") -> Object:
    """Return the Object that a file, or the bytes of one, holds. `path` names bytes in messages.

    Raises:  InputError when the file cannot be read; ObjectError when it is damaged or for another machine.
    """
    if isinstance(source, bytes):
        raw = source
    else:
        path = path or os.fspath(source)
        try:
            raw = Path(source).read_bytes()
        except OSError as error:
            raise InputError(error.strerror or str(error), where=path) from None
    try:
        return _Loader(raw, path).object()
    except ObjectError as error:
        if error.path or not path:
            raise
        raise ObjectError(error.what, path=path, section=error.section, offset=error.offset, hint=error.hint) from None


@dataclass(frozen=True, slots=True)
class _Place:
    """A function of a section. Units: bytes."""

    name: str
    start: int
    end: int
    is_global: bool


class _Loader:
    """One file on its way; each method reads one part of it."""

    def __init__(self, raw: bytes, path: str) -> None:
        self.raw, self.path = raw, path
        self.elf: Elf = elf_.read(raw, path)
        self.btf = self.read_btf()
        section = self.elf.section(ext_.SECTION)
        self.ext: BtfExt | None = ext_.parse(section.data, self.btf) if section and self.btf else None
        self.declared: Declared = declared(self.elf, self.btf)
        self.code = [s for s in self.elf.sections if s.executable and s.size]
        self.names: set[str] = set()
        self.places = {s.index: self.functions_of(s) for s in self.code}

    def wrong(self, what: str, section: Section, offset: int, hint: str = "") -> ObjectError:
        return ObjectError(what, path=self.path, section=section.label, offset=offset, hint=hint)

    def object(self) -> Object:
        """Return all of it."""
        codes = {code.name: code for section in self.code for code in self.codes_of(section)}
        return Object(
            path=self.path,
            functions=codes,
            entries=tuple(self.entries()),
            maps=dict(self.declared.maps),
            license=self.license(),
            kernel_version=self.version(),
            btf=self.btf,
            sha1=hashlib.sha1(self.raw).hexdigest(),
            notes=self.declared.notes,
        )

    def license(self) -> str:
        """Return the license string, empty when there is none."""
        section = self.elf.section("license")
        if section is None:
            return ""
        if len(section.data) > MAX_LICENSE:
            raise self.wrong(f"a license of {len(section.data)} bytes, over {MAX_LICENSE}", section, 0)
        return section.data.split(b"\0")[0].decode("utf-8", "backslashreplace")

    def version(self) -> int:
        """Return the kernel version that a `version` section asks for, or 0."""
        section = self.elf.section("version")
        if section is None:
            return 0
        if len(section.data) != 4:
            raise self.wrong(f"{len(section.data)} bytes, not one 32-bit number", section, 0)
        return int(struct.unpack("<I", section.data)[0])

    def read_btf(self) -> Btf | None:
        """Return the BTF with what only ELF knows: sizes of sections, places of variables, hidden functions."""
        section = self.elf.section(".BTF")
        if section is None or not section.data:
            return None
        btf = parse(section.data)
        names = {s.name: s for s in self.elf.sections}
        symbols = {(s.section, s.name): s.value for s in self.elf.symbols if s.type == elf_.STT_OBJECT}
        btf = place_sections(
            btf,
            lambda name: names[name].size & 0xFFFFFFFF if name in names else None,
            lambda name, variable: symbols.get((names[name].index, variable)),
        )
        hidden = {
            s.name for s in self.elf.symbols if s.type == elf_.STT_FUNC and s.visibility in (elf_.STV_HIDDEN, elf_.STV_INTERNAL)
        }
        btf = define_externs(btf)
        return make_static(btf, hidden) if hidden else btf

    # --- functions ---------------------------------------------------------------------------------------------------

    def functions_of(self, section: Section) -> list[_Place]:
        """Return the functions of a section in order; a section without function symbols is one function.

        A function symbol without a size (written by hand, in assembly) reaches to the next one.
        """
        if section.size % SLOT_SIZE:
            raise self.wrong(
                f"{section.size} bytes are not whole instructions", section, section.size - section.size % SLOT_SIZE
            )
        symbols = [s for s in self.elf.symbols if s.section == section.index and s.type == elf_.STT_FUNC and s.name]
        if not symbols:
            named = [
                s
                for s in self.elf.symbols
                if s.section == section.index
                and s.type == elf_.STT_NOTYPE
                and s.bind == elf_.STB_GLOBAL
                and s.value == 0
                and s.name
            ]
            return [_Place(self.unique(named[0].name if named else section.name), 0, section.size, True)]
        starts = sorted({s.value for s in symbols})
        places: list[_Place] = []
        for symbol in sorted(symbols, key=lambda s: (s.value, s.bind == elf_.STB_LOCAL)):
            if places and places[-1].start == symbol.value:
                continue
            following = starts[starts.index(symbol.value) + 1 :]
            end = symbol.value + symbol.size if symbol.size else (following[0] if following else section.size)
            if symbol.value % SLOT_SIZE or end % SLOT_SIZE or not symbol.value < end <= section.size:
                raise self.wrong(f"function {symbol.name!r} ends at {end:#x} of {section.size:#x}", section, symbol.value)
            places.append(_Place(self.unique(symbol.name), symbol.value, end, symbol.bind != elf_.STB_LOCAL))
        return places

    def unique(self, name: str) -> str:
        """Return `name`, or a variant of it when another section has a local function of that name."""
        free = name
        for number in range(1, len(self.names) + 2):
            if free not in self.names:
                break
            free = f"{name}.{number}"
        self.names.add(free)
        return free

    def entries(self) -> Iterator[str]:
        """Yield the names of the entry programs: each section's global functions, or else its first; .text has none.

        A file whose only code is in .text has its entries there.
        """
        named = [s for s in self.code if s.name != ".text"] or self.code
        for section in named:
            places = self.places[section.index]
            yield from [p.name for p in places if p.is_global] or [places[0].name]

    def codes_of(self, section: Section) -> Iterator[Code]:
        """Yield the functions of a section, each with what belongs to it."""
        insns = decode(section.data)
        rels = {rel.offset: rel for rel in self.elf.relocations.get(section.index, ())}
        for offset in rels:
            if offset % SLOT_SIZE or offset >= section.size:
                raise self.wrong("a relocation of no instruction", section, offset)
        funcs = {f.offset: f.type_id for f in self.ext.funcs.get(section.name, ())} if self.ext else {}
        lines = self.lines_of(section)
        starts = [line.pc for line in lines]
        for place in self.places[section.index]:
            first, last = place.start // SLOT_SIZE, place.end // SLOT_SIZE
            body = insns[first:last]
            self.check_pairs(section, place, body)
            relocs = tuple(self.relocs_of(section, place, body, rels))
            type_id = funcs.get(place.start, 0)
            func = self.btf[type_id] if self.btf and type_id else None
            if func is not None and func.kind != Kind.FUNC:
                raise self.wrong(f"function {place.name!r} has type id {type_id}, which is no function", section, place.start)
            low, high = bisect_right(starts, first - 1), bisect_right(starts, last - 1)
            yield Code(
                place.name,
                section.name,
                body,
                relocs,
                tuple(replace(line, pc=line.pc - first) for line in lines[low:high]),
                type_id,
                func.linkage == GLOBAL if func else place.is_global,
            )

    def check_pairs(self, section: Section, place: _Place, body: tuple[Insn, ...]) -> None:
        """Refuse a 16-byte instruction that is cut in half."""
        pc = 0
        while pc < len(body):
            if body[pc].code == LD_IMM64:
                pc += 1
                if pc == len(body) or body[pc].code:
                    raise self.wrong("a 16-byte instruction lacks its second half", section, place.start + (pc - 1) * SLOT_SIZE)
            pc += 1

    def lines_of(self, section: Section) -> list[Line]:
        """Return the section's source lines, counted from its first slot."""
        if self.ext is None or self.btf is None:
            return []
        text = self.btf.string
        lines = []
        for row in self.ext.lines.get(section.name, ()):
            if row.offset % SLOT_SIZE or row.offset >= section.size:
                raise self.wrong("a source line of no instruction", section, row.offset)
            lines.append(Line(row.offset // SLOT_SIZE, text(row.file), row.line, row.column, text(row.text)))
        return lines

    # --- relocations -------------------------------------------------------------------------------------------------

    def relocs_of(self, section: Section, place: _Place, body: tuple[Insn, ...], rels: dict[int, Rel]) -> Iterator[Reloc]:
        """Yield the relocations of one function, calls inside the section included, as the slots they patch."""
        for pc, insn in enumerate(body):
            at = place.start + pc * SLOT_SIZE
            rel = rels.get(at)
            if rel is not None and rel.type != elf_.R_BPF_NONE:
                yield self.reloc(section, at, pc, insn, rel)
            elif insn.code == JMP | CALL and insn.src == PSEUDO_CALL:
                yield Reloc(pc, "call", self.function_at(section, at + (insn.imm + 1) * SLOT_SIZE, section, at))
        if self.ext is None or self.btf is None:
            return
        for row in self.ext.core.get(section.name, ()):
            if place.start <= row.offset < place.end:
                yield Reloc((row.offset - place.start) // SLOT_SIZE, "core", core.describe(row, self.btf), core=row)

    def reloc(self, section: Section, at: int, pc: int, insn: Insn, rel: Rel) -> Reloc:
        symbol = self.elf.symbols[rel.symbol]
        target = self.elf.at(symbol.section)
        if insn.code == JMP | CALL and rel.type == elf_.R_BPF_64_32:
            if target is None:
                return Reloc(pc, "call", symbol.name)
            return Reloc(pc, "call", self.function_at(target, symbol.value + (insn.imm + 1) * SLOT_SIZE, section, at))
        if rel.type != elf_.R_BPF_64_64:
            raise self.wrong(f"relocation type {rel.type} against {symbol.name!r}", section, at)
        if insn.code != LD_IMM64:
            raise self.wrong(
                f"ELF contains relo data for non ld64 instruction at offset {at // SLOT_SIZE}! Compiler bug?!",
                section,
                at,
            )
        offset = symbol.value + insn.imm
        if target is None:
            return self.undefined(section, at, pc, symbol)
        if target.executable:
            return Reloc(pc, "func", self.function_at(target, offset, section, at))
        if name := self.declared.places.get((target.index, offset)) if target.index not in self.declared.data else "":
            return Reloc(pc, "map", name)
        if name := self.declared.data.get(target.index, ""):
            return self.data(section, at, pc, target, name, offset, symbol)
        raise self.wrong(
            f"refers to {symbol.name!r} in section {target.name!r}, which holds neither a map nor data", section, at
        )

    def data(self, section: Section, at: int, pc: int, target: Section, name: str, offset: int, symbol: Symbol) -> Reloc:
        if not 0 <= offset <= target.size:
            raise self.wrong(f"refers to byte {offset} of {target.name}, which has {target.size}", section, at)
        if target.index in self.elf.relocations:
            raise self.wrong(
                f"refers to {symbol.name!r} in {target.name}, which holds addresses",
                section,
                at,
                hint="constant data may hold no pointers: use an array of char arrays, or a switch",
            )
        return Reloc(pc, "data", name, offset)

    def undefined(self, section: Section, at: int, pc: int, symbol: Symbol) -> Reloc:
        """Return the relocation against a symbol that this file does not define, for link to resolve."""
        if symbol.section != elf_.SHN_UNDEF:
            raise self.wrong(f"refers to {symbol.name!r}, which lies in no section", section, at)
        return Reloc(pc, "extern", symbol.name)

    def function_at(self, target: Section, offset: int, section: Section, at: int) -> str:
        for place in self.places.get(target.index, ()):
            if place.start == offset:
                return place.name
        raise self.wrong(f"calls {target.name}+{offset:#x}, where no function begins", section, at)

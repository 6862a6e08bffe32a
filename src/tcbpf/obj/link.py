"""From an Object to one Program: choose the entry, lay out the functions it calls, and name its maps by index.

Source:  the rules of libbpf's bpf_object__relocate_calls() and of iproute2's loader. Paper, "Front End".
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace

from tcbpf.errors import InputError, NotSupported, ObjectError
from tcbpf.isa.insn import Insn
from tcbpf.obj import core
from tcbpf.obj.btf import Btf
from tcbpf.obj.btf_ext import CoreRelo
from tcbpf.obj.btf_index import kernel_btf
from tcbpf.obj.program import Code, Func, HasSpec, Line, Object, Program, Reloc
from tcbpf.tables.maps import OF_PROGRAMS
from tcbpf.tables.opcodes import MAX_INSNS, PSEUDO_CALL, PSEUDO_FUNC, PSEUDO_KFUNC_CALL, PSEUDO_MAP_IDX, PSEUDO_MAP_IDX_VALUE
from tcbpf.tables.progs import by_section

DEFAULT_TYPE = "sched_cls"
_HANDLER_TAG = "exception_callback:"
_TAIL_SECTION = re.compile(r"(0[xX][0-9a-fA-F]+|[0-9]+)/(0[xX][0-9a-fA-F]+|[0-9]+)")


class SectionError(InputError):
    """An object has no such section or program: what tc(8) calls "object file doesn't contain sec S"."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One entry program of an object."""

    name: str
    section: str
    type: str
    attach_type: int = 0


def section_type(section: str) -> tuple[str, int]:
    """Return the program type and attach type that a section name gives; any other is a classifier's, as for tc."""
    known = by_section(section)
    return (known[0].name, known[1].attach_type) if known else (DEFAULT_TYPE, 0)


def tail_section(section: str) -> tuple[int, int] | None:
    """Return (map id, slot) of a tail-call section "ID/KEY" (decimal, 0x or octal), or None for any other name."""
    match = _TAIL_SECTION.fullmatch(section)
    return (_number(match[1]), _number(match[2])) if match else None


def _number(text: str) -> int:
    """Return what C's %i reads."""
    base = 16 if text[:2].lower() == "0x" else 8 if text[0] == "0" and len(text) > 1 else 10
    try:
        return int(text, base)
    except ValueError:
        return 0


def programs(obj: Object) -> tuple[Listed, ...]:
    """Return the entry programs of an object, in file order, with the types that their sections give."""
    rows = []
    for name in obj.entries:
        section = obj.functions[name].section
        rows.append(Listed(name, section, *section_type(section)))
    return tuple(rows)


def choose(obj: Object, section: str = "", program: str = "") -> Listed:
    """Return the requested entry program: by function name, by section (its first), or the only one there is.

    Tail-call sections do not count as long as there is another.

    Raises:  SectionError, whose hint lists what there is.
    """
    listed = programs(obj)
    hint = "it has " + ", ".join(f"{p.section} ({p.name})" for p in listed) if listed else "it has no program"
    if program:
        found = [p for p in listed if p.name == program and section in ("", p.section)]
        if not found:
            raise SectionError(f"object file doesn't contain prog {program}", where=obj.path, hint=hint)
        return found[0]
    if section:
        found = [p for p in listed if p.section == section]
        if not found:
            raise SectionError(f"object file doesn't contain sec {section}", where=obj.path, hint=hint)
        return found[0]
    slotted = {name for spec in obj.maps.values() for _, name in spec.values}
    found = [p for p in listed if tail_section(p.section) is None and p.name not in slotted] or list(listed)
    if len(found) != 1:
        what = "object file has several programs, say which section" if found else "object file has no program"
        raise SectionError(
            what,
            where=obj.path,
            hint=hint if found else 'a program is a function in a section of its own, such as SEC("tc")',
        )
    return found[0]


def tail_programs(obj: Object) -> tuple[tuple[str, int, str], ...]:
    """Return (map name, slot, program name) for each prog array slot that is filled: "ID/KEY" sections, `values`.

    A section whose id no map has is to be grafted elsewhere, in an object without program arrays.

    Raises:  ObjectError when a section names a map id or slot that is not there.
    """
    arrays = any(spec.type in OF_PROGRAMS for spec in obj.maps.values())
    by_id = {spec.id: spec for spec in obj.maps.values() if spec.id}
    rows = []
    for p in programs(obj):
        place = tail_section(p.section)
        if place is None:
            continue
        spec = by_id.get(place[0])
        if spec is None and not arrays:
            continue
        if spec is None or spec.type not in OF_PROGRAMS:
            raise ObjectError(f"no program array has id {place[0]}", path=obj.path, section=p.section)
        if place[1] >= spec.max_entries:
            raise ObjectError(
                f"Tail call key {place[1]} for map {place[0]} out of bounds?",
                path=obj.path,
                section=p.section,
                hint=f"{spec.name} has {spec.max_entries} slots",
            )
        rows.append((spec.name, place[1], p.name))
    for spec in obj.maps.values():
        if spec.type in OF_PROGRAMS:
            rows.extend((spec.name, slot, name) for slot, name in spec.values)
    return tuple(rows)


def link(
    obj: Object,
    *,
    section: str = "",
    program: str = "",
    type: str = "",
    maps: Mapping[str, HasSpec] | None = None,
    target: Btf | None = None,
) -> Program:
    """Return one program of an object, ready to verify: its functions in one piece, its maps by index.

    `maps` replaces maps of the object by live ones, by name. `type` overrides the section's. `target` holds
    the types that CO-RE relocations are for: the running kernel's, read only when there is such a relocation.

    Raises:  SectionError; ObjectError; NotSupported for a symbol that neither the object nor the kernel has, by name.
    """
    listed = choose(obj, section, program)
    return _Linker(obj, maps or {}, target).program(listed, type)


class _Linker:
    """One program being put together."""

    def __init__(self, obj: Object, live: Mapping[str, HasSpec], target: Btf | None) -> None:
        self.obj, self.live, self.target = obj, live, target
        self.starts: dict[str, int] = {}  # function name -> first slot
        self.order: list[Code] = []
        self.maps: dict[str, int] = {}  # map name -> index
        self.kfuncs: dict[str, int] = {}  # the same of kernel functions

    def program(self, listed: Listed, type: str) -> Program:
        """Return the program whose entry is `listed`."""
        self.place(self.obj.functions[listed.name])
        self.place_handler(self.obj.functions[listed.name])
        insns = [insn for code in self.order for insn in code.insns]
        for code in self.order:
            for reloc in code.relocs:
                self.patch(insns, code, reloc)
        funcs = tuple(Func(self.starts[c.name], c.name, c.type_id, c.is_global) for c in self.order)
        lines = tuple(replace(line, pc=line.pc + self.starts[c.name]) for c in self.order for line in c.lines)
        return Program(
            name=listed.name,
            type=type or listed.type,
            insns=tuple(insns),
            maps=tuple(self.map(name) for name in self.maps),
            kfuncs=tuple(self.kfuncs),
            license=self.obj.license,
            section=listed.section,
            attach_type=listed.attach_type,
            btf=self.obj.btf,
            lines=lines,
            funcs=funcs,
            raw_func_info=raw_func_info(funcs),
            raw_line_info=self.raw_lines(insns, lines),
            kernel_version=self.obj.kernel_version,
            path=self.obj.path,
        )

    def place_handler(self, entry: Code) -> None:
        """Lay out the function that a tag on `entry` names to handle exceptions: nothing calls it."""
        tags = self.obj.btf.decl_tags(entry.type_id) if self.obj.btf and entry.type_id else ()
        for _, tag in tags:
            handler = self.obj.functions.get(tag.removeprefix(_HANDLER_TAG)) if tag.startswith(_HANDLER_TAG) else None
            if handler is not None:
                self.place(handler)

    def place(self, entry: Code) -> None:
        """Lay out `entry` and everything it reaches, callers before callees, each function once."""
        waiting, size = [entry], sum(len(code.insns) for code in self.order)
        while waiting:
            code = waiting.pop()
            if code.name in self.starts:
                continue
            self.starts[code.name] = size
            self.order.append(code)
            size += len(code.insns)
            if size > MAX_INSNS:
                raise ObjectError(
                    f"program {entry.name!r} is longer than {MAX_INSNS} instructions",
                    path=self.obj.path,
                    section=entry.section,
                )
            called = [r.symbol for r in code.relocs if r.kind in ("call", "func") and r.symbol in self.obj.functions]
            waiting.extend(self.obj.functions[name] for name in reversed(called) if name not in self.starts)

    def patch(self, insns: list[Insn], code: Code, reloc: Reloc) -> None:
        """Make the instruction that `reloc` means name its target."""
        pc = self.starts[code.name] + reloc.pc
        if reloc.kind in ("call", "func"):
            if reloc.symbol not in self.starts:
                insns[pc] = self.kfunc(insns[pc], code, reloc)
                return
            distance = self.starts[reloc.symbol] - pc - 1
            insns[pc] = insns[pc]._replace(src=PSEUDO_CALL if reloc.kind == "call" else PSEUDO_FUNC, off=0, imm=distance)
        elif reloc.kind in ("map", "data"):
            value = reloc.kind == "data"
            insns[pc] = insns[pc]._replace(
                src=PSEUDO_MAP_IDX_VALUE if value else PSEUDO_MAP_IDX, off=0, imm=self.index(reloc.symbol)
            )
            insns[pc + 1] = Insn(0, imm=reloc.offset)
        elif reloc.core is not None and self.obj.btf is not None:
            try:
                core.relocate(insns, pc, reloc.core, self.obj.btf, self.types(reloc.core))
            except (ObjectError, NotSupported) as error:
                raise type(error)(f"{self.at(code, reloc)}: {error}") from None
        elif _is_kfunc(reloc.symbol):
            insns[pc], insns[pc + 1] = insns[pc]._replace(src=0, off=0, imm=1), Insn(0)  # bpf_ksym_exists(): it does
        else:
            raise NotSupported(
                f"{self.at(code, reloc)}: external symbol {reloc.symbol} (kconfig or kernel variable) is not supported"
            )

    def kfunc(self, insn: Insn, code: Code, reloc: Reloc) -> Insn:
        """Return the call of a function that the object declares and the kernel has."""
        if not _is_kfunc(reloc.symbol):
            raise NotSupported(
                f"{self.at(code, reloc)}: {reloc.symbol} is neither defined in the object nor a kernel function for programs"
            )
        index = self.kfuncs.setdefault(reloc.symbol, len(self.kfuncs))
        return insn._replace(src=PSEUDO_KFUNC_CALL, off=0, imm=index)

    def types(self, relo: CoreRelo) -> Btf:
        """Return the types to relocate for: the object's own where they are the same everywhere, else the target's."""
        local = self.obj.btf
        assert local is not None
        if core.essential(local.resolve(relo.type_id).name) in core.STABLE or relo.kind == "local_type_id":
            return local
        return self.target or kernel_btf()

    def at(self, code: Code, reloc: Reloc) -> str:
        return f"{self.obj.path}: {code.section}: {code.name}+{reloc.pc * 8:#x}"

    def index(self, name: str) -> int:
        return self.maps.setdefault(name, len(self.maps))

    def map(self, name: str) -> HasSpec:
        return self.live.get(name) or self.obj.maps[name]

    def raw_lines(self, insns: list[Insn], lines: tuple[Line, ...]) -> bytes:
        """Return the line records for bpf(2); none when a function lacks one at its start, which the kernel refuses."""
        btf = self.obj.btf
        known = {line.pc for line in lines}
        if btf is None or any(start not in known for start in self.starts.values()):
            return b""
        return b"".join(
            struct.pack("<4I", line.pc, btf.offset_of(line.file), btf.offset_of(line.text), line.line << 10 | line.column)
            for line in lines
            if insns[line.pc].code
        )


def _is_kfunc(name: str) -> bool:
    from tcbpf.tables.kfuncs import KFUNCS  # read only by programs that name a symbol of the kernel's

    return name in KFUNCS


def raw_func_info(funcs: tuple[Func, ...]) -> bytes:
    """Return the function records for bpf(2), or none when a function has no type."""
    if not all(func.type_id for func in funcs):
        return b""
    return b"".join(struct.pack("<2I", func.pc, func.type_id) for func in funcs)

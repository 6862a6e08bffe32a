"""Assembly text to an Object: the kernel's instruction syntax, and four directives.

    .license GPL
    .map     counts array 4 8 256       ; name, type, key size, value size, entries, and flags if any
    .section tc                         ; starts a function, which the next label names
    count:   r6 = r1
             ...
             r1 = map[counts]
             call bpf_map_lookup_elem
             call twice                 ; a function of this file
             exit
    .section .text                      ; of functions that are only called
    twice:   ...

Text without a section is one program in "tc". Every slot has its line of text, so that the verifier can show it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tcbpf.errors import AsmError, InputError
from tcbpf.isa import Assembled, Insn, assemble_lines
from tcbpf.obj.program import Code, Line, MapSpec, Object, Reloc
from tcbpf.tables.insns import Kind, op_of
from tcbpf.tables.maps import MAP_TYPES
from tcbpf.tables.opcodes import JA, JMP32, PSEUDO_FUNC, PSEUDO_MAP_IDX, PSEUDO_MAP_IDX_VALUE

CALLED_ONLY = ".text"  # the section whose functions are no programs


@dataclass
class _Source:
    """The text without its directives, and their contents. Lines count from 1."""

    path: str
    lines: list[str]
    license: str = ""
    maps: dict[str, MapSpec] = field(default_factory=dict)
    sections: list[tuple[int, str]] = field(default_factory=list)


def read(path: str | os.PathLike[str]) -> Object:
    """Return the Object of a file of assembly text.

    Raises:  InputError when the file cannot be read; AsmError.
    """
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise InputError(error.strerror or str(error), where=os.fspath(path)) from None
    return read_bytes(raw, path=os.fspath(path))


def read_bytes(raw: bytes, *, path: str = "<asm>") -> Object:
    """Return the Object of the contents of a file of assembly text.

    Raises:  InputError when they are not text; AsmError.
    """
    try:
        return read_text(raw.decode(), path=path)
    except UnicodeDecodeError:
        raise InputError("this is not text", where=path) from None


def read_text(text: str, *, path: str = "<asm>") -> Object:
    """Return the Object of assembly text.

    Raises:  AsmError.
    """
    source = _Source(path, text.splitlines())
    for number, line in enumerate(source.lines, 1):
        if re.match(r"\s*\.(?!slot\b)", line):
            _directive(source, number, line)
            source.lines[number - 1] = ""
    program = assemble_lines("\n".join(source.lines), path=path, maps=tuple(source.maps))
    functions = _functions(source, program, text.splitlines())
    entries = tuple(name for name, code in functions.items() if code.section != CALLED_ONLY)
    return Object(path=path, functions=functions, entries=entries, maps=source.maps, license=source.license)


def _directive(source: _Source, number: int, line: str) -> None:
    """Take one directive's words into `source`."""
    words = [(match[0], match.start() + 1) for match in re.finditer(r"[^\s;#]+|[;#].*", line)]
    words = [word for word in words if word[0][0] not in ";#"]
    name, *rest = (word for word, _ in words)

    def refuse(what: str, at: int = 0, hint: str = "") -> AsmError:
        return AsmError(what, line=number, column=words[at][1], path=source.path, hint=hint)

    if name == ".license" and rest:
        source.license = " ".join(rest).strip('"')
    elif name == ".section" and len(rest) == 1:
        source.sections.append((number, rest[0].strip('"')))
    elif name == ".map" and len(rest) in (5, 6):
        if rest[1] not in MAP_TYPES:
            raise refuse(f"there is no map type {rest[1]}", 2, "one of " + ", ".join(r.name for r in MAP_TYPES if r.user))
        if rest[0] in source.maps:
            raise refuse(f"the map {rest[0]} is already defined", 1)
        numbers = []
        for at, word in enumerate(rest[2:], 3):
            try:
                numbers.append(int(word, 0))
            except ValueError:
                raise refuse(f"{word} is not a number", at) from None
        key_size, value_size, entries, *flags = numbers
        source.maps[rest[0]] = MapSpec(rest[0], rest[1], key_size, value_size, entries, flags[0] if flags else 0)
    else:
        forms = {
            ".license": ".license NAME",
            ".section": ".section NAME",
            ".map": ".map NAME TYPE KEY_SIZE VALUE_SIZE ENTRIES [FLAGS]",
        }
        what = f"{name} has another form" if name in forms else f"there is no directive {name}"
        raise refuse(what, 0, forms.get(name) or "there are " + ", ".join(forms))


def _functions(source: _Source, program: Assembled, text: list[str]) -> Mapping[str, Code]:
    """Cut the program at its sections' starts."""
    sections = source.sections or [(1, "tc")]
    if program.lines and program.lines[0] < sections[0][0]:
        raise AsmError("this is before the first .section", line=program.lines[0], column=1, path=source.path)
    starts = [
        next((pc for pc, line in enumerate(program.lines) if line > at or line == at == 1), len(program.insns))
        for at, _ in sections
    ]
    named = {pc: label for label, pc in reversed(program.labels.items())}
    names = [named.get(pc, f"prog_{i}" if i else "prog") for i, pc in enumerate(starts)]
    functions: dict[str, Code] = {}
    for i, ((at, section), start, name) in enumerate(zip(sections, starts, names, strict=True)):
        end = starts[i + 1] if i + 1 < len(starts) else len(program.insns)
        if start == end:
            raise AsmError(f"section {section} is empty", line=at, column=1, path=source.path)
        relocs = tuple(_relocs(source, program, start, end, dict(zip(starts, names, strict=True))))
        shown = tuple(
            Line(pc - start, source.path, line, len(text[line - 1]) - len(text[line - 1].lstrip()) + 1, text[line - 1].strip())
            for pc, line in enumerate(program.lines[start:end], start)
            if program.insns[pc].code  # the second slot of a wide immediate is no instruction
        )
        functions[name] = Code(name, section, program.insns[start:end], relocs, shown, is_global=False)
    return functions


def _relocs(source: _Source, program: Assembled, start: int, end: int, names: Mapping[int, str]) -> list[Reloc]:
    """Return the relocations of one function: the maps and functions that its slots name.

    Raises:  AsmError for a target outside the function.
    """
    maps, found = tuple(source.maps), []
    for pc in range(start, end):
        insn = program.insns[pc]
        op = op_of(insn.code, insn.src, insn.off, insn.imm)
        if op is None:
            continue
        if op.kind is Kind.LD_IMM64 and insn.src in (PSEUDO_MAP_IDX, PSEUDO_MAP_IDX_VALUE):
            if not 0 <= insn.imm < len(maps):
                raise AsmError(f"there is no map {insn.imm}", line=program.lines[pc], column=1, path=source.path)
            value = insn.src == PSEUDO_MAP_IDX_VALUE
            offset = program.insns[pc + 1].imm if value else 0
            found.append(Reloc(pc - start, "data" if value else "map", maps[insn.imm], offset))
            continue
        target = _target(insn, op.kind, pc)
        if target is None or start <= target < end:
            continue
        if op.kind in (Kind.CALL_LOCAL, Kind.LD_IMM64) and target in names:
            found.append(Reloc(pc - start, "func" if op.kind is Kind.LD_IMM64 else "call", names[target]))
        else:
            raise AsmError(
                "the target is outside the function",
                line=program.lines[pc],
                column=1,
                path=source.path,
                hint="a jump stays in its section; a call goes to a function's first instruction",
            )
    return found


def _target(insn: Insn, kind: Kind, pc: int) -> int | None:
    """Return the slot that an instruction jumps to, calls or names; None without one."""
    if kind is Kind.CALL_LOCAL or (kind is Kind.LD_IMM64 and insn.src == PSEUDO_FUNC) or insn.code == JMP32 | JA:
        return pc + 1 + insn.imm
    return pc + 1 + insn.off if kind in (Kind.JA, Kind.JUMP, Kind.MAY_GOTO) else None

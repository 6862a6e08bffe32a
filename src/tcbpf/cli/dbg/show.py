"""The display of `tcbpf dbg`: registers with their targets, source, stack, context, packet."""

from __future__ import annotations

import contextlib
import ctypes
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tcbpf.cbpf.dbg import dump_packet
from tcbpf.cli.output import verdict_name
from tcbpf.errors import InputError
from tcbpf.isa import listing
from tcbpf.native.library import struct
from tcbpf.obj.program import Program
from tcbpf.tables.insns import Kind, op_of
from tcbpf.tables.skb import SKB
from tcbpf.vm.cfg import target
from tcbpf.vm.interp.history import History
from tcbpf.vm.interp.machine import FRAME
from tcbpf.vm.interp.memory import AccessError

Breakpoint = tuple[str, int]
"""A program's name and the pc before which it stops."""

FIRST_POINTER = 1 << 16  # no address is below


@dataclass(frozen=True, slots=True)
class View:
    """The machine's state as text."""

    history: History
    programs: Sequence[Program]  # the loaded one, and those it may tail-call
    breakpoints: Collection[Breakpoint]

    @property
    def verdict(self) -> int:
        """What the program returned."""
        return ctypes.c_int32(self.history.machine.regs[0] & 0xFFFFFFFF).value

    # --- the program ---

    @property
    def program(self) -> Program:
        """The program that runs."""
        return self.history.machine.verified.program

    def find(self, word: str) -> tuple[Program, int]:
        """Return the program and the pc of a source line (":12", "file.c:12"), a function ("add", "add+3") or a number.

        The program that runs comes first, and a number is its; then come the programs that it may tail-call.

        Raises:  InputError that lists the choices.
        """
        programs = [self.program, *(program for program in self.programs if program.name != self.program.name)]
        file, colon, number = word.rpartition(":")
        if colon and number.isdigit():
            for program in programs:
                rows = (row for row in program.lines if row.line == int(number) and Path(row.file).name.endswith(file))
                if pcs := sorted(row.pc for row in rows):
                    return program, pcs[0]
            raise InputError(f"no instruction is of line {word}", hint="disassemble shows the lines")
        named = {name: (program, pc) for program in reversed(programs) for name, pc in functions(program).items()}
        name, _, offset = word.partition("+")
        program, start = named.get(name, (self.program, 0))
        try:
            pc = start + int(offset or "0", 0) if name in named else int(word, 0)
        except ValueError:
            raise InputError(f"{word!r} is not an instruction, line or function", hint=", ".join(named)) from None
        if pc not in dict(listing(program.insns)):
            raise InputError(f"no instruction {pc}", hint=f"0 to {len(program.insns) - 1}")
        return program, pc

    def line(self, program: Program, pc: int) -> str:
        """Return one instruction: `l12: r1 = *(u8 *)(r6 +12)`, and its jump target; of another program, with its name."""
        where = "" if program.name == self.program.name else f"  ; of {program.name}"
        return f"l{pc}:\t{dict(listing(program.insns))[pc]}{jump_target(program, pc)}{where}"

    def listing(self) -> Iterator[str]:
        """Yield the program: function names, source lines, instructions; "=>" is where the machine stands, "*" a breakpoint."""
        machine, program = self.history.machine, self.program
        names = {pc: name for name, pc in functions(program).items()}
        sources = {row.pc: f"; {Path(row.file).name}:{row.line}  {row.text.strip()}" for row in program.lines}
        for pc, text in listing(program.insns):
            if pc in names:
                yield f"{names[pc]}:"
            if pc in sources:
                yield f"        {sources[pc]}"
            mark = "=>" if pc == machine.pc and not machine.done else "* " if (program.name, pc) in self.breakpoints else "  "
            yield f"{mark} l{pc}:\t{text}{jump_target(program, pc)}"

    def c_array(self) -> Iterator[str]:
        """Yield the program as an initialiser of struct bpf_insn."""
        for insn in self.history.machine.verified.program.insns:
            yield f"{{ {insn.code:#04x}, {insn.dst}, {insn.src}, {insn.off:6}, {insn.imm & 0xFFFFFFFF:#010x} }},"

    # --- the machine ---

    def all(self) -> Iterator[str]:
        """Yield registers, the next instruction (or the verdict), the last memory accesses, and the packet."""
        machine, last = self.history.machine, self.history.last
        program = machine.verified.program
        yield " -- register dump --"
        yield f"pc:       [{machine.pc}]" + "".join(f" {part}" for part in self._where())
        if machine.done:
            name = verdict_name(self.verdict)
            yield f"result:   [{self.verdict}]" + (f" {name}" if name else "")
        else:
            at = bisect_right([row.pc for row in program.lines], machine.pc) - 1
            if at >= 0:
                row = program.lines[at]
                yield f"source:   {Path(row.file).name}:{row.line}: {row.text.strip()}"
            yield f"curr:     {self.line(program, machine.pc)}"
        for reg, value in enumerate(machine.regs):
            changed = "*" if last is not None and last.before[reg] != value else " "
            yield f"r{reg}:".ljust(9) + f"{changed}[{value:#018x}]" + f"[{self.word(value)}]"
        for touch in last.touches if last is not None else ():
            how = "wrote" if touch.write else "read"
            yield f"{how}:".ljust(10) + f"{touch.size} bytes at {touch.region}{touch.offset:+}: {touch.value:#x}"
        yield " -- packet dump --"
        packet = ctypes.string_at(machine.skb.data, machine.skb.u.len)
        seen = next(((t.offset, t.size) for t in last.touches if t.region == "packet"), None) if last is not None else None
        yield f"len: {len(packet)}"
        yield from dump_packet(packet, seen)
        if (program.name, machine.pc) in self.breakpoints and not machine.done:
            yield "(breakpoint)"

    def word(self, value: int) -> str:
        """Return a register's value: a number, or the name of the place it points to."""
        machine = self.history.machine
        if value < FIRST_POINTER:
            return str(value)
        if 0 <= value - machine.ctx < machine.ctx_size:
            return f"ctx{value - machine.ctx:+}"
        frame = value - machine.regs[10]
        if -FRAME <= frame <= 0:
            return f"fp{frame:+}" if frame else "fp"
        maps = {values.address: values.name for values in machine.maps}
        if value in maps:
            return f"map {maps[value]}"
        if value == machine.skb.data_end:
            return "packet end"
        with contextlib.suppress(AccessError):
            region = machine.memory.find(value, 1)
            return f"{region.name}{value - region.start + region.offset:+}"
        return str(ctypes.c_int64(value).value)

    def _where(self) -> Iterator[str]:
        """Yield the running function and its callers, innermost first."""
        machine = self.history.machine
        program = machine.verified.program
        starts = sorted((func.pc, func.name) for func in program.funcs) or [(0, program.name)]
        for pc in (machine.pc, *(frame.back for frame in reversed(machine.frames))):
            start, name = starts[max(bisect_right([at for at, _ in starts], pc) - 1, 0)]
            yield f"{name}+{pc - start}"

    def stack(self) -> Iterator[str]:
        """Yield the memory of the frame in use and of those below it, eight bytes a line; zeros are left out."""
        machine = self.history.machine
        for depth in range(len(machine.frames), -1, -1):
            top = machine.stack + FRAME * (depth + 1)
            yield f"frame {depth}:"
            for off in range(-FRAME, 0, 8):
                raw = ctypes.string_at(top + off, 8)
                if any(raw):
                    value = int.from_bytes(raw, "little")
                    yield f"  fp{off:<5}[{value:#018x}][{self.word(value)}]  {raw.hex(' ')}"

    def context(self) -> Iterator[str]:
        """Yield the context's fields that are not 0."""
        base = struct("tcbpf_skb").from_address(self.history.machine.ctx)
        for row in SKB:
            if not row.pointer:
                raw = ctypes.string_at(ctypes.addressof(base) + row.off, row.size)
                if any(raw):
                    yield f"{row.name}: {int.from_bytes(raw, 'little')}"


def functions(program: Program) -> dict[str, int]:
    """Return the first pc of each function of a program, by name."""
    return {func.name: func.pc for func in program.funcs} | {program.name: 0}


def jump_target(program: Program, pc: int) -> str:
    """Return an instruction's jump target, as a comment."""
    insn = program.insns[pc]
    op = op_of(insn.code, insn.src, insn.off, insn.imm)
    if op is None or op.kind not in (Kind.JUMP, Kind.JA, Kind.MAY_GOTO, Kind.CALL_LOCAL):
        return ""
    return f"  ; l{target(pc, insn, op)}"

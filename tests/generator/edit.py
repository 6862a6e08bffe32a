"""Change a program's instructions in place: take out, put in; jumps, calls and functions keep what they point at."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace

from tcbpf.isa.insn import Insn
from tcbpf.obj.program import Func, Program
from tcbpf.tables import opcodes as bpf

LD_IMM64, GOTOL = 0x18, 0x06


def target(insns: Sequence[Insn], pc: int) -> int | None:
    """Return where the jump, call or function address at `pc` points, None when it is none."""
    insn = insns[pc]
    cls, op = insn.code & 7, insn.code & 0xF0
    if insn.code == LD_IMM64:
        return pc + 1 + insn.imm if insn.src == bpf.PSEUDO_FUNC else None
    if cls not in (bpf.JMP, bpf.JMP32) or op == 0x90:
        return None
    if op == 0x80:
        return pc + 1 + insn.imm if insn.src == bpf.PSEUDO_CALL else None
    return pc + 1 + (insn.imm if insn.code == GOTOL else insn.off)


def aimed(insn: Insn, pc: int, to: int) -> Insn:
    """Return the jump, call or function address at `pc` so that it points to `to`."""
    off = to - pc - 1
    by_imm = insn.code in (LD_IMM64, GOTOL) or insn.code & 0xF0 == 0x80
    return insn._replace(imm=off) if by_imm else insn._replace(off=max(-32768, min(32767, off)))


def splice(program: Program, at: int, remove: int, insert: Sequence[Insn] = ()) -> Program:
    """Return the program with `remove` slots from `at` on replaced by `insert`.

    What pointed at a slot taken out points behind the new ones; a function whose first slot goes begins there.
    """
    old, grown = program.insns, len(insert) - remove

    def moved(pc: int) -> int:
        return pc if pc <= at and (pc < at or not remove) else at + len(insert) if pc < at + remove else pc + grown

    out: list[Insn] = []
    for pc, insn in enumerate(old):
        if at <= pc < at + remove:
            continue
        if pc == at + remove:
            out += insert
        to = target(old, pc) if not (pc and old[pc - 1].code == LD_IMM64) else None
        out.append(insn if to is None else aimed(insn, moved(pc), moved(to)))
    if at + remove >= len(old):
        out += insert
    funcs: list[Func] = []
    for func in program.funcs:
        pc = moved(func.pc) if func.pc else 0
        if pc < len(out) and not (funcs and funcs[-1].pc >= pc):
            funcs.append(replace(func, pc=pc))
    return with_code(program, out, tuple(funcs))


def with_code(program: Program, insns: Sequence[Insn], funcs: tuple[Func, ...] | None = None) -> Program:
    """Return the program with other instructions, and functions."""
    funcs = program.funcs if funcs is None else funcs
    return replace(
        program, insns=tuple(insns), funcs=funcs, raw_func_info=b"".join(struct.pack("<II", f.pc, f.type_id) for f in funcs)
    )


def whole(insns: Sequence[Insn]) -> list[tuple[int, int]]:
    """Return (place, slots) of every instruction."""
    found, pc = [], 0
    while pc < len(insns):
        size = 2 if insns[pc].code == LD_IMM64 and pc + 1 < len(insns) else 1
        found.append((pc, size))
        pc += size
    return found

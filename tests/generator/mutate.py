"""Programs that others wrote, changed a little: instructions taken out, doubled, swapped, altered, brought in."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from generator.edit import LD_IMM64, splice, whole, with_code
from generator.writer import LIMITS
from tcbpf.isa.insn import Insn
from tcbpf.obj.program import Program
from tcbpf.tables import opcodes as bpf
from tcbpf.tables.insns import JUMP

MAX_INSNS = 400
"""Longer programs are left out of the pool: one would take the time of many."""

_MAPPED = (bpf.PSEUDO_MAP_IDX, bpf.PSEUDO_MAP_IDX_VALUE)


def mutate(seed: int, pool: Sequence[Program]) -> Program:
    """Return the changed program of a seed."""
    rng = random.Random(seed)
    program = rng.choice(pool)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 5))):
        program = rng.choice(_CHANGES)(program, rng, pool)
    return program


def _place(program: Program, rng: random.Random) -> tuple[int, int]:
    """Return (place, slots) of some instruction."""
    return rng.choice(whole(program.insns))


def _take_out(program: Program, rng: random.Random, pool: Sequence[Program]) -> Program:
    at, size = _place(program, rng)
    return splice(program, at, size) if len(program.insns) > size else program


def _double(program: Program, rng: random.Random, pool: Sequence[Program]) -> Program:
    at, size = _place(program, rng)
    return splice(program, at + size, 0, program.insns[at : at + size])


def _swap(program: Program, rng: random.Random, pool: Sequence[Program]) -> Program:
    places = whole(program.insns)
    if len(places) < 2:
        return program
    i = rng.randrange(len(places) - 1)
    (one, size), (two, other) = places[i], places[i + 1]
    insns = program.insns
    return with_code(program, (*insns[:one], *insns[two : two + other], *insns[one : one + size], *insns[two + other :]))


def _change(program: Program, at: int, insn: Insn) -> Program:
    return with_code(program, (*program.insns[:at], insn, *program.insns[at + 1 :]))


def _number(program: Program, rng: random.Random, pool: Sequence[Program]) -> Program:
    at, _ = _place(program, rng)
    insn = program.insns[at]
    if insn.code == LD_IMM64:
        if insn.src != bpf.PSEUDO_MAP_IDX_VALUE:
            return program
        at, insn = at + 1, program.insns[at + 1]
    if insn.code & 7 in (bpf.JMP, bpf.JMP32) and insn.code & 0xF0 in (0x80, 0x90):
        return program
    imm = insn.imm
    value = rng.choice((imm + 1, imm - 1, imm + 8, -imm, imm ^ 1 << rng.randrange(31), rng.choice(LIMITS)))
    return _change(program, at, insn._replace(imm=max(-1 << 31, min((1 << 31) - 1, value))))


def _offset(program: Program, rng: random.Random, pool: Sequence[Program]) -> Program:
    at, _ = _place(program, rng)
    insn = program.insns[at]
    if insn.code & 7 in (bpf.ALU32, bpf.ALU64) or insn.code == LD_IMM64:
        return program
    off = insn.off + rng.choice((1, -1, 2, -2, 4, -4, 8, -8, 16))
    return _change(program, at, insn._replace(off=max(-32768, min(32767, off))))


def _register(program: Program, rng: random.Random, pool: Sequence[Program]) -> Program:
    at, _ = _place(program, rng)
    insn = program.insns[at]
    if rng.random() < 0.5 or insn.code == LD_IMM64 or insn.code & 0xF7 == 0x85:
        return _change(program, at, insn._replace(dst=rng.randrange(11))) if insn.code & 0xF7 != 0x85 else program
    return _change(program, at, insn._replace(src=rng.randrange(11)))


def _operation(program: Program, rng: random.Random, pool: Sequence[Program]) -> Program:
    at, _ = _place(program, rng)
    insn, cls = program.insns[at], program.insns[at].code & 7
    if insn.code == LD_IMM64 or insn.code in (0x85, 0x95):
        return program
    if cls in (bpf.LDX, bpf.ST, bpf.STX):
        code = insn.code & ~0x18 | rng.choice((bpf.B, bpf.H, bpf.W, bpf.DW))
    elif cls in (bpf.ALU32, bpf.ALU64):
        code = rng.choice((insn.code ^ bpf.ALU32 ^ bpf.ALU64, insn.code & 0x0F | rng.randrange(14) << 4))
    elif insn.code not in (0x05, 0x06):
        code = rng.choice((insn.code ^ bpf.JMP ^ bpf.JMP32, insn.code & 0x0F | rng.choice(JUMP.rows).code << 4))
    else:
        return program
    return _change(program, at, insn._replace(code=code))


def _bring_in(program: Program, rng: random.Random, pool: Sequence[Program]) -> Program:
    """Put a few instructions of some program, this one included, somewhere into it."""
    other = rng.choice((program, rng.choice(pool)))
    places = whole(other.insns)
    first = rng.randrange(len(places))
    last = min(first + rng.choice((1, 2, 3, 5, 8)), len(places)) - 1
    run = other.insns[places[first][0] : places[last][0] + places[last][1]]
    found: list[Insn] = []
    for insn in run:
        if insn.code == LD_IMM64 and insn.src in _MAPPED:
            if not program.maps:
                return program
            insn = insn._replace(imm=insn.imm % len(program.maps))
        if insn.code == 0x85 and insn.src == bpf.PSEUDO_KFUNC_CALL and other is not program:
            return program
        found.append(insn)
    return splice(program, _place(program, rng)[0], 0, found)


_CHANGES: tuple[Callable[[Program, random.Random, Sequence[Program]], Program], ...] = (
    _take_out,
    _take_out,
    _double,
    _swap,
    _number,
    _number,
    _offset,
    _offset,
    _register,
    _register,
    _operation,
    _bring_in,
)

"""Random straight-line programs over two unknown numbers, with branches off it to an exit of their own."""

from __future__ import annotations

import random

from tcbpf.isa.insn import Insn
from tcbpf.tables.insns import ALU, END, JUMP
from tcbpf.tables.opcodes import ALU32, ALU64, JMP, JMP32, X

A, B = 6, 7
_EDGES = (0, 1, 2, 3, 7, 8, 15, 16, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFE, 0x7FFFFFFF)


def constant(rng: random.Random) -> int:
    """Return a 32-bit signed immediate, mostly near an edge."""
    kind = rng.random()
    if kind < 0.5:
        number = rng.choice(_EDGES) * rng.choice((1, -1)) + rng.choice((0, 0, 0, 1, -1))
    elif kind < 0.7:
        number = rng.randrange(-40, 40)
    elif kind < 0.85:
        number = 1 << rng.randrange(31)
    else:
        number = rng.randrange(-(1 << 31), 1 << 31)
    return max(-(1 << 31), min((1 << 31) - 1, number))


def program(rng: random.Random, length: int) -> list[Insn]:
    """Return a program the kernel accepts: r6 and r7 unknown, `length` random operations and branches on them, exit."""
    body = []
    while len(body) < length:
        body.append(jump(rng) if rng.random() < 0.45 else alu(rng))
    start = [Insn(0x85, imm=7), Insn(0xBF, dst=A), Insn(0x85, imm=7), Insn(0xBF, dst=B)]
    out, exits = [], []
    for pc, insn in enumerate(body):
        if insn.code & 7 in (JMP, JMP32):
            insn = insn._replace(off=len(body) - pc - 1 + 2 * (len(exits) + 1))
            exits.append(pc)
        out.append(insn)
    leave = [Insn(0xB7), Insn(0x95)]
    return start + out + leave * (len(exits) + 1)


def alu(rng: random.Random) -> Insn:
    """Return one random ALU operation on r6 or r7 that the kernel does not refuse."""
    dst, src = rng.choice(((A, B), (B, A)))
    if rng.random() < 0.06:
        row = rng.choice(END.rows)
        return Insn(row.base, dst=dst, imm=row.bits)
    weights = [0.3 if row.name in ("DIV", "SDIV", "MOD", "SMOD") else 1 for row in ALU.rows]
    (row,) = rng.choices(ALU.rows, weights)
    width = rng.choice(row.widths)
    code = row.code << 4 | (ALU64 if width == 64 else ALU32)
    if row.unary:
        return Insn(code, dst=dst, off=row.off)
    if row.reg_only or rng.random() < 0.4:
        return Insn(code | X, dst=dst, src=src, off=row.off)
    imm = constant(rng)
    if row.name in ("LSH", "RSH", "ARSH"):
        imm = rng.choice((1, 7, 8, 16, 24, 31, 32, rng.randrange(64))) % width
    elif row.name in ("DIV", "SDIV", "MOD", "SMOD"):
        imm = imm or 1
    return Insn(code, dst=dst, off=row.off, imm=imm)


def jump(rng: random.Random) -> Insn:
    """Return one random conditional jump on r6 and r7, or on one of them and a constant."""
    dst, src = rng.choice(((A, B), (B, A)))
    row = rng.choice(JUMP.rows)
    code = row.code << 4 | rng.choice((JMP, JMP32))
    if rng.random() < 0.4:
        return Insn(code | X, dst=dst, src=dst if rng.random() < 0.05 else src)
    return Insn(code, dst=dst, imm=constant(rng))

"""Statements on numbers: arithmetic, byte order, constants, bounds and linked copies."""

from __future__ import annotations

from generator.writer import ADD64, AND64, JGT, MOV32X, MOV64, MOV64X, Val, Writer
from tcbpf.tables import opcodes as bpf
from tcbpf.tables.insns import ALU, END, JUMP

_ROWS = [row for row in ALU if row.name != "MOV"]
_BY_WIDTH = {width: [row for row in _ROWS if width in row.widths] for width in (32, 64)}
_SHIFTS, _DIVISIONS = frozenset(("LSH", "RSH", "ARSH")), frozenset(("DIV", "MOD", "SDIV", "SMOD"))


def constant(w: Writer) -> None:
    """Set a register to a number."""
    w.constant(w.free())


def alu(w: Writer) -> None:
    """Compute a number: any row, at any width, by a register or a constant."""
    rng, dst = w.rng, w.scratch()
    if rng.random() < 0.08:
        row = rng.choice(END.rows)
        w.emit(row.base, dst, imm=row.bits)
        w.set(dst, Val("num", (1 << row.bits) - 1 if row.bits < 64 else -1))
        return
    width = rng.choice((32, 64))
    op = rng.choice(_BY_WIDTH[width])
    by_register = op.reg_only or (not op.unary and rng.random() < 0.45)
    imm, src = 0, w.number() if by_register else 0
    if not by_register and not op.unary:
        imm = w.limit()
        if op.name in _SHIFTS and not w.noisy():
            imm = rng.choice((0, 1, 8, 16, 31, 32, 48, 63)) % width
        elif op.name in _DIVISIONS and not w.noisy():
            imm = imm or 3
    code = op.code << 4 | (bpf.X if by_register else 0) | (bpf.ALU64 if width == 64 else bpf.ALU32)
    w.emit(code, dst, src, op.off, imm)
    most = imm if op.name == "AND" and imm >= 0 and not by_register else imm - 1 if op.name == "MOD" and imm > 0 else -1
    w.set(dst, Val("num", most))


def copy(w: Writer) -> None:
    """Copy a number, plainly or by its low bits."""
    src, dst = w.number(), w.free()
    width = w.rng.choice((MOV64X, MOV64X, MOV32X))
    off = w.rng.choice((0, 0, 0, 8, 16, 32))
    if off == 32 and width == MOV32X and not w.noisy():
        off = 0
    w.emit(width, dst, src, off)
    w.set(dst, w.model.regs[src] if not off else Val("num"))


def bound(w: Writer) -> None:
    """Make a number small."""
    reg = w.small(w.rng.choice((0, 1, 3, 7, 8, 15, 31, 32, 40, 47, 63, 64)))
    if reg is None:
        w.constant(w.free())


def sign(w: Writer) -> None:
    """Bound a number from both sides, as signed."""
    reg, low, high = w.scratch(), -w.rng.choice((0, 1, 8, 16)), w.rng.choice((0, 1, 7, 16, 40))
    if w.held:
        return
    wide = w.rng.choice((bpf.JMP, bpf.JMP32))
    w.skip_out(w.emit(wide | 0xC0, reg, imm=low))  # s<
    w.skip_out(w.emit(wide | 0x60, reg, imm=high))  # s>
    w.set(reg, Val("num", high if not low and wide == bpf.JMP else -1))


def linked(w: Writer) -> None:
    """Copy a number, add to the copy, bound one of the two: the other is bound with it."""
    src = w.scratch()
    dst = w.free()
    if dst == src or w.held:
        return
    if w.chance(0.5):
        w.emit(w.rng.choice((AND64, 0x54)), src, imm=w.rng.choice((7, 15, 63, 255)))
    width = w.rng.choice((MOV64X, MOV64X, MOV32X))
    w.emit(width, dst, src)
    add = w.rng.choice((0, 0, 1, 4, 8, -1, -4))
    if add:
        w.emit(ADD64 if width == MOV64X else w.rng.choice((ADD64, 0x04)), dst, imm=add)
    most = w.rng.choice((1, 7, 15, 16, 31))
    tested, other, plus = (src, dst, add) if w.chance(0.6) else (dst, src, -add)
    w.skip_out(w.emit(w.rng.choice((JGT, 0x26)), tested, imm=most))
    w.set(tested, Val("num", most))
    w.set(other, Val("num", most + plus) if plus >= 0 else Val("num"))


def choice(w: Writer) -> None:
    """Set a register to one of a few constants, by branches that meet again: work for pruning and precision."""
    dst, by = w.free(), w.number()
    if dst == by:
        return
    values = [w.rng.choice((0, 1, 2, 4, 8, 16, 24, 32, 40)) for _ in range(w.rng.choice((2, 2, 3, 4)))]
    w.emit(MOV64, dst, imm=values[0])
    for value in values[1:]:
        row = w.rng.choice(JUMP.rows)
        w.emit(w.rng.choice((bpf.JMP, bpf.JMP32)) | row.code << 4, by, 0, 1, w.limit())
        w.emit(w.rng.choice((MOV64, ADD64)), dst, imm=value)
    w.set(dst, Val("num", sum(values)))

"""Every instruction there is, as hypothesis draws it."""

from __future__ import annotations

from hypothesis import strategies as st

from tcbpf.isa.insn import Insn
from tcbpf.tables.insns import ALU, ATOMICS, END, JUMP
from tcbpf.tables.opcodes import SIZE_CODE

REG = st.integers(0, 10)
S16 = st.integers(-0x8000, 0x7FFF)
S32 = st.integers(-(1 << 31), (1 << 31) - 1)
ZERO = st.just(0)


def slot(code: int, dst=ZERO, src=ZERO, off=ZERO, imm=ZERO):
    return st.builds(lambda *fields: (Insn(code, *fields),), dst, src, off, imm)


def pair(src, high):
    return st.builds(lambda dst, s, low, h: (Insn(0x18, dst, s, 0, low), Insn(0, imm=h)), REG, st.just(src), S32, high)


def forms():
    """Return a strategy for each form of each row."""
    for row in ALU:
        for width in row.widths:
            code = (0x07 if width == 64 else 0x04) | row.code << 4
            if row.unary:
                yield slot(code, REG)
                continue
            yield slot(code | 0x08, REG, REG, st.just(row.off))
            if not row.reg_only:
                yield slot(code, REG, ZERO, st.just(row.off), S32)
    for row in END:
        yield slot(row.base, REG, imm=st.just(row.bits))
    for row in JUMP:
        for cls in (0x05, 0x06):
            yield slot(cls | row.code << 4, REG, ZERO, S16, S32)
            yield slot(cls | row.code << 4 | 0x08, REG, REG, S16)
    yield slot(0x05, off=S16)
    yield slot(0x06, imm=S32)
    yield slot(0xE5, off=S16)
    yield slot(0x85, imm=S32)
    yield slot(0x85, src=st.just(1), imm=S32)
    yield slot(0x85, src=st.just(2), off=S16, imm=S32)
    yield slot(0x95)
    for size, code in SIZE_CODE.items():
        yield slot(0x61 | code, REG, REG, S16)
        yield slot(0x62 | code, REG, ZERO, S16, S32)
        yield slot(0x63 | code, REG, REG, S16)
        if size != 8:
            yield slot(0x81 | code, REG, REG, S16)
            yield slot(0x20 | code, imm=S32)
            yield slot(0x40 | code, ZERO, REG, imm=S32)
        for row in ATOMICS:
            if size in row.sizes:
                yield slot(0xC3 | code, REG, REG, S16, st.just(row.imm))
    for src in range(7):
        yield pair(src, ZERO if src in (1, 4, 5) else S32)


INSN = st.one_of(*forms())
PROGRAM = st.lists(INSN, max_size=12).map(lambda parts: tuple(insn for part in parts for insn in part))
SLOT = st.builds(Insn, st.integers(0, 255), st.integers(0, 15), st.integers(0, 15), S16, S32)

"""Random straight and branching programs: the interpreter, the machine code and the live kernel agree on r0."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tcbpf.cli import conformance
from tcbpf.isa.insn import Insn
from tcbpf.tables.insns import ALU, END, JUMP, Alu
from tcbpf.vm import unverified as checked

REGISTERS = range(6)
EDGES = [0, 1, -1, 2, 31, 63, 0x7FFFFFFF, -0x80000000]
NUMBERS = st.one_of(st.sampled_from(EDGES), st.integers(-(1 << 31), (1 << 31) - 1))
WIDE = st.one_of(NUMBERS, st.sampled_from([1 << 63, (1 << 63) - 1, 0xFFFFFFFF]), st.integers(0, (1 << 64) - 1))
registers = st.sampled_from(REGISTERS)


@st.composite
def alu(draw):
    row: Alu = draw(st.sampled_from(ALU.rows))
    width = draw(st.sampled_from(row.widths))
    cls = 0x07 if width == 64 else 0x04
    dst = draw(registers)
    if row.unary:
        return Insn(cls | row.code << 4, dst)
    if row.reg_only or draw(st.booleans()):
        return Insn(cls | row.code << 4 | 0x08, dst, draw(registers), row.off)
    imm = draw(NUMBERS)
    if row.name in ("LSH", "RSH", "ARSH"):
        imm %= width
    if row.name in ("DIV", "SDIV", "MOD", "SMOD") and imm == 0:
        imm = 3
    return Insn(cls | row.code << 4, dst, 0, row.off, imm)


@st.composite
def end(draw):
    row = draw(st.sampled_from(END.rows))
    return Insn(row.base, draw(registers), 0, 0, row.bits)


@st.composite
def jump(draw):
    row, cls = draw(st.sampled_from(JUMP.rows)), draw(st.sampled_from([0x05, 0x06]))
    if draw(st.booleans()):
        return Insn(cls | row.code << 4 | 0x08, draw(registers), draw(registers), draw(st.integers(0, 6)))
    return Insn(cls | row.code << 4, draw(registers), 0, draw(st.integers(0, 6)), draw(NUMBERS))


@st.composite
def programs(draw):
    start = []
    for reg in REGISTERS:
        value = draw(WIDE)
        low, high = struct.unpack("<ii", struct.pack("<Q", value & 0xFFFFFFFFFFFFFFFF))
        start += [Insn(0x18, reg, 0, 0, low), Insn(0, imm=high)]
    body = draw(st.lists(st.one_of(alu(), alu(), end(), jump()), max_size=25))
    fold = [Insn(0x0F if i % 2 else 0xAF, 0, reg) for i, reg in enumerate(REGISTERS[1:])]
    return (*start, *body, *[Insn(0xB7, 6)] * 7, *fold, Insn(0x95))


@settings(max_examples=60)
@given(programs())
def test_interpreter_equals_machine_code(insns):
    program = checked.check(insns)
    assert checked.run_interp(program, b"") == checked.run_jit(program, b"")


@pytest.mark.kernel
@settings(max_examples=300)
@given(programs())
def test_interpreter_equals_live_kernel(insns):
    assert checked.run_interp(checked.check(insns), b"") == conformance.run_kernel(insns, b"")

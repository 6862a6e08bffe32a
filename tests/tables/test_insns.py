"""The instruction rows against RFC 9669, restated here by opcode, and against the live kernel's arithmetic."""

from __future__ import annotations

import ctypes
import os
import struct
from itertools import product

import pytest

from kernel_oracle import bpf, load
from tables.ints import Ints
from tcbpf.isa.insn import Insn
from tcbpf.tables.insns import ALU, ATOMICS, END, JUMP, Kind, Op, op_of

U32, U64 = (1 << 32) - 1, (1 << 64) - 1
VALUES = (
    0,
    1,
    2,
    5,
    7,
    31,
    32,
    63,
    64,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0x12345678,
    0x7FFFFFFF,
    0x80000000,
    U32,
    0x1122334455667788,
    0x7FFFFFFFFFFFFFFF,
    1 << 63,
    (1 << 63) + 1,
    U64 - 4,
    U64,
)


def u32(x: int) -> int:
    return x & U32


def s32(x: int) -> int:
    return (x & U32) - (1 << 32) if x & 1 << 31 else x & U32


def s64(x: int) -> int:
    return (x & U64) - (1 << 64) if x & 1 << 63 else x & U64


def toward_zero(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def swap(x: int, size: int) -> int:
    return int.from_bytes((x & (1 << 8 * size) - 1).to_bytes(size, "little"), "big")


# RFC 9669, appendix A, with a register or an immediate as src. Each is: opcode with src a register, offset, meaning.
ARITHMETIC = """
0c 0 u32(u32(d) + u32(s))                                      0f 0 d + s
1c 0 u32(u32(d) - u32(s))                                      1f 0 d - s
2c 0 u32(u32(d) * u32(s))                                      2f 0 d * s
3c 0 u32(d) // u32(s) if u32(s) else 0                         3f 0 d // s if s else 0
3c 1 u32(toward_zero(s32(d), s32(s))) if u32(s) else 0         3f 1 toward_zero(s64(d), s64(s)) if s else 0
4c 0 u32(d | s)                                                4f 0 d | s
5c 0 u32(d & s)                                                5f 0 d & s
6c 0 u32(d << (s & 0x1f))                                      6f 0 d << (s & 0x3f)
7c 0 u32(d) >> (s & 0x1f)                                      7f 0 d >> (s & 0x3f)
9c 0 u32(d) % u32(s) if u32(s) else u32(d)                     9f 0 d % s if s else d
9c 1 u32(s32(d) - s32(s) * toward_zero(s32(d), s32(s))) if u32(s) else u32(d)
9f 1 s64(d) - s64(s) * toward_zero(s64(d), s64(s)) if s else d
ac 0 u32(d ^ s)                                                af 0 d ^ s
bc 0 u32(s)                                                    bf 0 s
bc 8 u32((s & 0xff ^ 0x80) - 0x80)                             bf 8 (s & 0xff ^ 0x80) - 0x80
bc 16 u32((s & 0xffff ^ 0x8000) - 0x8000)                      bf 16 (s & 0xffff ^ 0x8000) - 0x8000
bf 32 s32(s)
cc 0 u32(s32(d) >> (s & 0x1f))                                 cf 0 s64(d) >> (s & 0x3f)
"""
UNARY = """
84 0 0 u32(-d)                    87 0 0 -d
d4 0 10 d & 0xffff                d4 0 20 d & 0xffffffff              d4 0 40 d
dc 0 10 swap(d, 2)                dc 0 20 swap(d, 4)                  dc 0 40 swap(d, 8)
d7 0 10 swap(d, 2)                d7 0 20 swap(d, 4)                  d7 0 40 swap(d, 8)
"""
CONDITIONS = """
1d d == s        2d d > s         3d d >= s        4d d & s != 0     5d d != s
6d s64(d) > s64(s)    7d s64(d) >= s64(s)    ad d < s    bd d <= s    cd s64(d) < s64(s)    dd s64(d) <= s64(s)
1e u32(d) == u32(s)   2e u32(d) > u32(s)     3e u32(d) >= u32(s)      4e u32(d) & u32(s) != 0    5e u32(d) != u32(s)
6e s32(d) > s32(s)    7e s32(d) >= s32(s)    ae u32(d) < u32(s)       be u32(d) <= u32(s)
ce s32(d) < s32(s)    de s32(d) <= s32(s)
"""
MEMORY = {  # opcode: (kind, bytes, sign-extended)
    0x20: (Kind.LD_ABS, 4, False),
    0x28: (Kind.LD_ABS, 2, False),
    0x30: (Kind.LD_ABS, 1, False),
    0x40: (Kind.LD_IND, 4, False),
    0x48: (Kind.LD_IND, 2, False),
    0x50: (Kind.LD_IND, 1, False),
    0x61: (Kind.LOAD, 4, False),
    0x69: (Kind.LOAD, 2, False),
    0x71: (Kind.LOAD, 1, False),
    0x79: (Kind.LOAD, 8, False),
    0x81: (Kind.LOAD, 4, True),
    0x89: (Kind.LOAD, 2, True),
    0x91: (Kind.LOAD, 1, True),
    0x62: (Kind.STORE, 4, False),
    0x6A: (Kind.STORE, 2, False),
    0x72: (Kind.STORE, 1, False),
    0x7A: (Kind.STORE, 8, False),
    0x63: (Kind.STORE, 4, False),
    0x6B: (Kind.STORE, 2, False),
    0x73: (Kind.STORE, 1, False),
    0x7B: (Kind.STORE, 8, False),
    0x18: (Kind.LD_IMM64, 8, False),
}
CONTROL = {0x05: Kind.JA, 0x06: Kind.JA, 0x85: Kind.CALL, 0x95: Kind.EXIT, 0xE5: Kind.MAY_GOTO}
ATOMIC = {  # imm: the new value of memory, from d (old memory) and s
    0x00: "d + s",
    0x01: "d + s",
    0x40: "d | s",
    0x41: "d | s",
    0x50: "d & s",
    0x51: "d & s",
    0xA0: "d ^ s",
    0xA1: "d ^ s",
    0xE1: "s",
    0xF1: "s",
}


def cells(table: str) -> list[list[str]]:
    """Return the table's cells; cells are two blanks or more apart."""
    return [
        cell.split(" ")
        for line in table.strip().splitlines()
        for cell in line.split("  ")
        if cell.strip()
        for cell in [cell.strip()]
    ]


def meaning(text: str, d: int, s: int) -> int:
    return int(eval(text, {"u32": u32, "s32": s32, "s64": s64, "swap": swap, "toward_zero": toward_zero, "d": d, "s": s}))


def by_row(op: Op, d: int, s: int) -> int:
    """Evaluate the table's row, as any engine would."""
    algebra = Ints(op.width)
    return int(op.row.fn(algebra, d & algebra.mask, s & algebra.mask))


ALU_CELLS = [(int(code, 16), int(off), " ".join(text)) for code, off, *text in cells(ARITHMETIC)]
UNARY_CELLS = [(int(code, 16), int(imm, 16), " ".join(text)) for code, _, imm, *text in cells(UNARY)]
CONDITION_CELLS = [(int(code, 16), " ".join(text)) for code, *text in cells(CONDITIONS)]


@pytest.mark.parametrize(("code", "off", "text"), ALU_CELLS)
def test_arithmetic(code: int, off: int, text: str) -> None:
    op = op_of(code, off=off)
    assert op is not None and op.kind is Kind.ALU and op.use_reg
    for d, s in product(VALUES, VALUES):
        assert by_row(op, d, s) == meaning(text, d, s) & U64, (d, s)
    immediate = op_of(code & ~8, off=off)
    assert (immediate is None) == op.row.reg_only
    if immediate:
        assert immediate.row is op.row and not immediate.use_reg and immediate.width == op.width


@pytest.mark.parametrize(("code", "imm", "text"), UNARY_CELLS)
def test_unary(code: int, imm: int, text: str) -> None:
    op = op_of(code, imm=imm)
    assert op is not None and op.kind is Kind.ALU
    for d in VALUES:
        assert by_row(op, d, 0) == meaning(text, d, 0) & U64


@pytest.mark.parametrize(("code", "text"), CONDITION_CELLS)
def test_conditions(code: int, text: str) -> None:
    op, immediate = op_of(code), op_of(code & ~8)
    assert op is not None and immediate is not None and op.kind is Kind.JUMP and immediate.row is op.row
    assert op.use_reg and not immediate.use_reg
    for d, s in product(VALUES, VALUES):
        assert bool(by_row(op, d, s)) == bool(meaning(text, d, s)), (d, s)


@pytest.mark.parametrize("imm", ATOMIC)
def test_atomics(imm: int) -> None:
    row = ATOMICS.at(imm)
    assert row is not None and row.fetch == bool(imm & 1)
    for size, mask in ((4, U32), (8, U64)):
        op = op_of(0xC3 if size == 4 else 0xDB, imm=imm)
        assert op is not None and op.kind is Kind.ATOMIC and op.size == size
        for d, s in product(VALUES, VALUES):
            assert row.fn(Ints(8 * size), d & mask, s & mask) == meaning(ATOMIC[imm], d, s) & mask
    assert op_of(0xCB, imm=imm) is None and op_of(0xD3, imm=imm) is None


def test_memory_and_control() -> None:
    for code, (kind, size, signed) in MEMORY.items():
        op = op_of(code)
        assert op is not None and (op.kind, op.size, op.signed) == (kind, size, signed), hex(code)
    for code, kind in CONTROL.items():
        op = op_of(code)
        assert op is not None and op.kind is kind
    assert op_of(0x85, src=1).kind is Kind.CALL_LOCAL and op_of(0x85, src=2).kind is Kind.CALL_KFUNC  # type: ignore[union-attr]
    assert op_of(0x06).long and not op_of(0x05).long  # type: ignore[union-attr]


def test_no_other_opcode_exists() -> None:
    """What the RFC and Linux's additions do not list is no instruction."""
    known = {code for code, _, _ in ALU_CELLS} | {code & ~8 for code, off, _ in ALU_CELLS if not off}
    known |= {code for code, _, _ in UNARY_CELLS} | {c for code, _ in CONDITION_CELLS for c in (code, code & ~8)}
    known |= set(MEMORY) | set(CONTROL) | {0xC3, 0xDB}
    imms = (0, 16)
    assert {code for code in range(256) if any(op_of(code, imm=imm) for imm in imms)} == known
    assert op_of(0xB7, off=8) is None and op_of(0xBC, off=32) is None  # movsx of an immediate, of 32 bits to 32
    assert op_of(0x0F, off=1) is None and op_of(0xDC, imm=24) is None and op_of(0x85, src=3) is None


def test_every_row_is_restated() -> None:
    assert {op_of(c, off=o).row.name for c, o, _ in ALU_CELLS} | {"NEG"} == set(ALU.names())  # type: ignore[union-attr]
    assert {op_of(c, imm=i).row.name for c, i, _ in UNARY_CELLS} - {"NEG"} == set(END.names())  # type: ignore[union-attr]
    assert {op_of(c).row.name for c, _ in CONDITION_CELLS} == set(JUMP.names())  # type: ignore[union-attr]
    assert set(ATOMIC) == {row.imm for row in ATOMICS} - {0x100, 0x110}


# --- the live kernel ----------------------------------------------------------------------------------------------------


def wide(reg: int, value: int) -> list[Insn]:
    low, high = value & U32, value >> 32
    return [Insn(0x18, reg, imm=low - (low >> 31 << 32)), Insn(0, imm=high - (high >> 31 << 32))]


def kernel_run(body: list[Insn], count: int) -> list[int]:
    """Run a body that leaves numbers at r7 (the packet), and return `count` of them."""
    size = max(64, 8 * count)
    insns = [
        Insn(0x61, 7, 1, 76),
        Insn(0x61, 8, 1, 80),
        Insn(0xBF, 2, 7),
        Insn(0x07, 2, imm=size),
        Insn(0xBD, 2, 8, 2),
        Insn(0xB7, 0, imm=1),
        Insn(0x95),
        *body,
        Insn(0xB7),
        Insn(0x95),
    ]
    fd, error, log = load(insns)
    assert fd >= 0, (error, log[-500:])
    packet, out = ctypes.create_string_buffer(size), ctypes.create_string_buffer(size)
    attr = ctypes.create_string_buffer(80)
    struct.pack_into("<IIIIQQII", attr, 0, fd, 0, size, size, ctypes.addressof(packet), ctypes.addressof(out), 1, 0)
    _, error = bpf(10, attr)
    os.close(fd)
    assert error == 0
    return list(struct.unpack_from(f"<{count}Q", out.raw))


@pytest.mark.kernel
@pytest.mark.parametrize("width", [64, 32])
def test_arithmetic_as_the_kernel_computes_it(width: int) -> None:
    pairs = list(product(VALUES, VALUES))
    codes = [(code, off, 0) for code, off, _ in ALU_CELLS] + [(code, 0, imm) for code, imm, _ in UNARY_CELLS]
    for code, off, imm in codes:
        op = op_of(code, off=off, imm=imm)
        assert op is not None
        if op.width == width:
            for start in range(0, len(pairs), 150):
                some, body = pairs[start : start + 150], []
                for i, (d, s) in enumerate(some):
                    src = 3 if op.use_reg else 0
                    body += [*wide(2, d), *wide(3, s), Insn(code, 2, src, off, imm), Insn(0x7B, 7, 2, 8 * i)]
                assert kernel_run(body, len(some)) == [by_row(op, d, s) for d, s in some], (hex(code), off, imm)


@pytest.mark.kernel
def test_conditions_as_the_kernel_takes_them() -> None:
    pairs = list(product(VALUES, VALUES))
    for code, _ in CONDITION_CELLS:
        op = op_of(code)
        assert op is not None
        for start in range(0, len(pairs), 150):
            some, body = pairs[start : start + 150], []
            for i, (d, s) in enumerate(some):
                body += [
                    *wide(2, d),
                    *wide(3, s),
                    Insn(0xB7, 4, imm=1),
                    Insn(code, 2, 3, 1),
                    Insn(0xB7, 4),
                    Insn(0x7B, 7, 4, 8 * i),
                ]
            assert kernel_run(body, len(some)) == [int(bool(by_row(op, d, s))) for d, s in some], hex(code)

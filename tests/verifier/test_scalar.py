"""Scalars: how they print, what they hold, and that the operations of the rows stay in step with numbers."""

from __future__ import annotations

import random

import pytest

from tcbpf.tables.insns import ALU, JUMP
from tcbpf.verifier.values.branch import refine, taken
from tcbpf.verifier.values.scalar import UNKNOWN, Scalar, bounded, const, sign_extend, truncate
from tcbpf.verifier.values.tnum import MAX
from tcbpf.verifier.values.transfer import alu, fork
from verifier.printed import parse
from verifier.rfc9669 import holds, result

PRINTED = [
    "scalar()",
    "scalar(smin=smin32=0,smax=umax=smax32=umax32=255,var_off=(0x0; 0xff))",
    "scalar(smin=0,smax=umax=0xffffffff,var_off=(0x0; 0xffffffff))",
    "scalar(smin=smin32=-3,smax=smax32=252)",
    "scalar(umax=0xffffffffffffffe3,smax32=0x7ffffffe)",
    "scalar(smin=0x800000000000001f,smax=0x7fffffff7fffffff,umin=smin32=umin32=31,umax=0xffffffff7fffffff,"
    "umax32=0x7fffffff,var_off=(0x0; 0xffffffff7fffffff))",
    "0",
    "-1",
    "0x8000",
    "-32768",
    "0xffffffffffff7fff",
]


@pytest.mark.parametrize("text", PRINTED)
def test_prints_as_the_kernel(text):
    assert str(parse(text)) == text


def test_constants_are_exact():
    five = const(5)
    assert five.is_const and five.contains(5) and not five.contains(6)
    assert const(-1).contains(MAX) and const(-1).umin == MAX and const(-1).smax == -1


def test_bounded_narrows_all_parts():
    assert str(bounded(UNKNOWN, umax=255)) == PRINTED[1]
    errno_or_zero = bounded(UNKNOWN, smin=-4095, smax=0, smin32=-4095, smax32=0)
    assert str(errno_or_zero) == "scalar(smin=smin32=-4095,smax=smax32=0)"
    assert bounded(UNKNOWN, umin=7, umax=7) is const(7)


def test_sizes():
    assert str(truncate(UNKNOWN, 8)) == PRINTED[1]
    assert truncate(const(0x1234), 8) is const(0x34)
    assert str(sign_extend(UNKNOWN, 8)) == "scalar(smin=smin32=-128,smax=smax32=127)"
    assert sign_extend(const(0xFF), 8) is const(-1)


def test_covers():
    byte = truncate(UNKNOWN, 8)
    assert UNKNOWN.covers(byte) and byte.covers(const(3)) and byte.covers(byte)
    assert not byte.covers(UNKNOWN) and not byte.covers(const(256)) and not const(3).covers(byte)


def test_sign_spread_forks():
    spread = alu(ALU["ARSH"], 64, UNKNOWN, const(63))
    assert fork(ALU["AND"], spread, const(22)) == (const(-1), const(0))
    assert fork(ALU["OR"], spread, UNKNOWN) is None and fork(ALU["ADD"], spread, const(1)) is None
    half = alu(ALU["ARSH"], 32, UNKNOWN, const(31))
    ones, zero = fork(ALU["OR"], half, const(22))
    assert alu(ALU["OR"], 64, ones, const(22)) is const(0xFFFFFFFF) and alu(ALU["OR"], 64, zero, const(22)) is const(22)


# --- numbers inside stay inside --------------------------------------------------------------------------------------


def anywhere(rng: random.Random) -> tuple[Scalar, int]:
    """Return a scalar and a number in it: an unknown, narrowed by masks, bounds and sizes around that number."""
    number = rng.getrandbits(rng.choice((1, 4, 8, 16, 31, 32, 33, 63, 64)))
    if rng.random() < 0.3:
        number = -number & MAX
    if rng.random() < 0.2:
        return const(number), number
    known = UNKNOWN
    for _ in range(rng.randrange(4)):
        width = rng.choice((64, 32))
        row = rng.choice(JUMP.rows)
        other = const(number + rng.choice((0, 1, -1, 5, -5, 1 << 32, rng.getrandbits(8))))
        yes, no = refine(row, width, known, other)
        concrete = holds(row, width, number, other.value)
        known = (yes if concrete else no)[0]
    return known, number


@pytest.mark.parametrize("width", [64, 32])
@pytest.mark.parametrize("row", ALU.rows, ids=lambda row: row.name)
def test_operation_keeps_the_number(row, width):
    operations(row, width, 400)


@pytest.mark.slow
@pytest.mark.parametrize("width", [64, 32])
@pytest.mark.parametrize("row", ALU.rows, ids=lambda row: row.name)
def test_operation_keeps_a_million_numbers(row, width):
    operations(row, width, 1_000_000)


def operations(row, width: int, points: int) -> None:
    rng = random.Random(f"{row.name}{width}")
    for _ in range(points):
        (d, x), (s, y) = anywhere(rng), anywhere(rng)
        if row.name in ("LSH", "RSH", "ARSH") and rng.random() < 0.8:
            y = rng.randrange(width)
            s = const(y)
        assert d.contains(x) and s.contains(y)
        after = alu(row, width, d, s)
        assert after.contains(result(row, width, x, y)), (d, s, x, y, after)


@pytest.mark.parametrize("width", [64, 32])
@pytest.mark.parametrize("row", JUMP.rows, ids=lambda row: row.name)
def test_branch_keeps_the_number(row, width):
    branches(row, width, 400)


@pytest.mark.slow
@pytest.mark.parametrize("width", [64, 32])
@pytest.mark.parametrize("row", JUMP.rows, ids=lambda row: row.name)
def test_branch_keeps_a_million_numbers(row, width):
    branches(row, width, 1_000_000)


def branches(row, width: int, points: int) -> None:
    rng = random.Random(f"{row.name}{width}")
    for _ in range(points):
        (d, x), (s, y) = anywhere(rng), anywhere(rng)
        way = holds(row, width, x, y)
        assert taken(row, width, d, s) in (way, None)
        yes, no = refine(row, width, d, s)
        left, right = yes if way else no
        assert left.contains(x) and right.contains(y), (d, s, x, y, left, right)
        yes, no = refine(row, width, d, d, same=True)
        left, right = yes if holds(row, width, x, x) else no
        assert left.contains(x) and right.contains(x)

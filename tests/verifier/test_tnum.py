"""Tristate numbers, exhaustively at four bits against the sets they stand for, and the properties the verifier leans
on.
"""

from __future__ import annotations

import itertools
import random

import pytest

from tcbpf.verifier.values import tnum
from tcbpf.verifier.values.tnum import MAX, Tnum

SMALL = [(value, mask) for mask in range(16) for value in range(16) if not value & mask]


def members(value: int, mask: int) -> list[int]:
    return [number for number in range(16) if number & ~mask == value]


BINARY = [
    (tnum.add, lambda a, b: a + b),
    (tnum.sub, lambda a, b: a - b),
    (tnum.mul, lambda a, b: a * b),
    (tnum.and_, lambda a, b: a & b),
    (tnum.or_, lambda a, b: a | b),
    (tnum.xor, lambda a, b: a ^ b),
]


@pytest.mark.parametrize(("abstract", "concrete"), BINARY, ids=lambda case: case.__name__)
def test_result_holds_every_result(abstract, concrete):
    for a, b in itertools.product(SMALL, SMALL):
        result = Tnum(*abstract(*a, *b))
        assert not result.value & result.mask
        for x, y in itertools.product(members(*a), members(*b)):
            assert concrete(x, y) & MAX in result, (a, b, x, y, result)


@pytest.mark.parametrize(
    ("abstract", "concrete"), [case for case in BINARY if case[0] is not tnum.mul], ids=lambda case: case.__name__
)
def test_result_is_the_smallest_there_is(abstract, concrete):
    """All but mul lose nothing that a tnum can hold."""
    for a, b in itertools.product(SMALL, SMALL):
        results = [concrete(x, y) & MAX for x in members(*a) for y in members(*b)]
        best = (results[0], 0)
        for number in results:
            best = tnum.union(*best, number, 0)
        assert abstract(*a, *b) == best, (a, b)


def test_sets():
    for a, b in itertools.product(SMALL, SMALL):
        left, right = set(members(*a)), set(members(*b))
        assert tnum.overlap(*a, *b) == bool(left & right)
        assert tnum.within(*a, *b) == (right <= left)
        assert left | right <= set(members(*tnum.union(*a, *b)))
        if left & right:
            assert set(members(*tnum.intersect(*a, *b))) == left & right


def test_step_is_the_next_member():
    for a in SMALL:
        held = members(*a)
        for number in range(16):
            assert tnum.step(*a, number) == next((other for other in held if other > number), held[-1])


def test_span():
    for low in range(16):
        for high in range(low, 16):
            value, mask = tnum.span(low, high)
            assert set(range(low, high + 1)) <= set(members(value, mask))
    assert tnum.span(0, MAX) == tnum.UNKNOWN


@pytest.mark.parametrize("shift", [0, 1, 4, 31])
def test_shifts(shift):
    rng = random.Random(shift)
    for _ in range(500):
        mask = rng.getrandbits(64)
        value = rng.getrandbits(64) & ~mask
        number = value | rng.getrandbits(64) & mask
        assert number << shift & MAX in Tnum(*tnum.lsh(value, mask, shift))
        assert number >> shift in Tnum(*tnum.rsh(value, mask, shift))
        signed = number - (1 << 64) if number >> 63 else number
        assert signed >> shift & MAX in Tnum(*tnum.arsh(value, mask, shift))
        low = number & 0xFFFFFFFF
        signed = low - (1 << 32) if low >> 31 else low
        assert signed >> shift & 0xFFFFFFFF in Tnum(*tnum.arsh_half(value & 0xFFFFFFFF, mask & 0xFFFFFFFF, shift))


def test_parts_of_a_tnum():
    assert tnum.cast(0x1234, 0xFF0000, 16) == (0x1234, 0)
    assert tnum.with_half(0xA << 32, 0xF << 36, 7, 8) == (0xA << 32 | 7, 0xF << 36 | 8)
    assert tnum.bswap(0x1234, 0xFF0000, 32) == (0x34120000, 0x0000FF00)
    assert tnum.neg(1, 0) == (MAX, 0)
    assert tnum.is_aligned(0, 0xF8, 8) and not tnum.is_aligned(0, 0xFC, 8) and tnum.is_aligned(1, 1, 0)
    assert str(Tnum(0, 0xFF)) == "(0x0; 0xff)"

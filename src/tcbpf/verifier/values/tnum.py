"""Tristate numbers: of each bit of a value, whether it is 0, 1 or unknown.

A tnum is a pair (value, mask) with value & mask == 0. It stands for every x with x & ~mask == value: a bit of the
mask is an unknown bit, and the others are as in the value. The functions take and return the two numbers bare,
because the verifier's hot loop has no time to build objects; `Tnum` names the pair where one is kept or printed.

Each function is sound: for members of the operands, what the operation gives is a member of the result.

Source:  kernel/bpf/tnum.c (v6.18).
"""

from __future__ import annotations

from typing import NamedTuple

BITS = 64
MAX = (1 << BITS) - 1
SIGN = 1 << (BITS - 1)
HALF_BITS = BITS // 2
HALF_MAX = (1 << HALF_BITS) - 1
HALF_SIGN = 1 << (HALF_BITS - 1)

Pair = tuple[int, int]


class Tnum(NamedTuple):
    """A tristate number; `str()` of it is the kernel's "(0x0; 0xff)"."""

    value: int
    mask: int

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and number & ~self.mask & MAX == self.value

    def __str__(self) -> str:
        return f"({self.value:#x}; {self.mask:#x})"


UNKNOWN = Tnum(0, MAX)


def const(value: int) -> Pair:
    """Return the tnum of one number."""
    return value & MAX, 0


def span(low: int, high: int) -> Pair:
    """Return the smallest tnum that holds every number from low to high, both unsigned."""
    delta = (1 << (low ^ high).bit_length()) - 1
    return low & ~delta, delta


def add(av: int, am: int, bv: int, bm: int) -> Pair:
    """Return the sum: a bit is unknown when it is in an operand, or when the carry into it depends on an unknown bit."""
    low = av + bv
    unknown = ((low + am + bm) ^ low | am | bm) & MAX
    return low & ~unknown & MAX, unknown


def sub(av: int, am: int, bv: int, bm: int) -> Pair:
    """Return the difference; as add, with borrows."""
    low = av - bv
    unknown = ((low + am) ^ (low - bm) | am | bm) & MAX
    return low & ~unknown & MAX, unknown


def neg(av: int, am: int) -> Pair:
    """Return 0 - a."""
    return sub(0, 0, av, am)


def and_(av: int, am: int, bv: int, bm: int) -> Pair:
    """Return the bitwise and: a known 0 on one side makes the bit known."""
    value = av & bv
    return value, (av | am) & (bv | bm) & ~value


def or_(av: int, am: int, bv: int, bm: int) -> Pair:
    """Return the bitwise or: a known 1 on one side makes the bit known."""
    value = av | bv
    return value, (am | bm) & ~value


def xor(av: int, am: int, bv: int, bm: int) -> Pair:
    """Return the bitwise exclusive or."""
    unknown = am | bm
    return (av ^ bv) & ~unknown, unknown


def mul(av: int, am: int, bv: int, bm: int) -> Pair:
    """Return the product, by long multiplication over the bits of a: a known 1 adds b, an unknown bit may add it."""
    if am == MAX:  # every bit above the lowest that b may have comes out unknown
        low = (bv | bm) & -(bv | bm)
        return 0, -low & MAX
    value, mask = 0, 0
    while (av or am) and (bv or bm):
        if (av | am) & 1:
            more, unknown = add(value, mask, bv, bm)
            if av & 1:
                value, mask = more, unknown
            else:
                value, mask = union(value, mask, more, unknown)
        av, am = av >> 1, am >> 1
        bv, bm = bv << 1 & MAX, bm << 1 & MAX
    return value, mask


def lsh(av: int, am: int, shift: int) -> Pair:
    """Return a << shift."""
    return av << shift & MAX, am << shift & MAX


def rsh(av: int, am: int, shift: int) -> Pair:
    """Return a >> shift, zeroes coming in."""
    return av >> shift, am >> shift


def arsh(av: int, am: int, shift: int) -> Pair:
    """Return a >> shift, copies of the sign (known or not) coming in."""
    return ((av ^ SIGN) - SIGN >> shift) & MAX, ((am ^ SIGN) - SIGN >> shift) & MAX


def arsh_half(av: int, am: int, shift: int) -> Pair:
    """Return the lower half of a shifted as a signed number of half the width; the upper half is zero."""
    return ((av ^ HALF_SIGN) - HALF_SIGN >> shift) & HALF_MAX, ((am ^ HALF_SIGN) - HALF_SIGN >> shift) & HALF_MAX


def intersect(av: int, am: int, bv: int, bm: int) -> Pair:
    """Return what both allow; where they contradict each other, the bit is 1."""
    mask = am & bm
    return (av | bv) & ~mask, mask


def union(av: int, am: int, bv: int, bm: int) -> Pair:
    """Return the smallest tnum that holds every member of both."""
    mask = av ^ bv | am | bm
    return av & bv & ~mask, mask


def overlap(av: int, am: int, bv: int, bm: int) -> bool:
    """Return whether a and b have a member in common."""
    return not (av ^ bv) & ~(am | bm)


def within(av: int, am: int, bv: int, bm: int) -> bool:
    """Return whether every member of b is a member of a."""
    return not bm & ~am and av == bv & ~am


def is_aligned(av: int, am: int, size: int) -> bool:
    """Return whether every member is a multiple of size, a power of two (or 0, which anything is aligned to)."""
    return not size or not (av | am) & (size - 1)


def cast(av: int, am: int, bits: int) -> Pair:
    """Return the low bits, zero above them."""
    keep = (1 << bits) - 1
    return av & keep, am & keep


def with_half(av: int, am: int, bv: int, bm: int) -> Pair:
    """Return the upper half of a over the lower half of b."""
    return av & ~HALF_MAX | bv & HALF_MAX, am & ~HALF_MAX | bm & HALF_MAX


def swap_bytes(number: int, bits: int) -> int:
    """Return the low bits with their bytes reversed, zero above them."""
    swapped = 0
    for shift in range(0, bits, 8):
        swapped = swapped << 8 | number >> shift & 0xFF
    return swapped


def bswap(av: int, am: int, bits: int) -> Pair:
    """Return a with the bytes of its low bits reversed, zero above them."""
    return swap_bytes(av, bits), swap_bytes(am, bits)


def step(av: int, am: int, number: int) -> int:
    """Return the smallest member above the number, or the largest member when there is none."""
    if number >= av | am:
        return av | am
    if number < av:
        return av
    # A member is av + s for a submask s of am: count within the mask, the bits outside it all 1 so that a carry crosses
    # them.
    offset = number - av
    carry = (1 << (offset & ~am).bit_length()) - 1
    return av | ((offset | carry | ~am) + 1 & am)

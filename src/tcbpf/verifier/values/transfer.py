"""What an ALU operation or a comparison makes of what is known: the rows of tables/insns.py, read over scalars.

`alu(row, width, d, s)` is the transfer function. Each method is sound: for numbers in the operands, what the
operation gives is in the result. It is as precise as the kernel's and no more, so that both print the same.

Source:  kernel/bpf/verifier.c, adjust_scalar_min_max_vals() and is_scalar_branch_taken() (v6.18.44).
"""

from __future__ import annotations

from tcbpf.tables.insns import Alu, End
from tcbpf.verifier.values import tnum
from tcbpf.verifier.values.scalar import (
    HALF_SMAX,
    HALF_SMIN,
    SMAX,
    SMIN,
    UNKNOWN,
    Scalar,
    const,
    learn_half_bounds,
    sign_extend,
    sign_extend_half,
    sync,
    truncate,
    unbounded,
    zero_extend_half,
)
from tcbpf.verifier.values.tnum import BITS, HALF_BITS, HALF_MAX, HALF_SIGN, MAX, SIGN

LOST = Scalar(0, MAX, 0, MAX, SMIN, SMAX, 0, HALF_MAX, HALF_SMIN, HALF_SMAX)
"""What an operation that is not followed gives; the kernel does not even note that a 32-bit one zeroes the upper half.
"""

Range = tuple[int, int, int, int]


def alu(row: Alu | End, width: int, d: Scalar, s: Scalar) -> Scalar:
    """Return what dst holds after the operation on all 64 bits, or on 32 with the upper half zeroed."""
    if width == BITS:
        result: Scalar = row.fn(WHOLE, d, s)
        return UNKNOWN if result is LOST else result
    result = row.fn(HALF, d, s)
    if result is LOST:
        return UNKNOWN
    if result is s:  # MOV hands its operand on
        return zero_extend(s)
    return result


def fork(row: Alu | End, d: Scalar, s: Scalar) -> tuple[Scalar, Scalar] | None:
    """Return dst as the kernel splits it in two before an and or an or with a constant: all ones here, zero on
    another path.

    Returns: None for not split. The other path begins at the same instruction, with dst zero; both run it.
    Source:  maybe_fork_scalars(): the sign spread over a register (s>>= 63) is a choice between two constants.
    """
    if s.mask or row.name not in ("AND", "OR"):
        return None
    if d.smin == -1 and d.smax == 0:
        return const(-1), const(0)
    if d.smin32 == -1 and d.smax32 == 0:
        return with_half_known(d, HALF_MAX), with_half_known(d, 0)
    return None


def with_half_known(old: Scalar, half: int) -> Scalar:
    """Return old with its lower half replaced by a number; its whole bounds stay, as in the kernel."""
    value, mask = tnum.with_half(old.value, old.mask, half, 0)
    signed = (half ^ HALF_SIGN) - HALF_SIGN
    return Scalar(value, mask, old.umin, old.umax, old.smin, old.smax, half, half, signed, signed)


def zero_extend(old: Scalar) -> Scalar:
    """Return the lower half of old under an upper half of zero: a 32-bit move."""
    if not old.mask:
        return const(old.value & HALF_MAX)
    return zero_extend_half(old.value, old.mask, old.umin32, old.umax32, old.smin32, old.smax32)


class ScalarAlgebra:
    """The `Algebra` of scalars; operands and results are whole registers, of which width 32 works on the lower half.

    A comparison is True, False or None: holds for all the numbers, for none, or not known. `select` follows a condition
    only when it is known to fail, which is as far as the kernel follows a division: not at all.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.whole = width == BITS

    def const(self, value: int) -> Scalar:
        return const(value)

    def select(self, cond: bool | None, yes: Scalar, no: Scalar) -> Scalar:
        return no if cond is False else LOST

    # --- arithmetic --------------------------------------------------------------------------------------------------

    def add(self, d: Scalar, s: Scalar) -> Scalar:
        if not d.mask and not s.mask:
            return const(d.value + s.value) if self.whole else const(d.value + s.value & HALF_MAX)
        value, mask = tnum.add(d.value, d.mask, s.value, s.mask)
        umin32, umax32, smin32, smax32 = add_half(d, s)
        if not self.whole:
            return zero_extend_half(value, mask, umin32, umax32, smin32, smax32)
        umin, umax = d.umin + s.umin, d.umax + s.umax
        if umin <= MAX < umax:
            umin, umax = 0, MAX
        smin, smax = d.smin + s.smin, d.smax + s.smax
        if smin < SMIN or smin > SMAX or smax < SMIN or smax > SMAX:
            smin, smax = SMIN, SMAX
        return sync(value, mask, umin & MAX, umax & MAX, smin, smax, umin32, umax32, smin32, smax32)

    def sub(self, d: Scalar, s: Scalar) -> Scalar:
        if not d.mask and not s.mask:
            return const(d.value - s.value) if self.whole else const(d.value - s.value & HALF_MAX)
        value, mask = tnum.sub(d.value, d.mask, s.value, s.mask)
        umin32, umax32, smin32, smax32 = sub_half(d, s)
        if not self.whole:
            return zero_extend_half(value, mask, umin32, umax32, smin32, smax32)
        umin, umax = d.umin - s.umax, d.umax - s.umin
        if umin < 0 <= umax:
            umin, umax = 0, MAX
        smin, smax = d.smin - s.smax, d.smax - s.smin
        if smin < SMIN or smin > SMAX or smax < SMIN or smax > SMAX:
            smin, smax = SMIN, SMAX
        return sync(value, mask, umin & MAX, umax & MAX, smin, smax, umin32, umax32, smin32, smax32)

    def neg(self, d: Scalar) -> Scalar:
        return self.sub(const(0), d)

    def mul(self, d: Scalar, s: Scalar) -> Scalar:
        if not d.mask and not s.mask:
            return const(d.value * s.value) if self.whole else const(d.value * s.value & HALF_MAX)
        umin32, umax32, smin32, smax32 = mul_half(d, s)
        if not self.whole:
            value, mask = tnum.mul(d.value & HALF_MAX, d.mask & HALF_MAX, s.value & HALF_MAX, s.mask & HALF_MAX)
            return zero_extend_half(value, mask, umin32, umax32, smin32, smax32)
        value, mask = tnum.mul(d.value, d.mask, s.value, s.mask)
        umin, umax = unsigned_product(d.umin, d.umax, s.umin, s.umax, MAX)
        smin, smax = signed_product(d.smin, d.smax, s.smin, s.smax, SMIN, SMAX)
        return sync(value, mask, umin, umax, smin, smax, umin32, umax32, smin32, smax32)

    def udiv(self, d: Scalar, s: Scalar) -> Scalar:
        return LOST

    umod = sdiv = smod = udiv

    # --- bits --------------------------------------------------------------------------------------------------------

    def and_(self, d: Scalar, s: Scalar) -> Scalar:
        if not d.mask and not s.mask:
            return const(d.value & s.value) if self.whole else const(d.value & s.value & HALF_MAX)
        value, mask = tnum.and_(d.value, d.mask, s.value, s.mask)
        low = value & HALF_MAX
        high = d.umax32 if d.umax32 < s.umax32 else s.umax32
        umin32, umax32, smin32, smax32 = bits_half(value, mask, s, low, high)
        if not self.whole:
            return zero_extend_half(value, mask, umin32, umax32, smin32, smax32)
        return bits_whole(value, mask, s, value, d.umax if d.umax < s.umax else s.umax, umin32, umax32, smin32, smax32)

    def or_(self, d: Scalar, s: Scalar) -> Scalar:
        if not d.mask and not s.mask:
            return const(d.value | s.value) if self.whole else const((d.value | s.value) & HALF_MAX)
        value, mask = tnum.or_(d.value, d.mask, s.value, s.mask)
        low = d.umin32 if d.umin32 > s.umin32 else s.umin32
        umin32, umax32, smin32, smax32 = bits_half(value, mask, s, low, (value | mask) & HALF_MAX)
        if not self.whole:
            return zero_extend_half(value, mask, umin32, umax32, smin32, smax32)
        return bits_whole(value, mask, s, d.umin if d.umin > s.umin else s.umin, value | mask, umin32, umax32, smin32, smax32)

    def xor(self, d: Scalar, s: Scalar) -> Scalar:
        if not d.mask and not s.mask:
            return const(d.value ^ s.value) if self.whole else const((d.value ^ s.value) & HALF_MAX)
        value, mask = tnum.xor(d.value, d.mask, s.value, s.mask)
        umin32, umax32, smin32, smax32 = bits_half(value, mask, s, value & HALF_MAX, (value | mask) & HALF_MAX)
        if not self.whole:
            return zero_extend_half(value, mask, umin32, umax32, smin32, smax32)
        return bits_whole(value, mask, s, value, value | mask, umin32, umax32, smin32, smax32)

    # --- shifts: only by an amount that is known ---------------------------------------------------------------------

    def shift(self, s: Scalar) -> int | None:
        if self.whole:
            known = not s.mask
        else:
            known = not s.mask & HALF_MAX and s.umin32 == s.umax32 and s.smin32 == s.smax32
        return s.value & self.width - 1 if known and s.umax < self.width else None

    def lsh(self, d: Scalar, by: int | None) -> Scalar:
        if by is None:
            return LOST
        if not d.mask:
            return const(d.value << by) if self.whole else const(d.value << by & HALF_MAX)
        umin32, umax32 = 0, HALF_MAX
        if by < HALF_BITS and d.umax32 <= 1 << (HALF_BITS - 1 - by):
            umin32, umax32 = d.umin32 << by, d.umax32 << by
        if not self.whole:
            value, mask = tnum.lsh(d.value & HALF_MAX, d.mask & HALF_MAX, by)
            return zero_extend_half(value, mask, *learn_half_bounds(value, mask, umin32, umax32, HALF_SMIN, HALF_SMAX))
        value, mask = tnum.lsh(d.value, d.mask, by)
        smin, smax = SMIN, SMAX
        if by == HALF_BITS:
            smin, smax = d.smin32 << by, d.smax32 << by
        umin, umax = 0, MAX
        if d.umax <= 1 << (BITS - 1 - by):
            umin, umax = d.umin << by, d.umax << by
        return sync(value, mask, umin, umax, smin, smax, umin32, umax32, HALF_SMIN, HALF_SMAX)

    def rsh(self, d: Scalar, by: int | None) -> Scalar:
        if by is None:
            return LOST
        if not d.mask:
            return const(d.value >> by) if self.whole else const((d.value & HALF_MAX) >> by)
        if self.whole:
            return sync(d.value >> by, d.mask >> by, d.umin >> by, d.umax >> by, SMIN, SMAX, 0, HALF_MAX, HALF_SMIN, HALF_SMAX)
        value, mask = (d.value & HALF_MAX) >> by, (d.mask & HALF_MAX) >> by
        return zero_extend_half(
            value, mask, *learn_half_bounds(value, mask, d.umin32 >> by, d.umax32 >> by, HALF_SMIN, HALF_SMAX)
        )

    def arsh(self, d: Scalar, by: int | None) -> Scalar:
        if by is None:
            return LOST
        if self.whole:
            value, mask = tnum.arsh(d.value, d.mask, by)
            if not mask:
                return const(value)
            return sync(value, mask, 0, MAX, d.smin >> by, d.smax >> by, 0, HALF_MAX, HALF_SMIN, HALF_SMAX)
        value, mask = tnum.arsh_half(d.value & HALF_MAX, d.mask & HALF_MAX, by)
        if not mask:
            return const(value)
        return zero_extend_half(value, mask, *learn_half_bounds(value, mask, 0, HALF_MAX, d.smin32 >> by, d.smax32 >> by))

    # --- sizes and byte order ----------------------------------------------------------------------------------------

    def sext(self, s: Scalar, bits: int) -> Scalar:
        return sign_extend(s, bits) if self.whole else sign_extend_half(s, bits)

    def zext(self, d: Scalar, bits: int) -> Scalar:
        return again(truncate(d, bits))

    def bswap(self, d: Scalar, bits: int) -> Scalar:
        if not d.mask:
            return const(tnum.swap_bytes(d.value, bits))
        return again(truncate(unbounded(*tnum.bswap(d.value, d.mask, bits)), bits))

    # --- comparisons -------------------------------------------------------------------------------------------------

    def eq(self, a: Scalar, b: Scalar) -> bool | None:
        if self.whole:
            if not a.mask and not b.mask:
                return a.value == b.value
            if (
                (a.value ^ b.value) & ~(a.mask | b.mask)
                or a.umin > b.umax
                or a.umax < b.umin
                or a.smin > b.smax
                or a.smax < b.smin
            ):
                return False
        else:
            if not (a.mask | b.mask) & HALF_MAX:
                return (a.value ^ b.value) & HALF_MAX == 0
            if (a.value ^ b.value) & ~(a.mask | b.mask) & HALF_MAX:
                return False
        if a.umin32 > b.umax32 or a.umax32 < b.umin32 or a.smin32 > b.smax32 or a.smax32 < b.smin32:
            return False
        return None

    def ne(self, a: Scalar, b: Scalar) -> bool | None:
        equal = self.eq(a, b)
        return None if equal is None else not equal

    def ugt(self, a: Scalar, b: Scalar) -> bool | None:
        if self.whole:
            return True if a.umin > b.umax else False if a.umax <= b.umin else None
        return True if a.umin32 > b.umax32 else False if a.umax32 <= b.umin32 else None

    def uge(self, a: Scalar, b: Scalar) -> bool | None:
        if self.whole:
            return True if a.umin >= b.umax else False if a.umax < b.umin else None
        return True if a.umin32 >= b.umax32 else False if a.umax32 < b.umin32 else None

    def sgt(self, a: Scalar, b: Scalar) -> bool | None:
        if self.whole:
            return True if a.smin > b.smax else False if a.smax <= b.smin else None
        return True if a.smin32 > b.smax32 else False if a.smax32 <= b.smin32 else None

    def sge(self, a: Scalar, b: Scalar) -> bool | None:
        if self.whole:
            return True if a.smin >= b.smax else False if a.smax < b.smin else None
        return True if a.smin32 >= b.smax32 else False if a.smax32 < b.smin32 else None

    def ult(self, a: Scalar, b: Scalar) -> bool | None:
        return self.ugt(b, a)

    def ule(self, a: Scalar, b: Scalar) -> bool | None:
        return self.uge(b, a)

    def slt(self, a: Scalar, b: Scalar) -> bool | None:
        return self.sgt(b, a)

    def sle(self, a: Scalar, b: Scalar) -> bool | None:
        return self.sge(b, a)

    def test(self, a: Scalar, b: Scalar) -> bool | None:
        keep = MAX if self.whole else HALF_MAX
        if b.mask & keep:
            a, b = b, a
        if b.mask & keep:
            return None
        if a.value & b.value & keep:
            return True
        return None if (a.value | a.mask) & b.value & keep else False


WHOLE, HALF = ScalarAlgebra(BITS), ScalarAlgebra(HALF_BITS)


# --- the lower half, which the 64-bit operations follow too ----------------------------------------------------------


def add_half(d: Scalar, s: Scalar) -> Range:
    """Return umin32, umax32, smin32 and smax32 of the sum; a range that wraps at one end only is no range."""
    umin, umax = d.umin32 + s.umin32, d.umax32 + s.umax32
    if umin <= HALF_MAX < umax:
        umin, umax = 0, HALF_MAX
    smin, smax = d.smin32 + s.smin32, d.smax32 + s.smax32
    if smin < HALF_SMIN or smin > HALF_SMAX or smax < HALF_SMIN or smax > HALF_SMAX:
        smin, smax = HALF_SMIN, HALF_SMAX
    return umin & HALF_MAX, umax & HALF_MAX, smin, smax


def sub_half(d: Scalar, s: Scalar) -> Range:
    """Return umin32, umax32, smin32 and smax32 of the difference."""
    umin, umax = d.umin32 - s.umax32, d.umax32 - s.umin32
    if umin < 0 <= umax:
        umin, umax = 0, HALF_MAX
    smin, smax = d.smin32 - s.smax32, d.smax32 - s.smin32
    if smin < HALF_SMIN or smin > HALF_SMAX or smax < HALF_SMIN or smax > HALF_SMAX:
        smin, smax = HALF_SMIN, HALF_SMAX
    return umin & HALF_MAX, umax & HALF_MAX, smin, smax


def mul_half(d: Scalar, s: Scalar) -> Range:
    """Return umin32, umax32, smin32 and smax32 of the product."""
    umin, umax = unsigned_product(d.umin32, d.umax32, s.umin32, s.umax32, HALF_MAX)
    smin, smax = signed_product(d.smin32, d.smax32, s.smin32, s.smax32, HALF_SMIN, HALF_SMAX)
    return umin, umax, smin, smax


def unsigned_product(low: int, high: int, other_low: int, other_high: int, top: int) -> tuple[int, int]:
    """Return the bounds of a product of two ranges; all numbers to top when one of them goes beyond it."""
    if high * other_high > top:
        return 0, top
    return low * other_low, high * other_high


def signed_product(low: int, high: int, other_low: int, other_high: int, bottom: int, top: int) -> tuple[int, int]:
    """Return the bounds of a product of two signed ranges: it is at its ends that a product is largest and smallest."""
    smallest, largest = extremes(low * other_low, low * other_high, high * other_low, high * other_high)
    if smallest < bottom or largest > top:
        return bottom, top
    return smallest, largest


def extremes(a: int, b: int, c: int, d: int) -> tuple[int, int]:
    """Return the smallest and the largest of four."""
    if a > b:
        a, b = b, a
    if c > d:
        c, d = d, c
    return a if a < c else c, b if b > d else d


def bits_half(value: int, mask: int, s: Scalar, umin: int, umax: int) -> Range:
    """Return the bounds of the lower half of an and, or or xor with these bits, from its unsigned ones."""
    if not (mask | s.mask) & HALF_MAX:
        umin = umax = value & HALF_MAX
    smin, smax = (umin ^ HALF_SIGN) - HALF_SIGN, (umax ^ HALF_SIGN) - HALF_SIGN
    if smin > smax:
        smin, smax = HALF_SMIN, HALF_SMAX
    return umin, umax, smin, smax


def bits_whole(
    value: int, mask: int, s: Scalar, umin: int, umax: int, umin32: int, umax32: int, smin32: int, smax32: int
) -> Scalar:
    """Return the and, or or xor with these bits, from its unsigned bounds."""
    if not mask and not s.mask:
        return const(value)
    smin, smax = (umin ^ SIGN) - SIGN, (umax ^ SIGN) - SIGN
    if smin > smax:
        smin, smax = SMIN, SMAX
    return sync(value, mask, umin, umax, smin, smax, umin32, umax32, smin32, smax32)


def again(old: Scalar) -> Scalar:
    """Return old synced once more, as the kernel does after a truncation."""
    return sync(*old.parts()) if old.mask else old

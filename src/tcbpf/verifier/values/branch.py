"""What a conditional jump tells of its operands: which way it can go, and what they are on each way.

Scalars only; comparisons of pointers are decided where pointers are known.

Source:  kernel/bpf/verifier.c, is_scalar_branch_taken(), regs_refine_cond_op(), reg_set_min_max() (v6.18.44).
"""

from __future__ import annotations

from collections.abc import Callable

from tcbpf.tables.insns import Jump
from tcbpf.verifier.values.scalar import HALF_SMAX, HALF_SMIN, SMAX, SMIN, Parts, Scalar, raw_sync, sync
from tcbpf.verifier.values.tnum import BITS, HALF_MAX, HALF_SIGN, MAX, SIGN, intersect, or_, with_half
from tcbpf.verifier.values.transfer import HALF, WHOLE

Pair = tuple[Scalar, Scalar]
RawPair = tuple[Parts, Parts]
Narrow = Callable[[Scalar, Scalar, bool], RawPair]


def taken(row: Jump, width: int, d: Scalar, s: Scalar) -> bool | None:
    """Return whether the jump is taken: always, never, or None for not known."""
    result: bool | None = row.fn(WHOLE if width == BITS else HALF, d, s)
    return result


def refine(row: Jump, width: int, d: Scalar, s: Scalar, same: bool = False) -> tuple[Pair | None, Pair | None]:
    """Return dst and src where the jump is taken and where it is not; None for a way that no number goes.

    `same` says that dst and src are one register, and so narrowed together.
    """
    way = taken(row, width, d, s)
    if way is not None:
        return ((d, s), None) if way else (None, (d, s))
    yes, no = WAYS[row.name]
    whole = width == BITS
    if same:
        return _joined(*yes(d, d, whole)), _joined(*no(d, d, whole))
    dst, src = yes(d, s, whole)
    other_dst, other_src = no(d, s, whole)
    if not s.mask and s.umin == s.umax:  # a number stays what it is
        return (sync(*dst), s), (sync(*other_dst), s)
    return (sync(*dst), sync(*src)), (sync(*other_dst), sync(*other_src))


def _joined(d: Parts, s: Parts) -> Pair:
    """Return the one register that was narrowed as both operands, twice; what is left of it is the same for both."""
    value, mask = intersect(d[0], d[1], s[0], s[1])
    once = raw_sync(
        value,
        mask,
        max(d[2], s[2]),
        min(d[3], s[3]),
        max(d[4], s[4]),
        min(d[5], s[5]),
        max(d[6], s[6]),
        min(d[7], s[7]),
        max(d[8], s[8]),
        min(d[9], s[9]),
    )
    both = sync(*once)
    return both, both


# --- one comparison that holds ---------------------------------------------------------------------------------------


def narrow_eq(d: Scalar, s: Scalar, whole: bool) -> RawPair:
    """Narrow both to what both allow."""
    if whole:
        value, mask = intersect(d.value, d.mask, s.value, s.mask)
        umin, umax = d.umin if d.umin > s.umin else s.umin, d.umax if d.umax < s.umax else s.umax
        smin, smax = d.smin if d.smin > s.smin else s.smin, d.smax if d.smax < s.smax else s.smax
        return (
            (value, mask, umin, umax, smin, smax, d.umin32, d.umax32, d.smin32, d.smax32),
            (value, mask, umin, umax, smin, smax, s.umin32, s.umax32, s.smin32, s.smax32),
        )
    low = intersect(d.value & HALF_MAX, d.mask & HALF_MAX, s.value & HALF_MAX, s.mask & HALF_MAX)
    umin, umax = d.umin32 if d.umin32 > s.umin32 else s.umin32, d.umax32 if d.umax32 < s.umax32 else s.umax32
    smin, smax = d.smin32 if d.smin32 > s.smin32 else s.smin32, d.smax32 if d.smax32 < s.smax32 else s.smax32
    return (
        (*with_half(d.value, d.mask, *low), d.umin, d.umax, d.smin, d.smax, umin, umax, smin, smax),
        (*with_half(s.value, s.mask, *low), s.umin, s.umax, s.smin, s.smax, umin, umax, smin, smax),
    )


def narrow_ne(d: Scalar, s: Scalar, whole: bool) -> RawPair:
    """Take a known number off the ends of the other's ranges."""
    if _known(s, whole):
        return without(d, s, whole), s.parts()
    if _known(d, whole):
        return d.parts(), without(s, d, whole)
    return d.parts(), s.parts()


def without(d: Scalar, s: Scalar, whole: bool) -> Parts:
    """Return d with the known number of s taken off the ends of its ranges."""
    value, mask, umin, umax, smin, smax, umin32, umax32, smin32, smax32 = d.parts()
    if whole:
        number = s.value
        signed = (number ^ SIGN) - SIGN
        umin, umax = umin + (umin == number), umax - (umax == number)
        smin, smax = smin + (smin == signed), smax - (smax == signed)
    else:
        number = s.value & HALF_MAX
        signed = (number ^ HALF_SIGN) - HALF_SIGN
        umin32, umax32 = umin32 + (umin32 == number), umax32 - (umax32 == number)
        smin32, smax32 = smin32 + (smin32 == signed), smax32 - (smax32 == signed)
    return value, mask, umin, umax, smin, smax, umin32, umax32, smin32, smax32


def narrow_set(d: Scalar, s: Scalar, whole: bool) -> RawPair:
    """Learn that a bit is set, when the known operand is that single bit."""
    if _known(s, whole):
        return with_bit(d, s, whole), s.parts()
    if _known(d, whole):
        return d.parts(), with_bit(s, d, whole)
    return d.parts(), s.parts()


def with_bit(d: Scalar, s: Scalar, whole: bool) -> Parts:
    """Return d with the single bit of s set; d itself when s is not a single bit."""
    bit = s.value if whole else s.value & HALF_MAX
    if not bit or bit & bit - 1:
        return d.parts()
    value, mask = or_(d.value, d.mask, bit, 0)
    return value, mask, d.umin, d.umax, d.smin, d.smax, d.umin32, d.umax32, d.smin32, d.smax32


def narrow_clear(d: Scalar, s: Scalar, whole: bool) -> RawPair:
    """Learn that all the bits of the known operand are clear."""
    if _known(s, whole):
        return without_bits(d, s, whole), s.parts()
    if _known(d, whole):
        return d.parts(), without_bits(s, d, whole)
    return d.parts(), s.parts()


def without_bits(d: Scalar, s: Scalar, whole: bool) -> Parts:
    """Return d with the bits of s clear; it forgets its ranges, as the kernel does, and what follows derives them from
    the bits.
    """
    keep = ~(s.value if whole else s.value & HALF_MAX)
    return d.value & keep, d.mask & keep, 0, MAX, SMIN, SMAX, 0, HALF_MAX, HALF_SMIN, HALF_SMAX


def narrow_ule(d: Scalar, s: Scalar, whole: bool) -> RawPair:
    """Bound d from above and s from below, unsigned."""
    return _ordered_unsigned(d, s, whole, 0)


def narrow_ult(d: Scalar, s: Scalar, whole: bool) -> RawPair:
    """As narrow_ule, without the equal numbers."""
    return _ordered_unsigned(d, s, whole, 1)


def narrow_sle(d: Scalar, s: Scalar, whole: bool) -> RawPair:
    """Bound d from above and s from below, signed."""
    return _ordered_signed(d, s, whole, 0)


def narrow_slt(d: Scalar, s: Scalar, whole: bool) -> RawPair:
    """As narrow_sle, without the equal numbers."""
    return _ordered_signed(d, s, whole, 1)


def _ordered_unsigned(d: Scalar, s: Scalar, whole: bool, apart: int) -> RawPair:
    high, low, high32, low32 = d.umax, s.umin, d.umax32, s.umin32
    if whole:
        if s.umax - apart < high:
            high = s.umax - apart
        if d.umin + apart > low:
            low = d.umin + apart
    else:
        if s.umax32 - apart < high32:
            high32 = s.umax32 - apart
        if d.umin32 + apart > low32:
            low32 = d.umin32 + apart
    return (
        (d.value, d.mask, d.umin, high, d.smin, d.smax, d.umin32, high32, d.smin32, d.smax32),
        (s.value, s.mask, low, s.umax, s.smin, s.smax, low32, s.umax32, s.smin32, s.smax32),
    )


def _ordered_signed(d: Scalar, s: Scalar, whole: bool, apart: int) -> RawPair:
    high, low, high32, low32 = d.smax, s.smin, d.smax32, s.smin32
    if whole:
        if s.smax - apart < high:
            high = s.smax - apart
        if d.smin + apart > low:
            low = d.smin + apart
    else:
        if s.smax32 - apart < high32:
            high32 = s.smax32 - apart
        if d.smin32 + apart > low32:
            low32 = d.smin32 + apart
    return (
        (d.value, d.mask, d.umin, d.umax, d.smin, high, d.umin32, d.umax32, d.smin32, high32),
        (s.value, s.mask, s.umin, s.umax, low, s.smax, s.umin32, s.umax32, low32, s.smax32),
    )


def _known(number: Scalar, whole: bool) -> bool:
    return not number.mask if whole else not number.mask & HALF_MAX


def _swapped(narrow: Narrow) -> Narrow:
    def swapped(d: Scalar, s: Scalar, whole: bool) -> RawPair:
        right, left = narrow(s, d, whole)
        return left, right

    return swapped


narrow_uge, narrow_ugt = _swapped(narrow_ule), _swapped(narrow_ult)
narrow_sge, narrow_sgt = _swapped(narrow_sle), _swapped(narrow_slt)

WAYS: dict[str, tuple[Narrow, Narrow]] = {
    "JEQ": (narrow_eq, narrow_ne),
    "JNE": (narrow_ne, narrow_eq),
    "JSET": (narrow_set, narrow_clear),
    "JGT": (narrow_ugt, narrow_ule),
    "JGE": (narrow_uge, narrow_ult),
    "JLT": (narrow_ult, narrow_uge),
    "JLE": (narrow_ule, narrow_ugt),
    "JSGT": (narrow_sgt, narrow_sle),
    "JSGE": (narrow_sge, narrow_slt),
    "JSLT": (narrow_slt, narrow_sge),
    "JSLE": (narrow_sle, narrow_sgt),
}
"""What holds where the jump is taken, and what where it is not."""

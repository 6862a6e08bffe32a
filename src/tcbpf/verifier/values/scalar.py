"""What is known of a number in a register: its bits (a tnum) and four ranges, each learning from the others.

A `Scalar` stands for every x that is a member of its tnum, lies in [umin, umax] as an unsigned and in [smin, smax]
as a signed number, and whose lower half does so in [umin32, umax32] and [smin32, smax32]. `sync` makes each part as
narrow as the others allow, in the kernel's steps and in its order, so that what is printed is what the kernel
prints. Every step is sound: it drops no number that the parts together allow. The proofs run this source at 8, 32
and 64 bits; `BITS` is the only thing they change.

Source:  kernel/bpf/verifier.c, reg_bounds_sync(); kernel/bpf/log.c, print_scalar_ranges() (v6.18.44).
"""

from __future__ import annotations

from functools import lru_cache

from tcbpf.verifier.values.tnum import (
    BITS,
    HALF_BITS,
    HALF_MAX,
    HALF_SIGN,
    MAX,
    SIGN,
    Tnum,
    cast,
    intersect,
    span,
    step,
)

SMIN, SMAX = -SIGN, SIGN - 1
HALF_SMIN, HALF_SMAX = -HALF_SIGN, HALF_SIGN - 1
HIGH = MAX ^ HALF_MAX

Parts = tuple[int, int, int, int, int, int, int, int, int, int]
"""value, mask, umin, umax, smin, smax, umin32, umax32, smin32, smax32: the order used everywhere in this room."""


class Scalar:
    """A number, as far as it is known. Never changed once made; made by `const`, `sync` and what builds on them.

    Units:   value, mask and the u bounds are unsigned; the s bounds signed; the 32 ones are of the lower half.
    """

    __slots__ = ("mask", "smax", "smax32", "smin", "smin32", "umax", "umax32", "umin", "umin32", "value")

    def __init__(
        self,
        value: int,
        mask: int,
        umin: int,
        umax: int,
        smin: int,
        smax: int,
        umin32: int,
        umax32: int,
        smin32: int,
        smax32: int,
    ) -> None:
        self.value = value
        self.mask = mask
        self.umin = umin
        self.umax = umax
        self.smin = smin
        self.smax = smax
        self.umin32 = umin32
        self.umax32 = umax32
        self.smin32 = smin32
        self.smax32 = smax32

    @property
    def var_off(self) -> Tnum:
        """The known bits."""
        return Tnum(self.value, self.mask)

    @property
    def is_const(self) -> bool:
        """Whether it is one number, which `value` then is."""
        return not self.mask

    @property
    def is_const32(self) -> bool:
        """Whether its lower half is one number."""
        return not self.mask & HALF_MAX

    def parts(self) -> Parts:
        """Return all that is known, in the order of the constructor."""
        return (
            self.value,
            self.mask,
            self.umin,
            self.umax,
            self.smin,
            self.smax,
            self.umin32,
            self.umax32,
            self.smin32,
            self.smax32,
        )

    def contains(self, number: int) -> bool:
        """Return whether the number, taken modulo 2**64, may be in the register."""
        number &= MAX
        half = number & HALF_MAX
        return (
            number & ~self.mask == self.value
            and self.umin <= number <= self.umax
            and self.smin <= (number ^ SIGN) - SIGN <= self.smax
            and self.umin32 <= half <= self.umax32
            and self.smin32 <= (half ^ HALF_SIGN) - HALF_SIGN <= self.smax32
        )

    def covers(self, other: Scalar) -> bool:
        """Return whether each part of this holds the same part of the other (the kernel's range_within and tnum_in)."""
        return self is other or (
            not other.mask & ~self.mask
            and self.value == other.value & ~self.mask
            and self.umin <= other.umin
            and self.umax >= other.umax
            and self.smin <= other.smin
            and self.smax >= other.smax
            and self.umin32 <= other.umin32
            and self.umax32 >= other.umax32
            and self.smin32 <= other.smin32
            and self.smax32 >= other.smax32
        )

    def ranges(self) -> str:
        """Return the comma-separated bounds and bits as the kernel prints them, without those that say nothing.

        Equal bounds share one figure (smin=umin=3), though never a negative one with an unsigned.
        """
        fields = (
            ("smin", self.smin, SMIN),
            ("smax", self.smax, SMAX),
            ("umin", self.umin, 0),
            ("umax", self.umax, MAX),
            ("smin32", _printed32(self.smin32), _printed32(HALF_SMIN)),
            ("smax32", _printed32(self.smax32), _printed32(HALF_SMAX)),
            ("umin32", self.umin32, 0),
            ("umax32", self.umax32, HALF_MAX),
        )
        left = [(name, number) for name, number, silent in fields if number != silent]
        texts = []
        while left:
            name, number = left[0]
            # Only bounds of one side are told together: minima with minima, maxima with maxima.
            equal = [other for other, same in left if same == number and other[1:4] == name[1:4]]
            left = [(other, same) for other, same in left if other not in equal]
            write = format_signed if name[0] == "s" else format_unsigned
            texts.append("=".join(equal) + "=" + write(number))
        if self.mask != MAX:
            texts.append(f"var_off={self.var_off}")
        return ",".join(texts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Scalar) and self.parts() == other.parts()

    def __hash__(self) -> int:
        return hash(self.parts())

    def __str__(self) -> str:
        return f"scalar({self.ranges()})" if self.mask else format_signed(self.value)

    __repr__ = __str__


def format_unsigned(number: int) -> str:
    """Return the number as the kernel writes an unsigned one: decimal up to 65535, else hexadecimal."""
    return str(number) if number <= 0xFFFF else f"{number:#x}"


def format_signed(number: int) -> str:
    """Return the number, given signed or not, as the kernel writes a signed one: decimal when it fits 16 bits, else
    hexadecimal.
    """
    signed = ((number & MAX) ^ SIGN) - SIGN
    return str(signed) if -0x8000 <= signed <= 0x7FFF else f"{number & MAX:#x}"


def _printed32(number: int) -> int:
    return number if -0x8000 <= number <= 0x7FFF else number & HALF_MAX


# --- making one ------------------------------------------------------------------------------------------------------

UNKNOWN = Scalar(0, MAX, 0, MAX, SMIN, SMAX, 0, HALF_MAX, HALF_SMIN, HALF_SMAX)
"""Any number at all."""


@lru_cache(maxsize=1 << 16)
def const(number: int) -> Scalar:
    """Return the scalar of one number, taken modulo 2**64."""
    value = number & MAX
    half = value & HALF_MAX
    signed, signed32 = (value ^ SIGN) - SIGN, (half ^ HALF_SIGN) - HALF_SIGN
    return Scalar(value, 0, value, value, signed, signed, half, half, signed32, signed32)


def bounded(
    old: Scalar,
    *,
    umin: int = 0,
    umax: int = MAX,
    smin: int = SMIN,
    smax: int = SMAX,
    umin32: int = 0,
    umax32: int = HALF_MAX,
    smin32: int = HALF_SMIN,
    smax32: int = HALF_SMAX,
) -> Scalar:
    """Return what is left of old within the bounds given."""
    return sync(
        old.value,
        old.mask,
        max(umin, old.umin),
        min(umax, old.umax),
        max(smin, old.smin),
        min(smax, old.smax),
        max(umin32, old.umin32),
        min(umax32, old.umax32),
        max(smin32, old.smin32),
        min(smax32, old.smax32),
    )


# --- one part learns from another ------------------------------------------------------------------------------------


def sync(
    value: int, mask: int, umin: int, umax: int, smin: int, smax: int, umin32: int, umax32: int, smin32: int, smax32: int
) -> Scalar:
    """Return the scalar of these parts after each has learned from the others.

    Parts that contradict each other (of code that cannot run) keep their bits and lose all bounds, as in the kernel.
    A number that is positive and fits the lower half, as most are, has one range: `sync_small` finds it at once.
    """
    if umin == umax or not mask:
        exact = const(umin if mask else value)
        if (
            exact.value & ~mask == value
            and umin <= exact.value <= umax
            and smin <= exact.smin <= smax
            and (umin32 <= exact.umin32 <= umax32 and smin32 <= exact.smin32 <= smax32)
        ):
            return exact
    top = value | mask
    high = umax if umax < top else top
    if high <= HALF_MAX and (high <= HALF_SMAX or (smin32 == HALF_SMIN and smax32 == HALF_SMAX)):
        small = sync_small(value, mask, umin, high, smin, smax, umin32, umax32, smin32, smax32)
        if small is not None:
            return small
    elif (
        mask == MAX
        and not umin
        and umax == MAX
        and smin == SMIN
        and smax == SMAX
        and (not umin32 and umax32 == HALF_MAX and smin32 == HALF_SMIN and smax32 == HALF_SMAX)
    ):
        return UNKNOWN
    return settle(*raw_sync(value, mask, umin, umax, smin, smax, umin32, umax32, smin32, smax32))


def sync_small(
    value: int, mask: int, umin: int, umax: int, smin: int, smax: int, umin32: int, umax32: int, smin32: int, smax32: int
) -> Scalar | None:
    """Return what sync does, of a number whose upper half is zero; None for what needs the long way.

    Its signed range is either the unsigned one or, when that crosses the lower half's sign, unknown.
    """
    low = umin if umin > value else value
    after = (((low | ~mask) + 1) & mask) | value
    if low & ~mask != value or not low < after <= umax:
        return None  # one number, or none: what that means is told at length
    high = umax
    if smin >= 0 and smax <= HALF_MAX:
        if smin > low:
            low = smin
        if smax < high:
            high = smax
    elif smin > low or smax < high:
        return None  # the long way forgets some of it
    if umin32 > low:
        low = umin32
    if umax32 < high:
        high = umax32
    if high <= HALF_SMAX:
        if smin32 > low:
            low = smin32
        if smax32 < high:
            high = smax32
    if low >= high:
        return None
    unknown = (1 << (low ^ high).bit_length()) - 1
    mask &= unknown
    value = (value | low & ~unknown) & ~mask
    if value > low:
        low = value
    if value | mask < high:
        high = value | mask
    after = (((low | ~mask) + 1) & mask) | value
    if low & ~mask != value or not low < after <= high:
        return None
    if high <= HALF_SMAX:
        return Scalar(value, mask, low, high, low, high, low, high, low, high)
    if low > HALF_SMAX:
        return Scalar(value, mask, low, high, low, high, low, high, low - HALF_MAX - 1, high - HALF_MAX - 1)
    smin32, smax32 = (value | HALF_SIGN) - HALF_MAX - 1, (value | mask) & HALF_SMAX
    if smax32 < low or smin32 + HALF_MAX + 1 > high:
        return None
    return Scalar(value, mask, low, high, low, high, low, high, smin32, smax32)


def raw_sync(
    value: int, mask: int, umin: int, umax: int, smin: int, smax: int, umin32: int, umax32: int, smin32: int, smax32: int
) -> Parts:
    """Return the parts after each has learned from the others: bits, bounds three times, bits."""
    parts = learn_bounds(value, mask, umin, umax, smin, smax, umin32, umax32, smin32, smax32)
    learned = deduce(*parts)
    if learned != parts:
        parts = deduce(*learned)
        if learned != parts:
            parts = deduce(*parts)
    return learn_bounds(*learn_bits(*parts))


def settle(
    value: int, mask: int, umin: int, umax: int, smin: int, smax: int, umin32: int, umax32: int, smin32: int, smax32: int
) -> Scalar:
    """Return the scalar of these parts, unbounded when no number is in all of its ranges."""
    if not mask:
        exact = const(value)
        if (
            umin == umax == value
            and smin == smax == exact.smin
            and (umin32 == umax32 == exact.umin32 and smin32 == smax32 == exact.smin32)
        ):
            return exact
        return unbounded(value, mask)
    if umin > umax or smin > smax or umin32 > umax32 or smin32 > smax32:
        return unbounded(value, mask)
    if not mask & HALF_MAX:
        half = value & HALF_MAX
        if umin32 != umax32 or umin32 != half or smin32 != smax32 or smin32 & HALF_MAX != half:
            return unbounded(value, mask)
    return Scalar(value, mask, umin, umax, smin, smax, umin32, umax32, smin32, smax32)


def unbounded(value: int, mask: int) -> Scalar:
    """Return the scalar of which only these bits are known, its bounds not derived from them."""
    return Scalar(value, mask, 0, MAX, SMIN, SMAX, 0, HALF_MAX, HALF_SMIN, HALF_SMAX)


def learn_half_bounds(
    value: int,
    mask: int,
    umin32: int,
    umax32: int,
    smin32: int,
    smax32: int,
) -> tuple[int, int, int, int]:
    """Narrow the lower half's ranges to what its bits allow: the unknown ones all 0, all 1, or the sign bit against the
    rest.
    """
    value, mask = value & HALF_MAX, mask & HALF_MAX
    low = ((value | mask & HALF_SIGN) ^ HALF_SIGN) - HALF_SIGN
    if low > smin32:
        smin32 = low
    high = ((value | mask & HALF_SMAX) ^ HALF_SIGN) - HALF_SIGN
    if high < smax32:
        smax32 = high
    if value > umin32:
        umin32 = value
    if value | mask < umax32:
        umax32 = value | mask
    return umin32, umax32, smin32, smax32


def learn_bounds(
    value: int, mask: int, umin: int, umax: int, smin: int, smax: int, umin32: int, umax32: int, smin32: int, smax32: int
) -> Parts:
    """Narrow the ranges to what the bits allow; a range with one member of the tnum in it is that number."""
    umin32, umax32, smin32, smax32 = learn_half_bounds(value, mask, umin32, umax32, smin32, smax32)
    low = ((value | mask & SIGN) ^ SIGN) - SIGN
    if low > smin:
        smin = low
    high = ((value | mask & SMAX) ^ SIGN) - SIGN
    if high < smax:
        smax = high
    if value > umin:
        umin = value
    top = value | mask
    if top < umax:
        umax = top
    after = step(value, mask, umin)
    if umin & ~mask == value:
        if after > umax:
            return const(umin).parts()
    elif after == top:
        return const(top).parts()
    elif after <= umax and step(value, mask, after) > umax:
        return const(after).parts()
    return value, mask, umin, umax, smin, smax, umin32, umax32, smin32, smax32


def learn_bits(
    value: int, mask: int, umin: int, umax: int, smin: int, smax: int, umin32: int, umax32: int, smin32: int, smax32: int
) -> Parts:
    """Learn the bits that all numbers of the unsigned ranges have in common."""
    value, mask = intersect(value, mask, *span(umin, umax))
    low, low_mask = intersect(value & HALF_MAX, mask & HALF_MAX, *span(umin32, umax32))
    return value & HIGH | low, mask & HIGH | low_mask, umin, umax, smin, smax, umin32, umax32, smin32, smax32


def deduce(
    value: int, mask: int, umin: int, umax: int, smin: int, smax: int, umin32: int, umax32: int, smin32: int, smax32: int
) -> Parts:
    """Let each range learn from the three others, once."""
    umin32, umax32, smin32, smax32 = deduce_half(umin, umax, smin, smax, umin32, umax32, smin32, smax32)
    umin, umax, smin, smax = deduce_signs(umin, umax, smin, smax)
    return deduce_whole(value, mask, umin, umax, smin, smax, umin32, umax32, smin32, smax32)


def deduce_half(
    umin: int,
    umax: int,
    smin: int,
    smax: int,
    umin32: int,
    umax32: int,
    smin32: int,
    smax32: int,
) -> tuple[int, int, int, int]:
    """Learn of the lower half from the whole number's ranges, then let its two ranges learn from each other.

    While the upper half stays the same over a range, the lower halves of its ends bound the lower half; and a range
    that crosses into the next upper half is, seen as signed, one piece when its ends are negative and then not.
    """
    low, high = umin & HALF_MAX, umax & HALF_MAX
    signed_low, signed_high = (low ^ HALF_SIGN) - HALF_SIGN, (high ^ HALF_SIGN) - HALF_SIGN
    upper_low, upper_high = umin >> HALF_BITS, umax >> HALF_BITS
    if upper_low == upper_high:
        if low > umin32:
            umin32 = low
        if high < umax32:
            umax32 = high
        if signed_low <= signed_high:
            if signed_low > smin32:
                smin32 = signed_low
            if signed_high < smax32:
                smax32 = signed_high
    u_crosses = (upper_low + 1 & HALF_MAX) == upper_high and signed_low < 0 <= signed_high

    low, high = smin & HALF_MAX, smax & HALF_MAX
    s_signed_low, s_signed_high = (low ^ HALF_SIGN) - HALF_SIGN, (high ^ HALF_SIGN) - HALF_SIGN
    upper_low, upper_high = smin >> HALF_BITS, smax >> HALF_BITS
    if upper_low == upper_high:
        if low <= high:
            if low > umin32:
                umin32 = low
            if high < umax32:
                umax32 = high
        if s_signed_low <= s_signed_high:
            if s_signed_low > smin32:
                smin32 = s_signed_low
            if s_signed_high < smax32:
                smax32 = s_signed_high
    if u_crosses:
        if signed_low > smin32:
            smin32 = signed_low
        if signed_high < smax32:
            smax32 = signed_high
    if (upper_low + 1 ^ upper_high) & HALF_MAX == 0 and s_signed_low < 0 <= s_signed_high:
        if s_signed_low > smin32:
            smin32 = s_signed_low
        if s_signed_high < smax32:
            smax32 = s_signed_high

    low, high = (umin32 ^ HALF_SIGN) - HALF_SIGN, (umax32 ^ HALF_SIGN) - HALF_SIGN
    if low <= high:
        if low > smin32:
            smin32 = low
        if high < smax32:
            smax32 = high
    low, high = smin32 & HALF_MAX, smax32 & HALF_MAX
    if low <= high:
        if low > umin32:
            umin32 = low
        if high < umax32:
            umax32 = high
    elif umax32 < low:
        smin32 = (umin32 ^ HALF_SIGN) - HALF_SIGN
        if high < umax32:
            umax32 = high
    elif high < umin32:
        smax32 = (umax32 ^ HALF_SIGN) - HALF_SIGN
        if low > umin32:
            umin32 = low
    return umin32, umax32, smin32, smax32


def deduce_signs(umin: int, umax: int, smin: int, smax: int) -> tuple[int, int, int, int]:
    """Let the unsigned and the signed range learn from each other.

    A range on one side of the sign means the same in both. A signed range over zero is two pieces of the unsigned
    numbers; when the unsigned range meets but one of them, that piece bounds both.
    """
    low, high = (umin ^ SIGN) - SIGN, (umax ^ SIGN) - SIGN
    if low <= high:
        if low > smin:
            smin = low
        if high < smax:
            smax = high
    low, high = smin & MAX, smax & MAX
    if low <= high:
        if low > umin:
            umin = low
        if high < umax:
            umax = high
    elif umax < low:
        smin = (umin ^ SIGN) - SIGN
        if high < umax:
            umax = high
    elif high < umin:
        smax = (umax ^ SIGN) - SIGN
        if low > umin:
            umin = low
    return umin, umax, smin, smax


def deduce_whole(
    value: int, mask: int, umin: int, umax: int, smin: int, smax: int, umin32: int, umax32: int, smin32: int, smax32: int
) -> Parts:
    """Put the lower half's bounds under the upper halves of the whole number's; and undo a sign extension of what is
    positive.
    """
    bound = umin & HIGH | umin32
    if bound > umin:
        umin = bound
    bound = umax & HIGH | umax32
    if bound < umax:
        umax = bound
    bound = (smin & ~HALF_MAX) | umin32
    if bound > smin:
        smin = bound
    bound = (smax & ~HALF_MAX) | umax32
    if bound < smax:
        smax = bound
    if smin32 >= 0 and smin >= HALF_SMIN and smax <= HALF_SMAX:
        smin = umin = smin32
        smax, umax = smax32, smax32 & MAX
        value, mask = intersect(value, mask, *span(umin, umax))
    return value, mask, umin, umax, smin, smax, umin32, umax32, smin32, smax32


# --- narrowing to a size ---------------------------------------------------------------------------------------------


def zero_extend_half(value: int, mask: int, umin32: int, umax32: int, smin32: int, smax32: int) -> Scalar:
    """Return the number whose lower half is known so and whose upper half is zero."""
    smin, smax = smin32, smax32
    if smin32 < 0 or smax32 < 0:
        smin, smax = 0, HALF_MAX
    return sync(value & HALF_MAX, mask & HALF_MAX, umin32, umax32, smin, smax, umin32, umax32, smin32, smax32)


def truncate(old: Scalar, bits: int) -> Scalar:
    """Return the low bits of old, zero above them: a load or a store of that size."""
    if bits >= BITS:
        return old
    top = (1 << bits) - 1
    value, mask = cast(old.value, old.mask, bits)
    umin, umax = 0, top
    if old.umin >> bits == old.umax >> bits:
        umin, umax = old.umin & top, old.umax & top
    if bits < HALF_BITS:
        return sync(value, mask, umin, umax, umin, umax, 0, HALF_MAX, HALF_SMIN, HALF_SMAX)
    return sync(value, mask, umin, umax, umin, umax, old.umin32, old.umax32, old.smin32, old.smax32)


def sign_extend(old: Scalar, bits: int) -> Scalar:
    """Return the low bits of old, taken as signed, as a whole number; not synced, as in the kernel."""
    if bits >= BITS:
        return old
    sign = 1 << (bits - 1)
    if not old.mask:
        return const(((old.value & (1 << bits) - 1) ^ sign) - sign)
    if old.smin >> bits == old.smax >> bits:
        low = ((old.smin & (1 << bits) - 1) ^ sign) - sign
        high = ((old.smax & (1 << bits) - 1) ^ sign) - sign
        if low > high:
            low, high = high, low
        if (low < 0) == (high < 0):
            value, mask = span(low & MAX, high & MAX)
            return settle(value, mask, low & MAX, high & MAX, low, high, low & HALF_MAX, high & HALF_MAX, low, high)
    return Scalar(0, MAX, 0, MAX, -sign, sign - 1, 0, HALF_MAX, -sign, sign - 1)


def sign_extend_half(old: Scalar, bits: int) -> Scalar:
    """Return the low bits of old, taken as signed, as a lower half under an upper half of zero."""
    sign = 1 << (bits - 1)
    if not old.mask:
        return const((((old.value & (1 << bits) - 1) ^ sign) - sign) & HALF_MAX)
    if old.smin32 >> bits == old.smax32 >> bits:
        low = ((old.smin32 & (1 << bits) - 1) ^ sign) - sign
        high = ((old.smax32 & (1 << bits) - 1) ^ sign) - sign
        if low > high:
            low, high = high, low
        if (low < 0) == (high < 0):
            value, mask = span(low & MAX, high & MAX)
            return zero_extend_half(value, mask, low & HALF_MAX, high & HALF_MAX, low, high)
    return zero_extend_half(0, HALF_MAX, 0, HALF_MAX, -sign, sign - 1)

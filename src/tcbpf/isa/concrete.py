"""The algebra of Python ints, over which interpreters read instruction rows."""

from __future__ import annotations

from functools import lru_cache


class Concrete:
    """Unsigned integers of `width` bits; every result is masked, conditions are bools.

    Source:  tables.insns.Algebra, which states each operation.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.mask = (1 << width) - 1
        self.sign = 1 << (width - 1)

    def const(self, value: int) -> int:
        return value & self.mask

    def signed(self, a: int) -> int:
        """Return `a` read as two's complement."""
        return (a ^ self.sign) - self.sign

    def select(self, cond: bool, yes: int, no: int) -> int:
        return yes if cond else no

    def add(self, a: int, b: int) -> int:
        return (a + b) & self.mask

    def sub(self, a: int, b: int) -> int:
        return (a - b) & self.mask

    def mul(self, a: int, b: int) -> int:
        return (a * b) & self.mask

    def udiv(self, a: int, b: int) -> int:
        return a // b

    def umod(self, a: int, b: int) -> int:
        return a % b

    def sdiv(self, a: int, b: int) -> int:
        x, y = self.signed(a), self.signed(b)
        quotient = abs(x) // abs(y)
        return (quotient if (x < 0) == (y < 0) else -quotient) & self.mask

    def smod(self, a: int, b: int) -> int:
        x, y = self.signed(a), self.signed(b)
        rest = abs(x) % abs(y)
        return (-rest if x < 0 else rest) & self.mask

    def or_(self, a: int, b: int) -> int:
        return a | b

    def and_(self, a: int, b: int) -> int:
        return a & b

    def xor(self, a: int, b: int) -> int:
        return a ^ b

    def shift(self, s: int) -> int:
        return s & (self.width - 1)

    def lsh(self, a: int, s: int) -> int:
        return (a << s) & self.mask

    def rsh(self, a: int, s: int) -> int:
        return a >> s

    def arsh(self, a: int, s: int) -> int:
        return (self.signed(a) >> s) & self.mask

    def neg(self, a: int) -> int:
        return -a & self.mask

    def sext(self, a: int, bits: int) -> int:
        low, sign = a & ((1 << bits) - 1), 1 << (bits - 1)
        return ((low ^ sign) - sign) & self.mask

    def zext(self, a: int, bits: int) -> int:
        return a & ((1 << bits) - 1)

    def bswap(self, a: int, bits: int) -> int:
        low = a & ((1 << bits) - 1)
        return int.from_bytes(low.to_bytes(bits // 8, "little"), "big")

    def eq(self, a: int, b: int) -> bool:
        return a == b

    def ne(self, a: int, b: int) -> bool:
        return a != b

    def ugt(self, a: int, b: int) -> bool:
        return a > b

    def uge(self, a: int, b: int) -> bool:
        return a >= b

    def ult(self, a: int, b: int) -> bool:
        return a < b

    def ule(self, a: int, b: int) -> bool:
        return a <= b

    def sgt(self, a: int, b: int) -> bool:
        return self.signed(a) > self.signed(b)

    def sge(self, a: int, b: int) -> bool:
        return self.signed(a) >= self.signed(b)

    def slt(self, a: int, b: int) -> bool:
        return self.signed(a) < self.signed(b)

    def sle(self, a: int, b: int) -> bool:
        return self.signed(a) <= self.signed(b)

    def test(self, a: int, b: int) -> bool:
        return a & b != 0


@lru_cache(maxsize=2)
def concrete(width: int) -> Concrete:
    """Return the algebra of that width."""
    return Concrete(width)

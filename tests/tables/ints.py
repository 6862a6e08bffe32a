"""The rows' algebra over Python ints: unsigned numbers of `width` bits, True and False."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Ints:
    """Concrete arithmetic, for reading rows in tests."""

    width: int

    @property
    def mask(self) -> int:
        return (1 << self.width) - 1

    def signed(self, a: int) -> int:
        return a - (1 << self.width) if a >> (self.width - 1) else a

    def const(self, value: int) -> int:
        return value & self.mask

    def select(self, cond: bool, yes: int, no: int) -> int:
        return yes if cond else no

    def add(self, a: int, b: int) -> int:
        return a + b & self.mask

    def sub(self, a: int, b: int) -> int:
        return a - b & self.mask

    def mul(self, a: int, b: int) -> int:
        return a * b & self.mask

    def udiv(self, a: int, b: int) -> int:
        return a // b

    def umod(self, a: int, b: int) -> int:
        return a % b

    def sdiv(self, a: int, b: int) -> int:
        x, y = self.signed(a), self.signed(b)
        quotient = abs(x) // abs(y)
        return (-quotient if (x < 0) != (y < 0) else quotient) & self.mask

    def smod(self, a: int, b: int) -> int:
        x, y = self.signed(a), self.signed(b)
        return (-(-x % abs(y)) if x < 0 else x % abs(y)) & self.mask

    def or_(self, a: int, b: int) -> int:
        return a | b

    def and_(self, a: int, b: int) -> int:
        return a & b

    def xor(self, a: int, b: int) -> int:
        return a ^ b

    def shift(self, s: int) -> int:
        return s % self.width

    def lsh(self, a: int, s: int) -> int:
        return a << s & self.mask

    def rsh(self, a: int, s: int) -> int:
        return a >> s

    def arsh(self, a: int, s: int) -> int:
        return self.signed(a) >> s & self.mask

    def neg(self, a: int) -> int:
        return -a & self.mask

    def sext(self, a: int, bits: int) -> int:
        low = a & (1 << bits) - 1
        return (low - (1 << bits) if low >> (bits - 1) else low) & self.mask

    def zext(self, a: int, bits: int) -> int:
        return a & (1 << bits) - 1

    def bswap(self, a: int, bits: int) -> int:
        return int.from_bytes(self.zext(a, bits).to_bytes(bits // 8, "little"), "big")

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

"""The rows over z3 bit-vectors: what an operation gives, exactly. The same row functions as everywhere, a fifth reader."""

from __future__ import annotations

from typing import Any

import z3


class Smt:
    """The Algebra of z3 terms of `width` bits; conditions are z3 ones."""

    def __init__(self, width: int) -> None:
        self.width = width

    def const(self, value: int) -> Any:
        return z3.BitVecVal(value, self.width)

    def select(self, cond: Any, yes: Any, no: Any) -> Any:
        return z3.If(cond, yes, no)

    def add(self, a: Any, b: Any) -> Any:
        return a + b

    def sub(self, a: Any, b: Any) -> Any:
        return a - b

    def mul(self, a: Any, b: Any) -> Any:
        return a * b

    def udiv(self, a: Any, b: Any) -> Any:
        return z3.UDiv(a, b)

    def umod(self, a: Any, b: Any) -> Any:
        return z3.URem(a, b)

    def sdiv(self, a: Any, b: Any) -> Any:
        return a / b

    def smod(self, a: Any, b: Any) -> Any:
        return z3.SRem(a, b)

    def or_(self, a: Any, b: Any) -> Any:
        return a | b

    def and_(self, a: Any, b: Any) -> Any:
        return a & b

    def xor(self, a: Any, b: Any) -> Any:
        return a ^ b

    def shift(self, s: Any) -> Any:
        return s & self.width - 1

    def lsh(self, a: Any, s: Any) -> Any:
        return a << s

    def rsh(self, a: Any, s: Any) -> Any:
        return z3.LShR(a, s)

    def arsh(self, a: Any, s: Any) -> Any:
        return a >> s

    def neg(self, a: Any) -> Any:
        return -a

    def sext(self, a: Any, bits: int) -> Any:
        return z3.SignExt(self.width - bits, z3.Extract(bits - 1, 0, a))

    def zext(self, a: Any, bits: int) -> Any:
        return z3.ZeroExt(self.width - bits, z3.Extract(bits - 1, 0, a))

    def bswap(self, a: Any, bits: int) -> Any:
        swapped = z3.Concat(*(z3.Extract(low + 7, low, a) for low in range(0, bits, 8)))
        return z3.ZeroExt(self.width - bits, swapped)

    def eq(self, a: Any, b: Any) -> Any:
        return a == b

    def ne(self, a: Any, b: Any) -> Any:
        return a != b

    def ugt(self, a: Any, b: Any) -> Any:
        return z3.UGT(a, b)

    def uge(self, a: Any, b: Any) -> Any:
        return z3.UGE(a, b)

    def ult(self, a: Any, b: Any) -> Any:
        return z3.ULT(a, b)

    def ule(self, a: Any, b: Any) -> Any:
        return z3.ULE(a, b)

    def sgt(self, a: Any, b: Any) -> Any:
        return a > b

    def sge(self, a: Any, b: Any) -> Any:
        return a >= b

    def slt(self, a: Any, b: Any) -> Any:
        return a < b

    def sle(self, a: Any, b: Any) -> Any:
        return a <= b

    def test(self, a: Any, b: Any) -> Any:
        return (a & b) != 0

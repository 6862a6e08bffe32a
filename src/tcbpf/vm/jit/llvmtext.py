"""The algebra of LLVM IR text: each operation writes one or more lines and returns the name of its value.

Text, not a builder: a line costs about a microsecond, an instruction object twenty.
"""

from __future__ import annotations


class Writer:
    """The lines of one LLVM function, and fresh names for its values."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._count = 0

    def fresh(self) -> str:
        """Return a value name that was not used before."""
        self._count += 1
        return f"%v{self._count}"

    def label(self) -> str:
        """Return a label that was not used before."""
        self._count += 1
        return f"l{self._count}"

    def emit(self, line: str) -> None:
        """Write a line that defines nothing."""
        self.lines.append(line)

    def value(self, text: str) -> str:
        """Write `name = text` and return the name."""
        name = self.fresh()
        self.lines.append(f"{name} = {text}")
        return name

    def start(self, label: str) -> None:
        """Begin a basic block."""
        self.lines.append(f"{label}:")


class Llvm:
    """Values are names or decimal constants of an integer type of `width` bits; conditions are i1.

    Source:  tables.insns.Algebra. Every operation is defined for all inputs: LLVM's undefined cases (a signed division
             that overflows) are selected away here, the divisor zero and long shifts by the rows.
    """

    def __init__(self, out: Writer, width: int) -> None:
        self.out, self.width, self.type = out, width, f"i{width}"

    def const(self, value: int) -> str:
        value &= (1 << self.width) - 1
        return str(value - (1 << self.width) if value >> (self.width - 1) else value)

    def _op(self, name: str, a: str, b: str) -> str:
        return self.out.value(f"{name} {self.type} {a}, {b}")

    def select(self, cond: str, yes: str, no: str) -> str:
        return self.out.value(f"select i1 {cond}, {self.type} {yes}, {self.type} {no}")

    def add(self, a: str, b: str) -> str:
        return self._op("add", a, b)

    def sub(self, a: str, b: str) -> str:
        return self._op("sub", a, b)

    def mul(self, a: str, b: str) -> str:
        return self._op("mul", a, b)

    def udiv(self, a: str, b: str) -> str:
        return self._op("udiv", a, b)

    def umod(self, a: str, b: str) -> str:
        return self._op("urem", a, b)

    def _unless_minus_one(self, b: str) -> tuple[str, str]:
        minus_one = self.eq(b, "-1")
        return minus_one, self.select(minus_one, "1", b)

    def sdiv(self, a: str, b: str) -> str:
        minus_one, divisor = self._unless_minus_one(b)
        return self.select(minus_one, self.neg(a), self._op("sdiv", a, divisor))

    def smod(self, a: str, b: str) -> str:
        return self._op("srem", a, self._unless_minus_one(b)[1])

    def or_(self, a: str, b: str) -> str:
        return self._op("or", a, b)

    def and_(self, a: str, b: str) -> str:
        return self._op("and", a, b)

    def xor(self, a: str, b: str) -> str:
        return self._op("xor", a, b)

    def shift(self, s: str) -> str:
        return self._op("and", s, str(self.width - 1))

    def lsh(self, a: str, s: str) -> str:
        return self._op("shl", a, s)

    def rsh(self, a: str, s: str) -> str:
        return self._op("lshr", a, s)

    def arsh(self, a: str, s: str) -> str:
        return self._op("ashr", a, s)

    def neg(self, a: str) -> str:
        return self._op("sub", "0", a)

    def _narrow(self, a: str, bits: int) -> str:
        return self.out.value(f"trunc {self.type} {a} to i{bits}")

    def sext(self, a: str, bits: int) -> str:
        return a if bits == self.width else self.out.value(f"sext i{bits} {self._narrow(a, bits)} to {self.type}")

    def zext(self, a: str, bits: int) -> str:
        return a if bits == self.width else self.out.value(f"zext i{bits} {self._narrow(a, bits)} to {self.type}")

    def bswap(self, a: str, bits: int) -> str:
        if bits == self.width:
            return self.out.value(f"call i{bits} @llvm.bswap.i{bits}(i{bits} {a})")
        swapped = self.out.value(f"call i{bits} @llvm.bswap.i{bits}(i{bits} {self._narrow(a, bits)})")
        return self.out.value(f"zext i{bits} {swapped} to {self.type}")

    def _compare(self, how: str, a: str, b: str) -> str:
        return self.out.value(f"icmp {how} {self.type} {a}, {b}")

    def eq(self, a: str, b: str) -> str:
        return self._compare("eq", a, b)

    def ne(self, a: str, b: str) -> str:
        return self._compare("ne", a, b)

    def ugt(self, a: str, b: str) -> str:
        return self._compare("ugt", a, b)

    def uge(self, a: str, b: str) -> str:
        return self._compare("uge", a, b)

    def ult(self, a: str, b: str) -> str:
        return self._compare("ult", a, b)

    def ule(self, a: str, b: str) -> str:
        return self._compare("ule", a, b)

    def sgt(self, a: str, b: str) -> str:
        return self._compare("sgt", a, b)

    def sge(self, a: str, b: str) -> str:
        return self._compare("sge", a, b)

    def slt(self, a: str, b: str) -> str:
        return self._compare("slt", a, b)

    def sle(self, a: str, b: str) -> str:
        return self._compare("sle", a, b)

    def test(self, a: str, b: str) -> str:
        return self._compare("ne", self._op("and", a, b), "0")


INTRINSICS = "\n".join(
    [
        *(f"declare i{bits} @llvm.bswap.i{bits}(i{bits})" for bits in (16, 32, 64)),
        "declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)",
    ]
)
"""What a module that holds text of this algebra declares."""

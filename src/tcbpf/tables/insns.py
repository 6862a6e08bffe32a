"""Instructions and their meaning: the one table that the assembler, verifier, engines, loader and docs read.

The meaning of an ALU operation or a condition is a function over an `Algebra`: read over Python ints it is the interpreter,
over LLVM text the JIT, over tnum and ranges the verifier, over z3 terms the proofs. Memory, calls, branch refinement and
pointer arithmetic do not fit in a row; each reader implements them itself, switching on `Op.kind`.

Source:  RFC 9669; include/uapi/linux/bpf.h; kernel/bpf/core.c (v6.18).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any, NamedTuple, Protocol

from tcbpf.tables import opcodes
from tcbpf.tables.opcodes import (
    ABS,
    ALU32,
    ALU64,
    ATOMIC,
    CALL,
    CLASS,
    EXIT,
    IMM,
    IND,
    JA,
    JCOND,
    JMP,
    JMP32,
    LD,
    LDX,
    MEM,
    MEMSX,
    MODE,
    OPERATION,
    PSEUDO_CALL,
    PSEUDO_KFUNC_CALL,
    SIZE,
    SIZE_BYTES,
    STX,
    K,
    X,
)
from tcbpf.tables.row import Release, Table


class Algebra(Protocol):
    """The operations that rows are written in. Values have `width` bits (32 or 64) and no sign of their own.

    Every method is total: udiv, umod, sdiv, smod are only ever asked for a divisor that `select` has excluded from being
    zero; shift amounts come from `shift()`, so they are below the width. sdiv and smod truncate towards zero, and the smallest
    number divided by -1 is itself, remainder 0.
    """

    width: int

    def const(self, value: int) -> Any: ...
    def select(self, cond: Any, yes: Any, no: Any) -> Any: ...
    def add(self, a: Any, b: Any) -> Any: ...
    def sub(self, a: Any, b: Any) -> Any: ...
    def mul(self, a: Any, b: Any) -> Any: ...
    def udiv(self, a: Any, b: Any) -> Any: ...
    def umod(self, a: Any, b: Any) -> Any: ...
    def sdiv(self, a: Any, b: Any) -> Any: ...
    def smod(self, a: Any, b: Any) -> Any: ...
    def or_(self, a: Any, b: Any) -> Any: ...
    def and_(self, a: Any, b: Any) -> Any: ...
    def xor(self, a: Any, b: Any) -> Any: ...
    def shift(self, s: Any) -> Any: ...                      # the amount modulo the width
    def lsh(self, a: Any, s: Any) -> Any: ...
    def rsh(self, a: Any, s: Any) -> Any: ...
    def arsh(self, a: Any, s: Any) -> Any: ...
    def neg(self, a: Any) -> Any: ...
    def sext(self, a: Any, bits: int) -> Any: ...            # sign-extend the low bits to the width
    def zext(self, a: Any, bits: int) -> Any: ...            # keep the low bits
    def bswap(self, a: Any, bits: int) -> Any: ...           # reverse the bytes of the low bits, zero the rest
    def eq(self, a: Any, b: Any) -> Any: ...
    def ne(self, a: Any, b: Any) -> Any: ...
    def ugt(self, a: Any, b: Any) -> Any: ...
    def uge(self, a: Any, b: Any) -> Any: ...
    def ult(self, a: Any, b: Any) -> Any: ...
    def ule(self, a: Any, b: Any) -> Any: ...
    def sgt(self, a: Any, b: Any) -> Any: ...
    def sge(self, a: Any, b: Any) -> Any: ...
    def slt(self, a: Any, b: Any) -> Any: ...
    def sle(self, a: Any, b: Any) -> Any: ...
    def test(self, a: Any, b: Any) -> Any: ...               # a & b != 0


@dataclass(frozen=True, slots=True)
class Alu:
    """An ALU operation: `fn(algebra, dst, src)` is the new dst; a 32-bit one zeroes the upper half.

    Units:   code is the high nibble of the opcode; off tells operations of one code apart (SDIV is DIV with off 1).
    """

    name: str
    code: int
    symbol: str                                              # the kernel's text: "+=", "s/="
    fn: Callable[[Any, Any, Any], Any]
    off: int = 0
    unary: bool = False
    reg_only: bool = False                                   # exists with a register operand only
    widths: tuple[int, ...] = (64, 32)
    since: Release = (3, 18)
    source: str = "RFC 9669, 4.1"


def _div(zero: Callable[[Any, Any], Any], divide: str) -> Callable[[Any, Any, Any], Any]:
    """Return a division that gives `zero` when the divisor is zero; the divisor is then replaced by one, to stay total."""

    def fn(a: Any, d: Any, s: Any) -> Any:
        is_zero = a.eq(s, a.const(0))
        return a.select(is_zero, zero(a, d), getattr(a, divide)(d, a.select(is_zero, a.const(1), s)))

    return fn


def _table_key(row: Alu) -> object:
    return row.code, row.off


ALU = Table(
    Alu("ADD", 0x0, "+=", lambda a, d, s: a.add(d, s)),
    Alu("SUB", 0x1, "-=", lambda a, d, s: a.sub(d, s)),
    Alu("MUL", 0x2, "*=", lambda a, d, s: a.mul(d, s)),
    Alu("DIV", 0x3, "/=", _div(lambda a, d: a.const(0), "udiv")),
    Alu("SDIV", 0x3, "s/=", _div(lambda a, d: a.const(0), "sdiv"), off=1, since=(6, 6)),
    Alu("OR", 0x4, "|=", lambda a, d, s: a.or_(d, s)),
    Alu("AND", 0x5, "&=", lambda a, d, s: a.and_(d, s)),
    Alu("LSH", 0x6, "<<=", lambda a, d, s: a.lsh(d, a.shift(s))),
    Alu("RSH", 0x7, ">>=", lambda a, d, s: a.rsh(d, a.shift(s))),
    Alu("NEG", 0x8, "-", lambda a, d, s: a.neg(d), unary=True),
    Alu("MOD", 0x9, "%=", _div(lambda a, d: d, "umod")),
    Alu("SMOD", 0x9, "s%=", _div(lambda a, d: d, "smod"), off=1, since=(6, 6)),
    Alu("XOR", 0xA, "^=", lambda a, d, s: a.xor(d, s)),
    Alu("MOV", 0xB, "=", lambda a, d, s: s),
    Alu("MOVSX8", 0xB, "(s8)", lambda a, d, s: a.sext(s, 8), off=8, reg_only=True, since=(6, 6)),
    Alu("MOVSX16", 0xB, "(s16)", lambda a, d, s: a.sext(s, 16), off=16, reg_only=True, since=(6, 6)),
    Alu("MOVSX32", 0xB, "(s32)", lambda a, d, s: a.sext(s, 32), off=32, reg_only=True, widths=(64,), since=(6, 6)),
    Alu("ARSH", 0xC, "s>>=", lambda a, d, s: a.arsh(d, a.shift(s))),
    name=lambda row: row.name,
    number=_table_key,
)


@dataclass(frozen=True, slots=True)
class End:
    """A byte order operation on dst; all are computed at 64 bits, on a little-endian host.

    Units:   bits is the imm of the instruction; base is the opcode (ALU32|END, with X for be; ALU64|END for bswap).
    """

    name: str
    base: int
    bits: int
    fn: Callable[[Any, Any, Any], Any]
    since: Release = (3, 18)
    source: str = "RFC 9669, 4.2"


def _le(bits: int) -> Callable[[Any, Any, Any], Any]:
    return lambda a, d, s: a.zext(d, bits)


def _swap(bits: int) -> Callable[[Any, Any, Any], Any]:
    return lambda a, d, s: a.bswap(d, bits)


END = Table(
    *(End(f"LE{bits}", ALU32 | K | opcodes.END, bits, _le(bits)) for bits in (16, 32, 64)),
    *(End(f"BE{bits}", ALU32 | X | opcodes.END, bits, _swap(bits)) for bits in (16, 32, 64)),
    *(End(f"BSWAP{bits}", ALU64 | K | opcodes.END, bits, _swap(bits), since=(6, 6)) for bits in (16, 32, 64)),
    name=lambda row: row.name,
    number=lambda row: (row.base, row.bits),
)


@dataclass(frozen=True, slots=True)
class Jump:
    """A conditional jump: taken when `fn(algebra, dst, src)`; exists at 64 bits (JMP) and 32 (JMP32)."""

    name: str
    code: int
    symbol: str
    fn: Callable[[Any, Any, Any], Any]
    since: Release = (3, 18)                                 # JMP32 forms: 5.1
    source: str = "RFC 9669, 4.3"


JUMP = Table(
    Jump("JEQ", 0x1, "==", lambda a, d, s: a.eq(d, s)),
    Jump("JGT", 0x2, ">", lambda a, d, s: a.ugt(d, s)),
    Jump("JGE", 0x3, ">=", lambda a, d, s: a.uge(d, s)),
    Jump("JSET", 0x4, "&", lambda a, d, s: a.test(d, s)),
    Jump("JNE", 0x5, "!=", lambda a, d, s: a.ne(d, s)),
    Jump("JSGT", 0x6, "s>", lambda a, d, s: a.sgt(d, s)),
    Jump("JSGE", 0x7, "s>=", lambda a, d, s: a.sge(d, s)),
    Jump("JLT", 0xA, "<", lambda a, d, s: a.ult(d, s), since=(4, 14)),
    Jump("JLE", 0xB, "<=", lambda a, d, s: a.ule(d, s), since=(4, 14)),
    Jump("JSLT", 0xC, "s<", lambda a, d, s: a.slt(d, s), since=(4, 14)),
    Jump("JSLE", 0xD, "s<=", lambda a, d, s: a.sle(d, s), since=(4, 14)),
    name=lambda row: row.name,
    number=lambda row: row.code,
)


@dataclass(frozen=True, slots=True)
class Atomic:
    """An atomic on memory of 4 or 8 bytes at dst + off: memory becomes `fn(algebra, old, src)`.

    `fetch` returns the old value in src (in r0 for CMPXCHG, which stores src only when memory equals r0). The last two are
    ordered plain accesses of any size: LOAD_ACQ loads src + off into dst, STORE_REL stores src at dst + off.
    """

    name: str
    imm: int
    symbol: str
    fn: Callable[[Any, Any, Any], Any]
    fetch: bool = False
    sizes: tuple[int, ...] = (4, 8)
    since: Release = (5, 12)
    source: str = "RFC 9669, 5.3"


ATOMICS = Table(
    Atomic("ADD", 0x00, "+=", lambda a, d, s: a.add(d, s), since=(3, 18)),
    Atomic("OR", 0x40, "|=", lambda a, d, s: a.or_(d, s)),
    Atomic("AND", 0x50, "&=", lambda a, d, s: a.and_(d, s)),
    Atomic("XOR", 0xA0, "^=", lambda a, d, s: a.xor(d, s)),
    Atomic("FETCH_ADD", 0x01, "+=", lambda a, d, s: a.add(d, s), fetch=True),
    Atomic("FETCH_OR", 0x41, "|=", lambda a, d, s: a.or_(d, s), fetch=True),
    Atomic("FETCH_AND", 0x51, "&=", lambda a, d, s: a.and_(d, s), fetch=True),
    Atomic("FETCH_XOR", 0xA1, "^=", lambda a, d, s: a.xor(d, s), fetch=True),
    Atomic("XCHG", 0xE1, "xchg", lambda a, d, s: s, fetch=True),
    Atomic("CMPXCHG", 0xF1, "cmpxchg", lambda a, d, s: s, fetch=True),
    Atomic("LOAD_ACQ", 0x100, "load_acquire", lambda a, d, s: d, sizes=(1, 2, 4, 8), since=(6, 15), source="linux/bpf.h"),
    Atomic("STORE_REL", 0x110, "store_release", lambda a, d, s: s, sizes=(1, 2, 4, 8), since=(6, 15), source="linux/bpf.h"),
    name=lambda row: row.name,
    number=lambda row: row.imm,
)


# --- from a slot to what it is ---------------------------------------------------------------------------------------

class Kind(Enum):
    """The forms that a reader switches on."""

    ALU = "alu"                  # row: Alu or End; width 32 or 64
    JUMP = "jump"                # row: Jump; width 32 or 64; target pc + 1 + off
    JA = "ja"                    # target pc + 1 + off, or + imm for gotol (JMP32|JA); Op.long tells
    MAY_GOTO = "may_goto"        # JCOND: may jump by off
    CALL = "call"                # helper imm
    CALL_LOCAL = "call_local"    # subprogram at pc + 1 + imm
    CALL_KFUNC = "call_kfunc"    # BTF id imm
    EXIT = "exit"
    LD_IMM64 = "ld_imm64"        # two slots; src tells what the 64 bits name
    LD_ABS = "ld_abs"            # size; r0 = packet[imm], network order to host
    LD_IND = "ld_ind"            # size; r0 = packet[src + imm]
    LOAD = "load"                # size, signed; dst = *(src + off)
    STORE = "store"              # size, use_reg; *(dst + off) = src or imm
    ATOMIC = "atomic"            # size; row: Atomic


class Op(NamedTuple):
    """What one slot is. `row` is the Alu, End, Jump or Atomic that gives its meaning, or None.

    Units:   size in bytes (memory forms); width in bits (ALU and jumps).
    """

    kind: Kind
    row: Any = None
    width: int = 64
    size: int = 0
    use_reg: bool = False
    signed: bool = False         # MEMSX
    long: bool = False           # gotol
    since: Release = (3, 18)


def op_of(code: int, src: int = 0, off: int = 0, imm: int = 0) -> Op | None:
    """Return what the slot with these fields is, or None when no such instruction exists.

    Only fields that select the operation are looked at (off of ALU, imm of END and ATOMIC, src of CALL and JCOND);
    reserved fields that must be zero are the verifier's to refuse.
    """
    cls = code & CLASS
    if cls in (ALU32, ALU64):
        return _op_of(code, 0, off, imm if code & OPERATION == opcodes.END else 0)
    if cls == STX and code & MODE == ATOMIC:
        return _op_of(code, 0, 0, imm)
    if cls == JMP and code & OPERATION in (CALL, JCOND):
        return _op_of(code, src, 0, 0)
    return _op_of(code, 0, 0, 0)


@cache
def _op_of(code: int, src: int, off: int, imm: int) -> Op | None:
    cls, high, use_reg = code & CLASS, code & OPERATION, bool(code & X)
    if cls in (ALU32, ALU64):
        width = 64 if cls == ALU64 else 32
        if high == opcodes.END:
            end = END.at((code, imm))
            return Op(Kind.ALU, end, 64, since=end.since) if end and not off else None
        row = ALU.at((high >> 4, off))
        if row is None or width not in row.widths or (row.reg_only and not use_reg) or (row.unary and use_reg):
            return None
        return Op(Kind.ALU, row, width, use_reg=use_reg, since=row.since)
    if cls in (JMP, JMP32):
        return _jump_of(cls, high, use_reg, src)
    return _memory_of(code, cls, imm)


def _jump_of(cls: int, high: int, use_reg: bool, src: int) -> Op | None:
    if high == JA and not use_reg:
        return Op(Kind.JA) if cls == JMP else Op(Kind.JA, long=True, since=(6, 6))
    row = JUMP.at(high >> 4)
    if row is not None:
        width = 64 if cls == JMP else 32
        return Op(Kind.JUMP, row, width, use_reg=use_reg, since=row.since if width == 64 else (5, 1))
    if cls != JMP or use_reg:
        return None
    if high == CALL:
        kind = {0: Kind.CALL, PSEUDO_CALL: Kind.CALL_LOCAL, PSEUDO_KFUNC_CALL: Kind.CALL_KFUNC}.get(src)
        since = {0: (3, 18), PSEUDO_CALL: (4, 16), PSEUDO_KFUNC_CALL: (5, 13)}
        return Op(kind, since=since[src]) if kind else None
    if high == EXIT:
        return Op(Kind.EXIT)
    if high == JCOND and src == 0:
        return Op(Kind.MAY_GOTO, since=(6, 9))
    return None


def _memory_of(code: int, cls: int, imm: int) -> Op | None:
    mode, size = code & MODE, SIZE_BYTES[code & SIZE]
    if cls == LD:
        if mode == IMM:
            return Op(Kind.LD_IMM64, size=8) if size == 8 else None
        if mode in (ABS, IND) and size != 8:
            return Op(Kind.LD_ABS if mode == ABS else Kind.LD_IND, size=size)
        return None
    if cls == LDX:
        if mode == MEM:
            return Op(Kind.LOAD, size=size)
        return Op(Kind.LOAD, size=size, signed=True, since=(6, 6)) if mode == MEMSX and size != 8 else None
    if mode == MEM:
        return Op(Kind.STORE, size=size, use_reg=cls == STX)
    if cls == STX and mode == ATOMIC:
        row = ATOMICS.at(imm)
        return Op(Kind.ATOMIC, row, size=size, since=row.since) if row and size in row.sizes else None
    return None

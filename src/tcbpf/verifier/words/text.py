"""An instruction as the kernel prints it in its log: opcode byte in parentheses, then the text.

Source:  print_bpf_insn(), kernel/bpf/disasm.c (v6.18).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tcbpf.isa.insn import Insn
from tcbpf.tables.helpers import helper_at
from tcbpf.tables.insns import ALU, ATOMICS, Kind, op_of
from tcbpf.tables.opcodes import (
    ALU32,
    ALU64,
    ATOMIC,
    CALL,
    CLASS,
    END,
    JMP,
    MODE,
    MOV,
    NEG,
    OPERATION,
    PSEUDO_BTF_ID,
    PSEUDO_MAP_FD,
    PSEUDO_MAP_IDX,
    PSEUDO_MAP_IDX_VALUE,
    PSEUDO_MAP_VALUE,
    SIZE,
    SIZE_BYTES,
    STX,
    X,
)
from tcbpf.verifier.state.insns import ADDR_SPACE_CAST

_SIZES: Final = {1: "u8", 2: "u16", 4: "u32", 8: "u64"}


_ADDRESSES: Final = (PSEUDO_MAP_FD, PSEUDO_MAP_VALUE, PSEUDO_BTF_ID, PSEUDO_MAP_IDX, PSEUDO_MAP_IDX_VALUE)


def format_insn(insns: Sequence[Insn], pc: int) -> str:
    """Return the instruction at `pc` in the words of the kernel's log: "(b7) r0 = 0".

    Differs: the address of a map is printed as 0x0, which the kernel does for users that may not see it.
    """
    insn = insns[pc]
    op = op_of(*(insn.code, insn.src, insn.off, insn.imm))
    head = f"({insn.code:02x}) "
    if insn.code & CLASS in (ALU32, ALU64):
        return head + _alu(insn)
    if op is None:
        if insn.code & (CLASS | MODE) == STX | ATOMIC and (atomic := ATOMICS.at(insn.imm)):
            return head + _atomic(insn, SIZE_BYTES[insn.code & SIZE], atomic)
        return head + _no_jump(insn) if insn.code & CLASS == JMP else f"BUG_{insn.code:02x}"
    kind = op.kind
    if kind is Kind.JUMP:
        prefix = "w" if op.width == 32 else "r"
        right = f"{prefix}{insn.src}" if op.use_reg else f"{insn.imm:#x}" if insn.imm >= 0 else f"{insn.imm & 0xFFFFFFFF:#x}"
        return head + f"if {prefix}{insn.dst} {op.row.symbol} {right} goto pc{insn.off:+d}"
    if kind is Kind.JA:
        return head + (f"gotol pc{insn.imm:+d}" if op.long else f"goto pc{insn.off:+d}")
    if kind is Kind.MAY_GOTO:
        return head + f"may_goto pc{insn.off:+d}"
    if kind is Kind.CALL:
        row = helper_at(insn.imm)
        name = "bpf_" + row.name if row else "unknown" if insn.imm else "bpf_unspec"
        return head + f"call {name}#{insn.imm}"
    if kind is Kind.CALL_LOCAL:
        return head + f"call pc{insn.imm:+d}"
    if kind is Kind.CALL_KFUNC:
        return head + f"call kernel-function#{insn.imm}"
    if kind is Kind.EXIT:
        return head + "exit"
    if kind is Kind.LD_IMM64:
        if insn.src in _ADDRESSES or pc + 1 == len(insns):
            return head + f"r{insn.dst} = 0x0"
        return head + f"r{insn.dst} = {(insns[pc + 1].imm & 0xFFFFFFFF) << 32 | insn.imm & 0xFFFFFFFF:#x}"
    if kind in (Kind.LD_ABS, Kind.LD_IND):
        place = f"{insn.imm}" if kind is Kind.LD_ABS else f"r{insn.src} + {insn.imm}"
        return head + f"r0 = *({_SIZES[op.size]} *)skb[{place}]"
    if kind is Kind.LOAD:
        size = _SIZES[op.size].replace("u", "s") if op.signed else _SIZES[op.size]
        return head + f"r{insn.dst} = *({size} *)(r{insn.src} {insn.off:+d})"
    if kind is Kind.STORE:
        right = f"r{insn.src}" if op.use_reg else str(insn.imm)
        return head + f"*({_SIZES[op.size]} *)(r{insn.dst} {insn.off:+d}) = {right}"
    return head + _atomic(insn, op.size, op.row)


def _no_jump(insn: Insn) -> str:
    if insn.code & OPERATION == CALL:
        return f"call unknown#{insn.imm}"
    return f"if r{insn.dst} (null) {insn.imm & 0xFFFFFFFF:#x} goto pc{insn.off:+d}"


_SYMBOLS: Final = {(row.code << 4, row.off): row.symbol for row in ALU}


def _alu(insn: Insn) -> str:
    op, is64 = insn.code & OPERATION, insn.code & CLASS == ALU64
    reg = "r" if is64 else "w"
    if op == END:
        if is64:
            return f"r{insn.dst} = bswap{insn.imm} r{insn.dst}"
        return f"r{insn.dst} = {'be' if insn.code & X else 'le'}{insn.imm} r{insn.dst}"
    if op == NEG:
        return f"{reg}{insn.dst} = -{reg}{insn.dst}"
    if insn.code == ADDR_SPACE_CAST and insn.off == 1:
        return f"r{insn.dst} = addr_space_cast(r{insn.src}, {insn.imm >> 16 & 0xFFFF}, {insn.imm & 0xFFFF})"
    symbol = _SYMBOLS.get((op, insn.off)) or _SYMBOLS.get((op, 0), "")
    symbol, cast = ("=", symbol.strip("=")) if op == MOV else (symbol, "")
    if insn.code & X:
        return f"{reg}{insn.dst} {symbol} {cast}{reg}{insn.src}"
    return f"{reg}{insn.dst} {symbol} {insn.imm}"


_ATOMIC_WORDS: Final = {"ADD": "add", "OR": "or", "AND": "and", "XOR": "xor"}


def _atomic(insn: Insn, size: int, row: object) -> str:
    name = row.name  # type: ignore[attr-defined]
    cell = f"({_SIZES[size]} *)(r{insn.dst} {insn.off:+d})"
    if name == "LOAD_ACQ":
        return f"r{insn.dst} = load_acquire(({_SIZES[size]} *)(r{insn.src} {insn.off:+d}))"
    if name == "STORE_REL":
        return f"store_release({cell}, r{insn.src})"
    if name == "CMPXCHG":
        return f"r0 = atomic{'64' if size == 8 else ''}_cmpxchg({cell}, r0, r{insn.src})"
    if name == "XCHG":
        return f"r{insn.src} = atomic{'64' if size == 8 else ''}_xchg({cell}, r{insn.src})"
    if name.startswith("FETCH_"):
        word = _ATOMIC_WORDS[name[6:]]
        return f"r{insn.src} = atomic{'64' if size == 8 else ''}_fetch_{word}({cell}, r{insn.src})"
    symbol = row.symbol  # type: ignore[attr-defined]
    return f"lock *{cell} {symbol} r{insn.src}"

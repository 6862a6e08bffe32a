"""An instruction as the kernel prints it in its log: opcode byte in parentheses, then the text.

Source:  print_bpf_insn(), kernel/bpf/disasm.c (v6.18).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tcbpf.isa.insn import Insn
from tcbpf.tables.helpers import helper_at
from tcbpf.tables.insns import Kind, op_of

_SIZES: Final = {1: "u8", 2: "u16", 4: "u32", 8: "u64"}


def format_insn(insns: Sequence[Insn], pc: int, show_addresses: bool = True) -> str:
    """Return the instruction at `pc` in the words of the kernel's log: "(b7) r0 = 0"."""
    insn = insns[pc]
    op = op_of(*(insn.code, insn.src, insn.off, insn.imm))
    head = f"({insn.code:02x}) "
    if op is None:
        return head + f"BUG_{insn.code:02x}"
    kind = op.kind
    if kind is Kind.ALU:
        return head + _alu(insn, op.width)
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
        return head + f"call {'bpf_' + row.name if row else 'unknown'}#{insn.imm}"
    if kind is Kind.CALL_LOCAL:
        return head + f"call pc{insn.imm:+d}"
    if kind is Kind.CALL_KFUNC:
        return head + f"call kernel-function#{insn.imm}"
    if kind is Kind.EXIT:
        return head + "exit"
    if kind is Kind.LD_IMM64:
        value = (insns[pc + 1].imm & 0xFFFFFFFF) << 32 | insn.imm & 0xFFFFFFFF if pc + 1 < len(insns) else insn.imm
        if insn.src == 4:
            return head + f"r{insn.dst} = func {insn.imm:+d}"
        return head + f"r{insn.dst} = {value:#x}"
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


def _alu(insn: Insn, width: int) -> str:
    op, is64 = insn.code & 0xF0, insn.code & 7 == 7
    reg = "r" if is64 else "w"
    if op == 0xD0:
        if is64:
            return f"r{insn.dst} = bswap{insn.imm} r{insn.dst}"
        return f"r{insn.dst} = {'be' if insn.code & 8 else 'le'}{insn.imm} r{insn.dst}"
    if op == 0x80:
        return f"{reg}{insn.dst} = -{reg}{insn.dst}"
    row = op_of(*(insn.code, insn.src, insn.off, insn.imm))
    assert row is not None
    symbol = "=" if op == 0xB0 else row.row.symbol
    if insn.code & 8:
        cast = row.row.symbol if op == 0xB0 and insn.off else ""
        return f"{reg}{insn.dst} {symbol} {cast}{reg}{insn.src}"
    return f"{reg}{insn.dst} {symbol} {insn.imm}"


_ATOMIC_WORDS: Final = {"ADD": "add", "OR": "or", "AND": "and", "XOR": "xor"}


def _atomic(insn: Insn, size: int, row: object) -> str:
    name = row.name  # type: ignore[attr-defined]
    place = f"(r{insn.dst} {insn.off:+d})"
    cell = f"({_SIZES[size]} *){place}"
    reg = "r" if size == 8 else "w"
    if name == "LOAD_ACQ":
        return f"{reg}{insn.dst} = load_acquire(({_SIZES[size]} *)(r{insn.src} {insn.off:+d}))"
    if name == "STORE_REL":
        return f"store_release({cell}, {reg}{insn.src})"
    if name == "CMPXCHG":
        return f"r0 = atomic{'64' if size == 8 else ''}_cmpxchg({place}, r0, r{insn.src})"
    if name == "XCHG":
        return f"r{insn.src} = atomic{'64' if size == 8 else ''}_xchg({place}, r{insn.src})"
    if name.startswith("FETCH_"):
        word = _ATOMIC_WORDS[name[6:]]
        return f"r{insn.src} = atomic{'64' if size == 8 else ''}_fetch_{word}({cell}, r{insn.src})"
    symbol = row.symbol  # type: ignore[attr-defined]
    return f"lock *{cell} {symbol} r{insn.src}"

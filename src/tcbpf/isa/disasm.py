"""From instructions to text: the words of the kernel's own log, and a lossless listing that the assembler reads back.

The two differ in one form only. The kernel prints a 64-bit immediate as `r1 = 0x5`, which without its opcode cannot be told
from a move; a listing prints `r1 = 0x5 ll`, and names the meaning of a pseudo source register (`map[idx:0]`).

Source:  kernel/bpf/disasm.c (v6.18): the formats.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tcbpf.isa.insn import Insn
from tcbpf.tables.insns import End, Kind, Op, op_of
from tcbpf.tables.opcodes import (
    MAX_REG,
    PSEUDO_BTF_ID,
    PSEUDO_FUNC,
    PSEUDO_MAP_FD,
    PSEUDO_MAP_IDX,
    PSEUDO_MAP_IDX_VALUE,
    PSEUDO_MAP_VALUE,
)
from tcbpf.uapi.bpf import BPF_FUNC_ID

# The import inside a function is for start-up time: few programs call what only a converted classic one does.

UNSIGNED = {1: "u8", 2: "u16", 4: "u32", 8: "u64"}
SIGNED = {1: "s8", 2: "s16", 4: "s32"}
HELPER_NAMES = {id: name.replace("BPF_FUNC_", "bpf_") for id, name in BPF_FUNC_ID.items()}


def disassemble(insns: Sequence[Insn]) -> str:
    """Return text, one line for each instruction, that `assemble` turns into the same slots.

    A slot that is not an instruction, or that sets a field its instruction lacks, is written as `.slot` and its 64 bits.
    """
    return "".join(f"{text}\n" for _, text in listing(insns))


def listing(insns: Sequence[Insn]) -> list[tuple[int, str]]:
    """Return (pc, text) of each instruction.

    Units:   pc counts 8-byte slots; a 64-bit immediate takes two.
    """
    lines, pc = [], 0
    while pc < len(insns):
        insn = insns[pc]
        op = op_of(insn.code, insn.src, insn.off, insn.imm)
        if op is None or not is_canonical(insns, pc, op):
            lines.append((pc, f".slot {_raw(insn):#018x}"))
            pc += 1
        elif op.kind is Kind.LD_IMM64:
            lines.append((pc, f"r{insn.dst} = {_imm64(insn, insns[pc + 1])}"))
            pc += 2
        elif op.kind is Kind.CALL_KFUNC:
            lines.append((pc, f"call kfunc#{insn.imm}" + (f"@{insn.off}" if insn.off else "")))
            pc += 1
        else:
            lines.append((pc, _FORMS[op.kind](insn, op)))
            pc += 1
    return lines


def helper_name(id: int) -> str:
    """Return the name of a helper in listings, including those that only converted classic programs call."""
    if id in HELPER_NAMES:
        return HELPER_NAMES[id]
    from tcbpf.tables.helpers import CONVERTED

    row = CONVERTED.at(id)
    return f"bpf_{row.name}" if row else "unknown"


def kernel_text(insns: Sequence[Insn], pc: int, *, imm64: int | None = None, kfunc: str = "unknown") -> str:
    """Return the instruction at `pc` as the kernel's verifier log prints it: "(b7) r0 = 2".

    `imm64` stands for an address that only the kernel knows (a map's), `kfunc` for a name from its BTF.
    """
    insn = insns[pc]
    op = op_of(insn.code, insn.src, insn.off, insn.imm)
    if op is None:
        return f"({insn.code:02x}) BUG_{insn.code:02x}"
    if op.kind is Kind.LD_IMM64:
        high = insns[pc + 1].imm if pc + 1 < len(insns) else 0
        value = (high & 0xFFFFFFFF) << 32 | insn.imm & 0xFFFFFFFF if imm64 is None else imm64
        return f"({insn.code:02x}) r{insn.dst} = {value:#x}"
    if op.kind is Kind.CALL_KFUNC:
        return f"({insn.code:02x}) call {kfunc}#{insn.imm}"
    return f"({insn.code:02x}) {_FORMS[op.kind](insn, op)}"


def is_canonical(insns: Sequence[Insn], pc: int, op: Op) -> bool:
    """Return whether the slot sets only fields that its instruction has, so that text can hold all of it."""
    insn = insns[pc]
    if insn.dst > MAX_REG or (insn.src > MAX_REG and op.kind is not Kind.LD_IMM64):
        return False
    if op.kind is Kind.LD_IMM64:
        if insn.off or insn.src > PSEUDO_MAP_IDX_VALUE or pc + 1 >= len(insns):
            return False
        second = insns[pc + 1]
        alone = insn.src in (PSEUDO_MAP_FD, PSEUDO_FUNC, PSEUDO_MAP_IDX)
        return second[:4] == (0, 0, 0, 0) and not (alone and second.imm)
    return insn == insn._replace(**_UNUSED[op.kind](op))


def _raw(insn: Insn) -> int:
    """Return the slot's 64 bits, as one little-endian number."""
    return insn.code | insn.dst << 8 | insn.src << 12 | (insn.off & 0xFFFF) << 16 | (insn.imm & 0xFFFFFFFF) << 32


def _imm64(first: Insn, second: Insn) -> str:
    offset = f"+{second.imm & 0xFFFFFFFF}" if second.imm else ""
    match first.src:
        case 0:
            return f"{(second.imm & 0xFFFFFFFF) << 32 | first.imm & 0xFFFFFFFF:#x} ll"
        case _ if first.src in (PSEUDO_MAP_FD, PSEUDO_MAP_IDX):
            return f"map[{'fd' if first.src == PSEUDO_MAP_FD else 'idx'}:{first.imm}]"
        case _ if first.src in (PSEUDO_MAP_VALUE, PSEUDO_MAP_IDX_VALUE):
            return f"map[{'fd' if first.src == PSEUDO_MAP_VALUE else 'idx'}:{first.imm}]{offset or '+0'}"
        case _ if first.src == PSEUDO_BTF_ID:
            return f"btf[id:{first.imm}]{offset}"
    return f"subprog[{first.imm:+d}]"


# --- one form for each kind ---------------------------------------------------------------------------------------------


def _alu(insn: Insn, op: Op) -> str:
    letter = "r" if op.width == 64 else "w"
    dst, name = f"{letter}{insn.dst}", op.row.name
    if isinstance(op.row, End):
        return f"{dst} = {name.lower()} {dst}"
    if op.row.unary:
        return f"{dst} = -{dst}"
    if name.startswith("MOVSX"):
        return f"{dst} = {op.row.symbol}{letter}{insn.src}"
    return f"{dst} {op.row.symbol} " + (f"{letter}{insn.src}" if op.use_reg else f"{insn.imm}")


def _jump(insn: Insn, op: Op) -> str:
    letter = "r" if op.width == 64 else "w"
    right = f"{letter}{insn.src}" if op.use_reg else f"{insn.imm & 0xFFFFFFFF:#x}"
    return f"if {letter}{insn.dst} {op.row.symbol} {right} goto pc{insn.off:+d}"


def _ja(insn: Insn, op: Op) -> str:
    return f"gotol pc{insn.imm:+d}" if op.long else f"goto pc{insn.off:+d}"


def _load(insn: Insn, op: Op) -> str:
    return f"r{insn.dst} = *({(SIGNED if op.signed else UNSIGNED)[op.size]} *)(r{insn.src} {insn.off:+d})"


def _store(insn: Insn, op: Op) -> str:
    return f"*({UNSIGNED[op.size]} *)(r{insn.dst} {insn.off:+d}) = " + (f"r{insn.src}" if op.use_reg else f"{insn.imm}")


def _atomic(insn: Insn, op: Op) -> str:
    memory, name, bits = f"({UNSIGNED[op.size]} *)(r{insn.dst} {insn.off:+d})", op.row.name, "64" if op.size == 8 else ""
    match name:
        case "LOAD_ACQ":
            return f"r{insn.dst} = load_acquire(({UNSIGNED[op.size]} *)(r{insn.src} {insn.off:+d}))"
        case "STORE_REL":
            return f"store_release({memory}, r{insn.src})"
        case "CMPXCHG":
            return f"r0 = atomic{bits}_cmpxchg({memory}, r0, r{insn.src})"
        case "XCHG":
            return f"r{insn.src} = atomic{bits}_xchg({memory}, r{insn.src})"
    if op.row.fetch:
        return f"r{insn.src} = atomic{bits}_{name.lower()}({memory}, r{insn.src})"
    return f"lock *{memory} {op.row.symbol} r{insn.src}"


_FORMS: dict[Kind, Callable[[Insn, Op], str]] = {
    Kind.ALU: _alu,
    Kind.JUMP: _jump,
    Kind.JA: _ja,
    Kind.MAY_GOTO: lambda insn, op: f"may_goto pc{insn.off:+d}",
    Kind.CALL: lambda insn, op: f"call {helper_name(insn.imm)}#{insn.imm}",
    Kind.CALL_LOCAL: lambda insn, op: f"call pc{insn.imm:+d}",
    Kind.EXIT: lambda insn, op: "exit",
    Kind.LD_ABS: lambda insn, op: f"r0 = *({UNSIGNED[op.size]} *)skb[{insn.imm}]",
    Kind.LD_IND: lambda insn, op: f"r0 = *({UNSIGNED[op.size]} *)skb[r{insn.src} + {insn.imm}]",
    Kind.LOAD: _load,
    Kind.STORE: _store,
    Kind.ATOMIC: _atomic,
}

_Zeros = dict[str, int]


def _either(op: Op) -> _Zeros:
    """Return the operand field that the other operand's form leaves unused."""
    return {"imm": 0} if op.use_reg else {"src": 0}


def _unused_alu(op: Op) -> _Zeros:
    if isinstance(op.row, End):
        return {"src": 0, "off": 0}
    return {"src": 0, "imm": 0} if op.row.unary else _either(op)


_UNUSED: dict[Kind, Callable[[Op], _Zeros]] = {
    Kind.ALU: _unused_alu,
    Kind.JUMP: _either,
    Kind.JA: lambda op: {"dst": 0, "src": 0, "off": 0} if op.long else {"dst": 0, "src": 0, "imm": 0},
    Kind.MAY_GOTO: lambda op: {"dst": 0, "src": 0, "imm": 0},
    Kind.CALL: lambda op: {"dst": 0, "off": 0},
    Kind.CALL_LOCAL: lambda op: {"dst": 0, "off": 0},
    Kind.CALL_KFUNC: lambda op: {"dst": 0},
    Kind.EXIT: lambda op: {"dst": 0, "src": 0, "off": 0, "imm": 0},
    Kind.LD_ABS: lambda op: {"dst": 0, "src": 0, "off": 0},
    Kind.LD_IND: lambda op: {"dst": 0, "off": 0},
    Kind.LOAD: lambda op: {"imm": 0},
    Kind.STORE: _either,
    Kind.ATOMIC: lambda op: {},
}

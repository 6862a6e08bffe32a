"""Instructions, decoded once: what the hot loop needs of each, and the form each must have.

Source:  check_alu_op(), check_cond_jmp_op(), check_ld_imm(), check_ld_abs(), do_check(), kernel/bpf/verifier.c (v6.18);
         bpf_opcode_in_insntable(), kernel/bpf/core.c.
"""

from __future__ import annotations

from typing import Any, Final

from tcbpf.isa.insn import Insn
from tcbpf.tables.insns import ATOMICS, Kind, Op, op_of
from tcbpf.tables.opcodes import (
    ALU32,
    ALU64,
    ATOMIC,
    CALL,
    CLASS,
    DIV,
    END,
    EXIT,
    JA,
    JCOND,
    JMP,
    JMP32,
    LD,
    LDX,
    MOD,
    MODE,
    MOV,
    NEG,
    OPERATION,
    PSEUDO_KFUNC_CALL,
    SIZE,
    SIZE_BYTES,
    ST,
    STX,
    X,
)
from tcbpf.verifier.state.state import REG_FP, Reg

CALLER_SAVED: Final = 0b111111  # r0 to r5
ADDR_SPACE_CAST: Final = ALU64 | MOV | X  # with off 1


TAIL_CALL: Final = 12
_WRITERS: Final = frozenset((Kind.STORE, Kind.ATOMIC, Kind.CALL, Kind.CALL_KFUNC))


class Ins:
    """One slot, decoded.

    `k` is the immediate as a register value; `target` where a jump goes; `uses` and `defs` are masks of registers read and
    written; `leaves` tells that it may also end its function; `successors` the pcs that may follow inside the function;
    `touches` the registers which, when wanted, concern it on precision's walk backwards, negative when it always does.
    """

    __slots__ = (
        "code",
        "defs",
        "dst",
        "form",
        "imm",
        "jumps",
        "k",
        "kind",
        "leaves",
        "next",
        "off",
        "pc",
        "row",
        "signed",
        "size",
        "src",
        "successors",
        "target",
        "touches",
        "use_reg",
        "uses",
        "width",
        "writes_stack",
    )

    def __init__(self, pc: int, insn: Insn, op: Op) -> None:
        self.pc = pc
        self.code, self.dst, self.src, self.off, self.imm = insn
        self.kind = op.kind
        self.row: Any = op.row
        self.width = op.width
        self.size = op.size
        self.use_reg = op.use_reg
        self.signed = op.signed
        self.k: Reg | None = None
        self.next = pc + (2 if op.kind is Kind.LD_IMM64 else 1)
        self.target = -1
        if op.kind is Kind.JA:
            self.target = pc + 1 + (insn.imm if op.long else insn.off)
        elif op.kind in (Kind.JUMP, Kind.MAY_GOTO):
            self.target = pc + 1 + insn.off
        elif op.kind is Kind.CALL_LOCAL:
            self.target = pc + 1 + insn.imm
        self.jumps = int(insn.code & CLASS in (JMP, JMP32))  # counts towards remembering a state
        self.writes_stack = op.kind in _WRITERS
        self.leaves = op.kind in (Kind.LD_ABS, Kind.LD_IND) or (op.kind is Kind.CALL and insn.imm == TAIL_CALL)
        self.form: tuple[str, dict[str, Any], tuple[int, ...]] | None = None
        self.uses = 0
        self.defs = 0
        self.touches = -1
        self.successors: tuple[int, ...] = ()


def _codes() -> frozenset[int]:
    """Return every opcode byte that some instruction has."""
    selectors = [(0, 0), (0, 1), (0, 8), (0, 32), *((imm, 0) for imm in (16, 32, 64)), *((row.imm, 0) for row in ATOMICS)]
    return frozenset(
        code for code in range(256) for imm, off in selectors for src in (0, 1) if op_of(code, src, off, imm) is not None
    )


CODES: Final = _codes()
BARE = {
    ALU32: Kind.ALU,
    ALU64: Kind.ALU,
    JMP: Kind.CALL,
    JMP32: Kind.JUMP,
    STX: Kind.ATOMIC,
    ST: Kind.STORE,
    LDX: Kind.LOAD,
    LD: Kind.LD_IMM64,
}


def decode_slot(pc: int, insn: Insn) -> Ins:
    """Return a slot decoded, its `form` set to the reason when its fields are not as they must be."""
    op = op_of(insn.code, insn.src, insn.off, insn.imm)
    ins = Ins(pc, insn, op or _nearest(insn))
    ins.form = _form(ins)
    ins.uses, ins.defs = _registers(ins)
    ins.touches = _touches(ins)
    return ins


def _nearest(insn: Insn) -> Op:
    """Return what a slot that is no instruction is taken for, until it is refused."""
    if insn.code == JMP | JCOND:
        return Op(Kind.MAY_GOTO)
    if insn.code & CLASS == STX and insn.code & MODE == ATOMIC:
        return Op(Kind.ATOMIC, ATOMICS.at(insn.imm), size=SIZE_BYTES[insn.code & SIZE])
    return Op(BARE[insn.code & CLASS])


def _form(ins: Ins) -> tuple[str, dict[str, Any], tuple[int, ...]] | None:
    """Return why the fields are wrong, as a reason, its facts and the registers that are read before, or None."""
    cls = ins.code & CLASS
    if cls in (ALU32, ALU64):
        reason = _alu_form(ins, cls)
    elif cls in (JMP, JMP32):
        reason = _jump_form(ins, cls)
    elif cls == STX:
        reason = _stx_form(ins)
    elif cls == ST:
        reason = "reserved_st" if ins.src else ""
    elif cls == LD:
        reason = _ld_form(ins)
    else:
        reason = ""
    operands = _operands(ins)
    if reason:  # a conditional jump reads dst before its other fields are looked at
        operands = operands[:1] if reason == "reserved_jmp" else ()
    for at, reg in enumerate(operands):
        if reg > REG_FP:
            return "register_number", {"reg": reg}, operands[:at]
    if not reason:
        return None
    return reason, {"op": ins.code & OPERATION, "off": ins.off, "imm": ins.imm, "raw": ins.imm & 0xFFFFFFFF}, operands


def _alu_form(ins: Ins, cls: int) -> str:
    op, reg = ins.code & OPERATION, ins.code & X
    if op == NEG:
        return "reserved_neg" if reg or ins.src or ins.off or ins.imm else ""
    if op == END:
        bad = ins.src or ins.off or ins.imm not in (16, 32, 64) or (cls == ALU64 and reg)
        return "reserved_end" if bad else ""
    if ins.code == ADDR_SPACE_CAST and ins.off == 1:
        return "addr_space_cast_arena" if ins.imm in (1, 1 << 16) else "addr_space_cast"
    if op == MOV:
        if not reg:
            return "reserved_mov" if ins.src or ins.off else ""
        allowed = (0, 8, 16) if cls == ALU32 else (0, 8, 16, 32)
        return "reserved_mov" if ins.off not in allowed or ins.imm else ""
    bad = (ins.imm if reg else ins.src) or ins.off not in (0, 1) or (ins.off == 1 and op not in (DIV, MOD))
    return "reserved_alu" if bad else ""


def _jump_form(ins: Ins, cls: int) -> str:
    op, reg = ins.code & OPERATION, ins.code & X
    if op == CALL:
        bad = reg or cls == JMP32 or ins.dst or ins.src > PSEUDO_KFUNC_CALL or (ins.src != PSEUDO_KFUNC_CALL and ins.off)
        return "reserved_call" if bad else ""
    if op == JA:
        bad = reg or ins.src or ins.dst or (ins.imm if cls == JMP else ins.off)
        return "reserved_ja" if bad else ""
    if op == EXIT:
        return "reserved_exit" if reg or ins.imm or ins.src or ins.dst or cls == JMP32 else ""
    if op == JCOND:
        return "invalid_may_goto" if reg or cls == JMP32 or ins.src or ins.dst or ins.imm else ""
    return "reserved_jmp" if (ins.imm if reg else ins.src) else ""


def _stx_form(ins: Ins) -> str:
    mode = ins.code & MODE
    if mode == ATOMIC:
        row = ATOMICS.at(ins.imm)
        if row is None:
            return "atomic_opcode"
        return "" if ins.size in row.sizes else "atomic_size"
    return "reserved_stx" if ins.imm else ""


def _ld_form(ins: Ins) -> str:
    if ins.kind is Kind.LD_IMM64:
        return "reserved_ld_imm64" if ins.off else ""
    return "reserved_ld_abs" if ins.dst or ins.off or (ins.kind is Kind.LD_ABS and ins.src) else ""


def _operands(ins: Ins) -> tuple[int, ...]:
    """Return the registers that an instruction names, in the order in which they are checked."""
    if ins.kind is Kind.JUMP:
        return (ins.dst, ins.src) if ins.code & X else (ins.dst,)
    if ins.kind is Kind.ALU:
        reads_src = ins.code & X and ins.code & OPERATION not in (NEG, END)
        return (ins.src, ins.dst) if reads_src else (ins.dst,)
    if ins.kind in (Kind.LOAD, Kind.ATOMIC) or (ins.kind is Kind.STORE and ins.use_reg):
        return ins.src, ins.dst
    return (ins.dst,) if ins.kind in (Kind.STORE, Kind.LD_IMM64) else ()


def _registers(ins: Ins) -> tuple[int, int]:
    """Return the masks of registers that an instruction reads and writes; calls are completed by liveness.

    Source:  compute_insn_live_regs(), kernel/bpf/verifier.c (v6.18).
    """
    dst, src, kind = 1 << ins.dst, 1 << ins.src, ins.kind
    if kind is Kind.ALU:
        op = ins.code & OPERATION
        if op == MOV:
            return (src if ins.code & X else 0), dst
        return dst | (src if ins.code & X and op != END else 0), dst
    if kind is Kind.LOAD:
        return src, dst
    if kind is Kind.STORE:
        return dst | (src if ins.use_reg else 0), 0
    if kind is Kind.ATOMIC:
        return _atomic_registers(ins, dst, src)
    if kind is Kind.JUMP:
        return dst | (src if ins.use_reg else 0), 0
    if kind is Kind.EXIT:
        return 1, 0
    if kind is Kind.LD_IMM64:
        return 0, dst
    if kind in (Kind.CALL, Kind.CALL_LOCAL, Kind.CALL_KFUNC):
        return CALLER_SAVED & ~1, CALLER_SAVED
    if kind in (Kind.LD_ABS, Kind.LD_IND):
        return 0xFFFF, 0
    return 0, 0


def _touches(ins: Ins) -> int:
    """Return which registers an instruction takes from, or adds to, what is wanted on the way back over it."""
    kind = ins.kind
    if kind in (Kind.ALU, Kind.LOAD, Kind.STORE, Kind.LD_IMM64):
        return 1 << ins.dst
    if kind is Kind.JUMP:
        return 1 << ins.dst | 1 << ins.src if ins.use_reg else 0
    return 0 if kind in (Kind.JA, Kind.MAY_GOTO) else -1


def _atomic_registers(ins: Ins, dst: int, src: int) -> tuple[int, int]:
    name = ins.row.name if ins.row else ""
    if name == "CMPXCHG":
        return 1 | dst | src, 1
    if name == "LOAD_ACQ":
        return src, dst
    if name == "STORE_REL":
        return dst | src, 0
    return dst | src, src if ins.row and ins.row.fetch else 0

"""Arithmetic: on scalars by the tables' rows, on pointers by the pointer rules.

Source:  check_alu_op(), adjust_reg_min_max_vals(), kernel/bpf/verifier.c (v6.18).
"""

from __future__ import annotations

from typing import Final

from tcbpf.tables.opcodes import ADD, ALU32, AND, ARSH, DIV, END, LSH, MOD, MOV, OPERATION, OR, RSH, SUB, X
from tcbpf.verifier.memory.pointer import SYMBOLS, add_to_pointer
from tcbpf.verifier.memory.speculation import note_number
from tcbpf.verifier.paths.paths import push_path
from tcbpf.verifier.paths.precision import mark_precise
from tcbpf.verifier.state.env import Env
from tcbpf.verifier.state.insns import Ins
from tcbpf.verifier.state.state import REG_FP, UNKNOWN_REG, Delta, Reg
from tcbpf.verifier.values.scalar import Scalar, const, sign_extend
from tcbpf.verifier.values.tnum import HALF_MAX
from tcbpf.verifier.values.transfer import alu, fork, zero_extend
from tcbpf.verifier.values.types import NOT_INIT, SCALAR

_MEMO: dict[tuple[int, int, Scalar, Scalar], Scalar] = {}
_MEMO_LIMIT: Final = 1 << 16


def compute(ins: Ins, dst: Scalar, src: Scalar) -> Scalar:
    """Return what the operation makes of two scalars; recent answers are remembered, loops ask the same again and again."""
    key = (ins.code, ins.off if ins.code & OPERATION != END else ins.imm, dst, src)
    found = _MEMO.get(key)
    if found is None:
        if len(_MEMO) > _MEMO_LIMIT:
            _MEMO.clear()
        found = _MEMO[key] = alu(ins.row, ins.width, dst, src)
    return found


def mov_imm(env: Env, ins: Ins) -> int:
    """dst = imm."""
    if ins.dst == REG_FP:
        env.refuse("frame_pointer_write")
    k = ins.k
    assert k is not None
    env.frame.regs[ins.dst] = k
    return ins.next


def mov_reg(env: Env, ins: Ins) -> int:
    """dst = src, all 64 bits: dst becomes whatever src is, linked to it when it is a scalar that is not known."""
    regs = env.frame.regs
    src = regs[ins.src]
    if src.type == NOT_INIT:
        env.refuse("uninitialized_register", reg=ins.src)
    if ins.dst == REG_FP:
        env.refuse("frame_pointer_write")
    if src.type == SCALAR:
        src = regs[ins.src] = linked(env, src)
    regs[ins.dst] = src
    return ins.next


def linked(env: Env, src: Reg) -> Reg:
    """Return an unknown scalar with an id of its own to be copied, so that a comparison of one copy tells about the others."""
    if src.delta is not None:
        # It stands at a distance to its old group; a copy starts a new one.
        return src.with_id(env.new_id() if src.val.mask else 0)
    if not src.val.mask:
        return src
    return src if src.id else src.with_id(env.new_id())


def mov32_reg(env: Env, ins: Ins) -> int:
    """dst = low half of src."""
    regs = env.frame.regs
    src = regs[ins.src]
    if src.type == NOT_INIT:
        env.refuse("uninitialized_register", reg=ins.src)
    if ins.dst == REG_FP:
        env.refuse("frame_pointer_write")
    if src.type != SCALAR:
        if not env.allow_leaks:
            env.refuse("pointer_partial_copy", reg=ins.src)
        regs[ins.dst] = Reg(SCALAR, zero_extend(UNKNOWN_REG.val))
        return ins.next
    if src.val.umax >> 32:
        regs[ins.dst] = Reg(SCALAR, compute(ins, src.val, src.val))
        return ins.next
    src = regs[ins.src] = linked(env, src)
    regs[ins.dst] = Reg(SCALAR, compute(ins, src.val, src.val), 0, src.id, 0, src.delta)
    return ins.next


def mov_sext(env: Env, ins: Ins) -> int:
    """dst = low bits of src, sign-extended to 64 bits or to 32."""
    regs = env.frame.regs
    src = regs[ins.src]
    if src.type == NOT_INIT:
        env.refuse("uninitialized_register", reg=ins.src)
    if ins.dst == REG_FP:
        env.refuse("frame_pointer_write")
    if src.type != SCALAR:
        if not env.allow_leaks:
            env.refuse("pointer_sign_extension" if ins.width == 64 else "pointer_partial_copy", reg=ins.src)
        unknown = UNKNOWN_REG.val
        regs[ins.dst] = Reg(SCALAR, unknown if ins.width == 64 else zero_extend(unknown))
        return ins.next
    if src.val.umax >> (ins.off - 1):
        regs[ins.dst] = Reg(SCALAR, compute(ins, src.val, src.val))
        return ins.next
    src = regs[ins.src] = linked(env, src)
    regs[ins.dst] = Reg(SCALAR, compute(ins, src.val, src.val), 0, src.id, 0, src.delta)
    return ins.next


_TO_LE: Final = ALU32 | END


def unary(env: Env, ins: Ins) -> int:
    """Negation and byte order: of scalars only."""
    regs = env.frame.regs
    dst = regs[ins.dst]
    if dst.type == NOT_INIT:
        env.refuse("uninitialized_register", reg=ins.dst)
    if dst.type != SCALAR and not env.allow_leaks:
        env.refuse("pointer_arithmetic_unary", reg=ins.dst)
    if ins.dst == REG_FP:
        env.refuse("frame_pointer_write")
    if ins.code == _TO_LE and ins.imm == 64 and dst.type == SCALAR:
        return ins.next  # nothing to swap: it stays linked to what it was
    regs[ins.dst] = UNKNOWN_REG if dst.type != SCALAR else Reg(SCALAR, compute(ins, dst.val, dst.val))
    return ins.next


def binary_imm(env: Env, ins: Ins) -> int:
    """dst = dst op imm."""
    regs = env.frame.regs
    dst = regs[ins.dst]
    if dst.type == NOT_INIT:
        env.refuse("uninitialized_register", reg=ins.dst)
    k = ins.k
    assert k is not None
    if dst.type != SCALAR:
        _check_amount(env, ins)
        if ins.dst == REG_FP:
            env.refuse("frame_pointer_write")
        regs[ins.dst] = add_to_pointer(env, ins, dst, k, pointer_is_dst=True)
        return ins.next
    if ins.code & OPERATION in (OR, AND):
        dst = split(env, ins, dst, k.val)
    val = compute(ins, dst.val, k.val)
    regs[ins.dst] = _moved(env, ins, dst, k.val, val) if dst.id else Reg(SCALAR, val)
    return ins.next


def _moved(env: Env, ins: Ins, dst: Reg, src: Scalar, val: Scalar) -> Reg:
    """Return the result of an operation on a linked scalar: still linked, at a distance, when a constant was added once."""
    op, wide = ins.code & OPERATION, ins.width == 64
    mask, value = (src.mask, src.value) if wide else (src.mask & HALF_MAX, src.value & HALF_MAX)
    if op not in (ADD, SUB) or mask or dst.delta is not None or not env.capable or (not wide and dst.val.umax > HALF_MAX):
        return Reg(SCALAR, val)
    bits = 64 if wide else 32
    step = value - (1 << bits) if value >> (bits - 1) else value
    if not -1 << 31 <= step < 1 << 31 or (op and step == -1 << 31):
        return Reg(SCALAR, val)
    return Reg(SCALAR, val, 0, dst.id, 0, Delta(-step if op else step, bits))


def binary_amount(env: Env, ins: Ins) -> int:
    """A division or shift by a constant that no operation can have; refused once its operand is known to be readable."""
    if env.frame.regs[ins.dst].type == NOT_INIT:
        env.refuse("uninitialized_register", reg=ins.dst)
    _check_amount(env, ins)
    return binary_imm(env, ins)


def _check_amount(env: Env, ins: Ins) -> None:
    op = ins.code & OPERATION
    if op in (DIV, MOD) and ins.imm == 0:
        env.refuse("division_by_zero")
    if op in (LSH, RSH, ARSH) and not 0 <= ins.imm < ins.width:
        env.refuse("shift_amount", imm=ins.imm)


def binary_reg(env: Env, ins: Ins) -> int:
    """dst = dst op src."""
    regs = env.frame.regs
    src, dst = regs[ins.src], regs[ins.dst]
    if src.type == NOT_INIT:
        env.refuse("uninitialized_register", reg=ins.src)
    if dst.type == NOT_INIT:
        env.refuse("uninitialized_register", reg=ins.dst)
    if ins.dst == REG_FP:
        env.refuse("frame_pointer_write")
    if src.type == SCALAR and dst.type == SCALAR:
        if ins.code & OPERATION in (OR, AND):
            dst = split(env, ins, dst, src.val)
        if not env.bypass_spec and ins.code & OPERATION in (ADD, SUB):
            note_number(env, ins)
        val = compute(ins, dst.val, src.val)
        regs[ins.dst] = _moved(env, ins, dst, src.val, val) if dst.id and ins.src != ins.dst else Reg(SCALAR, val)
        return ins.next
    if src.type != SCALAR and dst.type != SCALAR:
        if ins.code & OPERATION != SUB or not env.allow_leaks:
            env.refuse("pointer_pointer", reg=ins.dst, op=SYMBOLS[ins.code >> 4])
        regs[ins.dst] = UNKNOWN_REG
        return ins.next
    if src.type != SCALAR:
        mark_precise(env, ins.dst)
        regs[ins.dst] = add_to_pointer(env, ins, src, dst, pointer_is_dst=False)
    else:
        mark_precise(env, ins.src)
        regs[ins.dst] = add_to_pointer(env, ins, dst, src, pointer_is_dst=True)
    return ins.next


def split(env: Env, ins: Ins, dst: Reg, src: Scalar) -> Reg:
    """Follow a choice between all ones and zero as two paths; return dst as it is on this one."""
    ways = fork(ins.row, dst.val, src)
    if ways is None:
        return dst
    other = env.cur.copy()
    push_path(env, other, env.pc)
    other.frames[-1].regs[ins.dst] = Reg(SCALAR, ways[1])
    return Reg(SCALAR, ways[0], 0, dst.id, 0, dst.delta)


def constant(ins: Ins) -> Reg:
    """Return the immediate as a register value: sign-extended, and for a 32-bit move its low half only."""
    if ins.code & ~X == ALU32 | MOV:
        return Reg(SCALAR, const(ins.imm & 0xFFFFFFFF))
    return Reg(SCALAR, const(ins.imm))


def sign_extended(val: Scalar, size: int) -> Scalar:
    """Return what a sign-extending load of `size` bytes gives of a value."""
    return sign_extend(val, size * 8)

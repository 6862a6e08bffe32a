"""Pointer arithmetic: which pointers may be moved, by what, and what is known afterwards.

Source:  adjust_ptr_min_max_vals(), check_reg_sane_offset(), kernel/bpf/verifier.c (v6.18).
"""

from __future__ import annotations

from typing import Final

from tcbpf.tables.insns import ALU
from tcbpf.tables.opcodes import ADD, AND, OPERATION, OR, SUB, XOR
from tcbpf.verifier.memory.speculation import check_move, commit_move
from tcbpf.verifier.state.env import MAX_VAR_OFF, Env
from tcbpf.verifier.state.insns import Ins
from tcbpf.verifier.state.state import UNKNOWN_REG, Reg
from tcbpf.verifier.values import tnum
from tcbpf.verifier.values.scalar import HALF_SMAX, HALF_SMIN, SMAX, SMIN, Scalar, sync
from tcbpf.verifier.values.tnum import HALF_MAX, MAX
from tcbpf.verifier.values.types import (
    ALLOC,
    BASE,
    BTF_ID,
    BUF,
    CTX,
    DYNPTR,
    FUNC,
    MAP_KEY,
    MAP_PTR,
    MAP_VALUE,
    MAYBE_NULL,
    MEM,
    PACKET,
    PACKET_META,
    SOCK_COMMON,
    SOCKET,
    STACK,
    TCP_SOCK,
    TRUSTED,
    XDP_SOCK,
    is_packet,
    type_name,
)

_MOVABLE: Final = frozenset((CTX, MAP_VALUE, MAP_KEY, STACK, PACKET_META, PACKET, BTF_ID, MEM, BUF, FUNC, DYNPTR))
SYMBOLS: Final = {row.code: row.symbol for row in ALU if not row.off}
_BITWISE: Final = (OR, AND, XOR)
_NEVER_NULL: Final = frozenset((SOCKET, TCP_SOCK, XDP_SOCK, BUF, MAP_VALUE, MAP_KEY, SOCK_COMMON, MEM, MAP_PTR))


def never_null(reg: Reg) -> bool:
    """Tell whether the pointer cannot be NULL, so that comparing it with 0 is decided."""
    type = reg.type
    if type & MAYBE_NULL or reg.val.smin <= -MAX_VAR_OFF or reg.val.smax >= MAX_VAR_OFF:
        return False
    base = type & BASE
    return base in _NEVER_NULL or (base == BTF_ID and bool(reg.ref or type & (TRUSTED | ALLOC)))


def add_to_pointer(env: Env, ins: Ins, pointer: Reg, offset: Reg, *, pointer_is_dst: bool) -> Reg:
    """Return the pointer that the instruction makes of a pointer and a scalar.

    Raises:  Refused.
    """
    op, dst, type = ins.code & OPERATION, ins.dst, pointer.type
    known, value = not offset.val.mask, offset.val.smin
    if ins.width == 32:
        if op == SUB and env.allow_leaks:
            return UNKNOWN_REG
        env.refuse("pointer_32bit", reg=dst)
    if type & MAYBE_NULL:
        env.refuse("pointer_maybe_null", reg=dst, type=type_name(type))
    base = type & BASE
    if base not in _MOVABLE and not (base == MAP_PTR and known and value == 0 and op == ADD):
        env.refuse("pointer_arithmetic", reg=dst, type=type_name(type))
    _check_sane(env, offset, type)
    _check_sane(env, pointer, type)
    move = check_move(env, ins, pointer, offset, pointer_is_dst) if op in (ADD, SUB) else None
    if op == ADD:
        result = _sum(env, pointer, offset, known, value)
    elif op == SUB:
        if not pointer_is_dst:
            env.refuse("pointer_from_scalar", reg=dst)
        if base == STACK:
            env.refuse("pointer_stack_subtraction", reg=dst)
        result = _difference(env, pointer, offset, known, value)
    else:
        env.refuse("pointer_bitwise" if op in _BITWISE else "pointer_operator", reg=dst, op=SYMBOLS[ins.code >> 4])
    _check_sane(env, result, type)
    commit_move(env, ins, move, result)
    return result


def _sum(env: Env, pointer: Reg, offset: Reg, known: bool, value: int) -> Reg:
    if known and -(1 << 31) <= pointer.off + value < 1 << 31:
        return Reg(pointer.type, pointer.val, pointer.off + value, pointer.id, pointer.ref, pointer.extra, pointer.uid)
    p, o = pointer.val, offset.val
    smin, smax = p.smin + o.smin, p.smax + o.smax
    if smin < SMIN or smax > SMAX:
        smin, smax = SMIN, SMAX
    umin, umax = p.umin + o.umin, p.umax + o.umax
    if umax > MAX:
        umin, umax = 0, MAX
    value_bits, mask = tnum.add(p.value, p.mask, o.value, o.mask)
    val = _offset(value_bits, mask, umin, umax, smin, smax)
    id, extra = pointer.id, pointer.extra
    if is_packet(pointer.type):
        id, extra = env.new_id(), 0
    return Reg(pointer.type, val, pointer.off, id, pointer.ref, extra, pointer.uid)


def _difference(env: Env, pointer: Reg, offset: Reg, known: bool, value: int) -> Reg:
    if known and -(1 << 31) <= pointer.off - value < 1 << 31:
        return Reg(pointer.type, pointer.val, pointer.off - value, pointer.id, pointer.ref, pointer.extra, pointer.uid)
    p, o = pointer.val, offset.val
    smin, smax = p.smin - o.smax, p.smax - o.smin
    if smin < SMIN or smax > SMAX:
        smin, smax = SMIN, SMAX
    if p.umin < o.umax:
        umin, umax = 0, MAX
    else:
        umin, umax = p.umin - o.umax, p.umax - o.umin
    value_bits, mask = tnum.sub(p.value, p.mask, o.value, o.mask)
    val = _offset(value_bits, mask, umin, umax, smin, smax)
    id, extra = pointer.id, pointer.extra
    if is_packet(pointer.type):
        id = env.new_id()
        if o.smin < 0:
            extra = 0
    return Reg(pointer.type, val, pointer.off, id, pointer.ref, extra, pointer.uid)


def _offset(value: int, mask: int, umin: int, umax: int, smin: int, smax: int) -> Scalar:
    """Return a pointer's unknown offset; the lower half's ranges follow from the rest."""
    return sync(value, mask, umin, umax, smin, smax, 0, HALF_MAX, HALF_SMIN, HALF_SMAX)


def _check_sane(env: Env, reg: Reg, type: int) -> None:
    """Offsets stay small enough that no sum of them overflows."""
    val = reg.val
    if not val.mask and abs(val.smin) >= MAX_VAR_OFF:
        env.refuse("pointer_constant_range", type=type_name(type), value=val.smin)
    if abs(reg.off) >= MAX_VAR_OFF:
        env.refuse("pointer_offset_range", type=type_name(type), off=reg.off)
    if val.smin == SMIN:
        env.refuse("pointer_unbounded", type=type_name(type))
    if abs(val.smin) >= MAX_VAR_OFF:
        env.refuse("pointer_out_of_bounds", value=val.smin, type=type_name(type))

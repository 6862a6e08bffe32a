"""Arithmetic without CAP_PERFMON: each addition can be given a mask that keeps a pointer in bounds under misprediction.

So an instruction must move the same kind of pointer by as much on every path; what is refused otherwise is refused here.

Source:  sanitize_ptr_alu(), sanitize_val_alu(), retrieve_ptr_limit(), sanitize_check_bounds(), sanitize_err(),
         kernel/bpf/verifier.c (v6.18).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from tcbpf.tables.opcodes import ADD, OPERATION
from tcbpf.verifier.memory.memory import check_map_value
from tcbpf.verifier.state.env import Env, Refused
from tcbpf.verifier.state.insns import Ins
from tcbpf.verifier.state.state import MAX_STACK, Reg
from tcbpf.verifier.values.types import MAP_VALUE, STACK
from tcbpf.verifier.words.format import var_text

NO_POINTER: Final = (-1, 0)


class Move(NamedTuple):
    """What an instruction was seen to do with a pointer: to lower addresses or not, by a constant or not, and from where."""

    left: bool
    negative: bool
    constant: bool
    pointer_is_dst: bool
    limit: int


def note_number(env: Env, ins: Ins) -> None:
    """The instruction adds or subtracts numbers, and so must not move a pointer on another path.

    Raises:  Refused.
    """
    _note(env, ins, NO_POINTER)


def check_move(env: Env, ins: Ins, pointer: Reg, offset: Reg, pointer_is_dst: bool) -> Move | None:
    """Check that a pointer may move by a number; return what was seen, None where no mask is needed.

    Raises:  Refused.
    """
    if env.bypass_spec or not ins.use_reg:
        return None
    val, constant = offset.val, not offset.val.mask
    number = ins.src if pointer_is_dst else ins.dst
    if not constant and (val.smin < 0) != (val.smax < 0):
        env.refuse("pointer_mixed_bounds", reg=number)
    negative = val.smin < 0
    left = negative == (ins.code & OPERATION == ADD)
    if not constant:
        env.strict_scalars = True
    return Move(left, negative, constant, pointer_is_dst, _limit(env, ins, pointer, left, pointer_is_dst))


def commit_move(env: Env, ins: Ins, move: Move | None, result: Reg) -> None:
    """Check where a pointer came to lie, and that the mask for it is that of every other path.

    Raises:  Refused.
    """
    if env.bypass_spec:
        return
    _check_place(env, ins.dst, result)
    if move is not None:
        limit = abs(move.limit - _limit(env, ins, result, move.left, move.pointer_is_dst))
        _note(env, ins, (move.negative | move.constant << 1 | move.pointer_is_dst << 2, limit))


def _limit(env: Env, ins: Ins, pointer: Reg, left: bool, pointer_is_dst: bool) -> int:
    """Return how far a pointer is from where its memory, in which it lies, begins: or ends, for a stack that grows down."""
    if pointer.type == STACK:
        return -(pointer.val.value + pointer.off)
    if pointer.type == MAP_VALUE:
        low: int = (pointer.val.smin if left else pointer.val.umax) + pointer.off
        return low
    env.refuse("pointer_type_unprivileged", reg=ins.dst if pointer_is_dst else ins.src)


def _note(env: Env, ins: Ins, mask: tuple[int, int]) -> None:
    if env.masks.setdefault(env.pc, mask) != mask:
        env.refuse("pointer_paths", reg=ins.dst, op=_word(ins))


def _word(ins: Ins) -> str:
    return "add" if ins.code & OPERATION == ADD else "sub"


def _check_place(env: Env, dst: int, result: Reg) -> None:
    if result.type == STACK:
        off = result.off + result.val.smin
        if result.val.mask:
            env.refuse("stack_variable_unprivileged", reg=dst, var=var_text(result.val), off=off)
        if not -MAX_STACK <= off < 0:
            env.refuse("stack_range_unprivileged", reg=dst, off=off)
    elif result.type == MAP_VALUE:
        _check_value(env, dst, result)


def _check_value(env: Env, dst: int, result: Reg) -> None:
    try:
        check_map_value(env, dst, result, result.off, 1, write=False, helper=True)
    except Refused as refused:
        refused.more += (f"R{dst} pointer arithmetic of map value goes out of range, prohibited for !root",)
        raise

"""Calling the program's own functions and leaving them; leaving the program.

Source:  check_func_call(), setup_func_entry(), prepare_func_exit(), check_return_code(), check_reference_leak(),
         check_resource_leak(), check_max_stack_depth(), kernel/bpf/verifier.c (v6.18).
"""

from __future__ import annotations

from typing import Final

from tcbpf.tables.insns import Kind
from tcbpf.tables.opcodes import PSEUDO_FUNC
from tcbpf.verifier.memory.memory import check_unmoved
from tcbpf.verifier.memory.special import forget_packet
from tcbpf.verifier.paths.paths import PATH_END, push_path
from tcbpf.verifier.paths.precision import mark_precise
from tcbpf.verifier.paths.prune import previous_entry, widen
from tcbpf.verifier.rules.exception import check_thrower
from tcbpf.verifier.rules.globals import check_call
from tcbpf.verifier.state.env import Env, SubInfo
from tcbpf.verifier.state.insns import Ins
from tcbpf.verifier.state.state import MAX_FRAMES, MAX_STACK, NO_REG, UNKNOWN_REG, ZERO_REG, Frame, State
from tcbpf.verifier.values.scalar import SMAX, SMIN, Scalar
from tcbpf.verifier.values.types import CTX, NOT_INIT, SCALAR, STACK, type_name

_ROUND: Final = 16  # the JIT rounds a frame up to this


# --- in ----------------------------------------------------------------------------------------------------------------


def enter(env: Env, state: State, subprog: int, callsite: int) -> Frame:
    """Add a frame for a call and return it; its arguments are the caller's to set.

    Raises:  Refused.
    """
    if len(state.frames) >= MAX_FRAMES:
        env.refuse("call_depth", frames=len(state.frames) + 1)
    frame = Frame(len(state.frames), subprog, callsite)
    state.frames.append(frame)
    if env.trace:
        env.trace.entered()
    return frame


def call_local(env: Env, ins: Ins) -> int:
    """call a function of the program: follow it, or for a global one trust its signature."""
    number = env.subprog_at[ins.target]
    sub = env.subprogs[number]
    caller = env.frame
    if sub.is_global:
        check_call(env, sub, number)
        if sub.changes_packet:
            forget_packet(env)
        if env.trace:
            env.trace.assumed(number)
        sub.called = True
        for i in range(1, 6):
            caller.regs[i] = NO_REG
        caller.regs[0] = UNKNOWN_REG
        return ins.next
    callee = enter(env, env.cur, number, env.pc)
    callee.regs[1:6] = caller.regs[1:6]
    for i in range(6):
        caller.regs[i] = NO_REG
    env.frame = callee
    env.liveness.forget_chain()
    if env.trace:
        env.trace.called()
    return sub.start


# --- out ---------------------------------------------------------------------------------------------------------------


def leave(env: Env, ins: Ins) -> int:
    """exit: back to the caller, or the end of the path."""
    state = env.cur
    if len(state.frames) == 1:
        check_nothing_held(env, "BPF_EXIT instruction in main prog")
        check_return(env, 0)
        return PATH_END
    following = return_to_caller(env)
    if env.trace:
        env.trace.switch = True
    return following


def return_to_caller(env: Env) -> int:
    """Leave the innermost frame with r0 as it is, and return where its caller goes on.

    Raises:  Refused.
    """
    state = env.cur
    if env.trace:
        env.trace.leaving()
    callee, caller = state.frames[-1], state.frames[-2]
    result = callee.regs[0]
    if result.type == STACK:
        env.refuse("stack_return")
    if callee.in_callback:
        if result.type != SCALAR:
            env.refuse("callback_return_not_scalar")
        mark_precise(env, 0)
        assert callee.ret_range is not None
        low, high = callee.ret_range
        if not low <= result.val.smin or not result.val.smax <= high:
            env.refuse("callback_return_range", reg=0, value=_bounds(result.val), low=low, high=high)
        target = callee.callsite
    else:
        caller.regs[0] = result
        target = callee.callsite + 1
    state.frames.pop()
    env.frame = caller
    env.liveness.forget_chain()
    if env.trace:
        env.trace.returned(callee, target)
    if callee.in_callback:
        previous = previous_entry(env, state, target)
        if previous is not None:
            widen(env, previous, state)
    return target


def _bounds(val: Scalar) -> str:
    text = ""
    if val.smin > SMIN:
        text += f" smin={val.smin}"
    if val.smax < SMAX:
        text += f" smax={val.smax}"
    return text or " unknown scalar value"


def check_return(env: Env, regno: int) -> None:
    """A register holds what the program type may return.

    Raises:  Refused.
    """
    frame = env.cur.frames[0]  # what is thrown ends the program from any depth
    reg = env.frame.regs[regno]
    is_subprogram = frame.subprog != 0 and not env.subprogs[frame.subprog].is_exception
    if reg.type == NOT_INIT:
        env.refuse("uninitialized_register", reg=regno)
    if reg.type != SCALAR and not env.allow_leaks:
        env.refuse("leak_return", reg=regno)
    if frame.in_async_callback:
        if reg.type != SCALAR:
            env.refuse("async_return_not_scalar", reg=regno, type=type_name(reg.type))
        mark_precise(env, regno)
        if reg.val.smin or reg.val.smax:
            env.refuse("async_return_range", reg=regno, value=_bounds(reg.val), low=0, high=0)
        return
    if is_subprogram:
        if reg.type != SCALAR:
            env.refuse("subprogram_return", reg=regno, type=type_name(reg.type))
        return
    allowed = next((r for at, r in env.type.returns_at if at == env.program.attach_type), env.type.returns)
    if allowed is None:
        return
    if reg.type != SCALAR:
        env.refuse("return_not_scalar", reg=regno, type=type_name(reg.type))
    mark_precise(env, regno)
    low, high = allowed
    if reg.val.smin < low or reg.val.smax > high:
        env.refuse("return_range", reg=regno, value=_bounds(reg.val), low=low, high=high)


def check_nothing_held(env: Env, what: str, *, ends: bool = False) -> None:
    """No lock or critical section is open; and no reference where the program ends, which a callee otherwise may not do.

    Raises:  Refused.
    """
    if ends or len(env.cur.frames) == 1:
        _check_references(env, what)
    _check_locks(env, what)


def _check_references(env: Env, what: str) -> None:
    held = [ref for ref in env.cur.refs if ref.kind == "ptr"]
    if held:
        lines = [f"Unreleased reference id={ref.id} alloc_insn={ref.pc}" for ref in held[1:]]
        env.refuse(
            "reference_leak",
            more=(*lines, f"{what} would lead to reference leak"),
            id=held[0].id,
            pc=held[0].pc,
            acquired=held[0].pc,
        )


def _check_locks(env: Env, what: str) -> None:
    state = env.cur
    if state.locks:
        env.refuse("lock_held", what=what)
    if state.irq_id:
        env.refuse("irq_held", what=what)
    if state.rcu_locks:
        env.refuse("rcu_held", what=what)
    if state.preempt_locks:
        env.refuse("preempt_held", what=what)


# --- packet loads of old -----------------------------------------------------------------------------------------------


def load_packet(env: Env, ins: Ins) -> int:
    """r0 = packet[imm] or packet[src + imm]; a packet too short ends the program with 0."""
    regs = env.frame.regs
    if not env.type.ld_abs:
        env.refuse("ld_abs_type")
    if regs[6].type == NOT_INIT:
        env.refuse("uninitialized_register", reg=6)
    check_nothing_held(env, "BPF_LD_[ABS|IND]")
    if regs[6].type != CTX:
        env.refuse("ld_abs_ctx")
    if ins.kind is Kind.LD_IND and regs[ins.src].type == NOT_INIT:
        env.refuse("uninitialized_register", reg=ins.src)
    check_unmoved(env, 6, regs[6])
    for i in range(1, 6):
        regs[i] = NO_REG
    regs[0] = UNKNOWN_REG
    if len(env.cur.frames) > 1:
        push_path(env, env.cur.copy(), ins.next)
        regs[0] = ZERO_REG
        return return_to_caller(env)
    return ins.next


# --- depth of the stack ------------------------------------------------------------------------------------------------


def check_stack_depth(env: Env) -> None:
    """All frames of every chain of calls fit into the stack.

    Raises:  Refused.
    """
    for number in range(len(env.subprogs) - 1, -1, -1):
        if number == 0 or env.subprogs[number].is_async:
            _check_chain(env, number, 0, ())


def _depth(sub: SubInfo) -> int:
    return (sub.stack_depth + _ROUND - 1) // _ROUND * _ROUND


def _check_chain(env: Env, number: int, depth: int, callers: tuple[int, ...]) -> None:
    sub = env.subprogs[number]
    if number and sub.has_tail_call and depth >= 256:
        env.refuse("tail_call_depth", depth=depth)
    depth += _depth(sub)
    if depth > MAX_STACK:
        chain = " + ".join(f"{env.subprogs[i].name} {_depth(env.subprogs[i])}" for i in (*callers, number))
        env.refuse("stack_depth", calls=len(callers) + 1, depth=depth, chain=chain, pc=sub.start)
    for pc in range(sub.start, sub.end):
        ins = env.ins[pc]
        if ins.pc != pc:
            continue
        if ins.kind is Kind.CALL_KFUNC:
            check_thrower(env, ins, number, callers)
        direct = ins.kind is Kind.CALL_LOCAL
        if not direct and not (ins.kind is Kind.LD_IMM64 and ins.src == PSEUDO_FUNC):
            continue
        callee = env.subprog_at[pc + 1 + ins.imm]
        if env.subprogs[callee].is_async and not direct:
            continue
        if env.subprogs[callee].is_exception:
            env.refuse("exception_called", pc=pc)
        if len(callers) + 1 >= MAX_FRAMES:
            env.refuse("call_depth_static", frames=len(callers) + 1)
        _check_chain(env, callee, depth, (*callers, number))

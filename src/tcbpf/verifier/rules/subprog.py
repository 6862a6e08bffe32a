"""Calls of the program's own functions, and the way back to the caller.

Source:  check_func_call(), setup_func_entry(), prepare_func_exit(), kernel/bpf/verifier.c (v6.18).
"""

from __future__ import annotations

from tcbpf.verifier.memory.invalidate import forget_packet
from tcbpf.verifier.paths.precision import mark_precise
from tcbpf.verifier.paths.prune import previous_entry, widen
from tcbpf.verifier.rules.globals import check_call
from tcbpf.verifier.state.env import Env
from tcbpf.verifier.state.insns import Ins
from tcbpf.verifier.state.state import MAX_FRAMES, NO_REG, UNKNOWN_REG, Frame, State
from tcbpf.verifier.values.types import SCALAR, STACK
from tcbpf.verifier.words.format import range_text


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
            env.refuse("callback_return_range", reg=0, value=range_text(result.val), low=low, high=high)
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

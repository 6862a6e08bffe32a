"""Leaving a function or the program: a return value that is allowed, and nothing held.

Source:  check_return_code(), check_reference_leak(), check_resource_leak(), kernel/bpf/verifier.c (v6.18).
"""

from __future__ import annotations

from tcbpf.verifier.paths.paths import PATH_END
from tcbpf.verifier.paths.precision import mark_precise
from tcbpf.verifier.rules.subprog import return_to_caller
from tcbpf.verifier.state.env import Env
from tcbpf.verifier.state.insns import Ins
from tcbpf.verifier.values.types import NOT_INIT, SCALAR, type_name
from tcbpf.verifier.words.format import range_text


def exit(env: Env, ins: Ins) -> int:
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
            env.refuse("async_return_range", reg=regno, value=range_text(reg.val), low=0, high=0)
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
        env.refuse("return_range", reg=regno, value=range_text(reg.val), low=low, high=high)


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

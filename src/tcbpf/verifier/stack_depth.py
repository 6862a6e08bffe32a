"""The depth of the stack: all frames of every chain of calls fit.

Source:  check_max_stack_depth(), kernel/bpf/verifier.c (v6.18).
"""

from __future__ import annotations

from typing import Final

from tcbpf.tables.insns import Kind
from tcbpf.tables.opcodes import PSEUDO_FUNC
from tcbpf.verifier.rules.exception import check_thrower
from tcbpf.verifier.state.env import Env, SubInfo
from tcbpf.verifier.state.state import MAX_FRAMES, MAX_STACK

_ROUND: Final = 16  # the JIT rounds a frame up to this


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

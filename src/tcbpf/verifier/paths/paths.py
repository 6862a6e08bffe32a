"""The paths still to be followed, and the end of one.

Source:  push_stack(), pop_stack(), update_branch_counts(), kernel/bpf/verifier.c (v6.18).
"""

from __future__ import annotations

from typing import Final

from tcbpf.verifier.paths.scc import exit_loop, is_incomplete
from tcbpf.verifier.state.env import MAX_JUMPS, Env
from tcbpf.verifier.state.state import State

PATH_END: Final = -1
"""What an instruction returns as the next pc when the path ends with it."""


def push_path(env: Env, state: State, pc: int) -> None:
    """Keep another path for later: from `state`, a copy of the current one, at `pc`.

    Raises:  Refused.
    """
    env.pending.append((state, pc, env.pc, env.log.end))
    if len(env.pending) > MAX_JUMPS:
        env.refuse("too_complex", count=len(env.pending))
    if state.parent is not None:
        state.parent.branches += 1


def end_path(env: Env) -> None:
    """The current path is done: states that have no open path left are final."""
    state: State | None = env.cur
    while state is not None:
        state.branches -= 1
        if state.branches:
            return
        exit_loop(env, state)
        if state.dropped and not is_incomplete(state):
            env.dropped -= 1
        state = state.parent


def next_path(env: Env) -> bool:
    """Take up the path that was kept last; return False when there is none."""
    if not env.pending:
        return False
    env.cur, env.pc, env.prev_pc, mark = env.pending.pop()
    env.frame = env.cur.frames[-1]
    if env.trace and not env.trace.full:
        env.log.cut(mark)
    env.liveness.forget_chain()
    return True

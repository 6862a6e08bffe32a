"""Loops while they are being followed: a state inside one is final only when all of the loop is done.

A path that reaches a state equal to an earlier one of the same loop stops there, but what that earlier state relies on is not
known in full yet. Such ends are kept as back edges of the loop's visit; when the state that entered the loop has no open path
left, what the equal states rely on is carried over each back edge until nothing changes.

Source:  compute_scc_callchain(), maybe_enter_scc(), maybe_exit_scc(), propagate_backedges(), kernel/bpf/verifier.c (v6.18).
"""

from __future__ import annotations

from typing import Final

from tcbpf.verifier.paths.precision import mark_all_precise, propagate_precision
from tcbpf.verifier.state.env import Env
from tcbpf.verifier.state.state import State, Visit

MAX_ROUNDS: Final = 64


def _chain(env: Env, state: State) -> tuple[int, ...] | None:
    """Return the calls that lead to the loop the state is in, and the loop's number; None outside of loops."""
    frames, scc = state.frames, env.scc
    last = len(frames) - 1
    if not last:
        number = scc[state.pc]
        return (-number,) if number else None
    chain: list[int] = []
    for i in range(last + 1):
        pc = state.pc if i == last else frames[i + 1].callsite
        if scc[pc]:
            chain.append(-scc[pc])
            return tuple(chain)
        chain.append(pc)
    return None


def enter_loop(env: Env, state: State) -> None:
    """A state was remembered: when it is the first inside a loop, it is the loop's entry."""
    chain = _chain(env, state)
    if chain is None:
        return
    visit = env.visits.get(chain)
    if visit is None:
        visit = env.visits[chain] = Visit(chain)
    if visit.entry is None:
        visit.entry = state
        _say(env, "enter", chain)
    state.visit = visit


def exit_loop(env: Env, state: State) -> None:
    """A state has no open path left: when it is a loop's entry, settle the loop."""
    visit = state.visit
    if visit is None or visit.entry is not state:
        return
    visit.entry = None
    _say(env, "exit", visit.chain)
    env.backedges -= len(visit.backedges)
    edges, visit.backedges = visit.backedges[::-1], []  # the kernel keeps them newest first
    for _ in range(MAX_ROUNDS + 1):
        changed = False
        for edge in edges:
            assert edge.equal is not None
            changed |= propagate_precision(env, edge.equal, edge)
        if not changed:
            return
    for edge in edges:
        mark_all_precise(env, edge)


def _say(env: Env, what: str, chain: tuple[int, ...]) -> None:
    if env.trace and env.trace.deep:
        env.trace.loop(what, chain)


def check_end(env: Env) -> None:
    """A path ends here for good: the kernel knows a loop, if this is inside one, only by a state that was remembered in it.

    Raises:  Refused.
    """
    state = env.cur
    state.pc = env.pc
    chain = _chain(env, state)
    if chain is not None and chain not in env.visits:
        env.refuse("walk_lost", what=f"scc exit: no visit info for call chain ({','.join(str(abs(pc)) for pc in chain)})")


def add_backedge(env: Env, equal: State, state: State) -> None:
    """A path ended inside a loop because it is like `equal`, which is not final yet."""
    visit = equal.visit
    assert visit is not None
    edge = state.copy()
    edge.equal = equal
    _say(env, "backedge", visit.chain)
    visit.backedges.append(edge)
    env.backedges += 1
    env.count_states()


def is_incomplete(state: State) -> bool:
    """Tell whether what the state relies on may still grow although all its paths were followed."""
    return state.visit is not None and bool(state.visit.backedges)

"""Pruning: a path is cut off where it reaches a state that one already followed from there covers.

Source:  is_state_visited(), clean_live_states(), kernel/bpf/verifier.c (v6.18).
"""

from __future__ import annotations

from typing import Final

from tcbpf.tables.insns import Kind
from tcbpf.verifier.paths.precision import propagate_precision
from tcbpf.verifier.paths.scc import add_backedge, enter_loop, is_incomplete
from tcbpf.verifier.paths.states_equal import (
    EXACT,
    NOT_EXACT,
    RANGE_WITHIN,
    IdMap,
    exactly,
    final_equal,
    states_equal,
    tests_of,
)
from tcbpf.verifier.state.env import MAX_STATES_UNPRIVILEGED, Env
from tcbpf.verifier.state.state import (
    NO_REG,
    NO_SLOT,
    UNKNOWN_REG,
    Iterator,
    Reg,
    Slot,
    State,
    Step,
)
from tcbpf.verifier.values.types import SCALAR
from tcbpf.verifier.words.format import format_state

LONG_HISTORY: Final = 40

# --- loops -------------------------------------------------------------------------------------------------------------


def _maybe_looping(old: State, cur: State) -> bool:
    if len(old.frames) != len(cur.frames):
        return False
    for one, two in zip(old.frames[-1].regs, cur.frames[-1].regs, strict=True):
        if one is not two and not (one.same_as(two) and one.id == two.id and one.ref == two.ref):
            return False
    return True


def _iterations_differ(old: State, cur: State) -> bool:
    for one, two in zip(old.frames, cur.frames, strict=True):
        for i, slot in enumerate(one.stack):
            if slot.kinds[0] == "i" and slot.reg is not None and isinstance(slot.reg.extra, Iterator) and slot.reg.iter.active:
                other = two.stack[i].reg
                if other is None or other.iter.depth != slot.reg.iter.depth:
                    return True
    return False


def _iterator_is_active(env: Env, cur: State) -> bool:
    reg = cur.frames[-1].regs[1]
    slot = cur.frames[reg.frame].stack[(-(reg.off + reg.val.smin) - 1) // 8]
    return slot.reg is not None and slot.reg.iter.active


def push_step(env: Env, state: State, flags: int, linked: tuple[tuple[int, bool, int], ...] = ()) -> None:
    """Add what the current instruction did to the path's history; one entry for each visit of an instruction."""
    step = env.step
    old = state.hist
    if step is not None and old is step:
        env.step = state.hist = Step(old.pc, old.prev, old.flags | flags, linked or old.linked, old.older, old.length)
        return
    env.step = state.hist = Step(env.pc, env.prev_pc, flags, linked, old, old.length + 1 if old is not None else 1)


# --- the question ------------------------------------------------------------------------------------------------------


def is_visited(env: Env, pc: int) -> bool:
    """Tell whether the current path may stop at `pc`, because what can follow was followed; else remember it when useful.

    Raises:  Refused for a loop that makes no progress.
    """
    cur = env.cur
    cur.pc = pc
    forced = bool(env.force_checkpoint[pc]) or (cur.hist is not None and cur.hist.length > LONG_HISTORY)
    jumps, processed = env.jumps - env.prev_jumps, env.processed - env.prev_processed
    add = forced or (jumps >= 2 and processed >= 8)
    key = (pc, cur.frames[-1].callsite)
    known = env.explored.get(key)
    seen = env.buckets[_bucket(env, key)]
    if known:
        for old in known:
            if not (old.branches or old.cleaned):
                _clean(env, known, cur)
                break
        calls, bare = cur.callsites(), cur.is_bare()
        for old in list(known):
            loop = False
            if old.branches:
                equal, loop = _equal_in_progress(env, pc, old, cur)
                if not equal and not forced and jumps < 20 and processed < 100:
                    add = False
            elif is_incomplete(old):
                equal = loop = states_equal(env, old, cur, RANGE_WITHIN)
            elif old.cleaned and not env.strict_scalars:
                equal = old.calls == calls and final_equal(env, old, cur, bare)
            else:
                equal = states_equal(env, old, cur, NOT_EXACT)
            if equal:
                old.hits += 1
                if env.jmp_point[pc]:
                    push_step(env, cur, 0)
                propagate_precision(env, old, cur)
                if loop:
                    add_backedge(env, old, cur)
                return True
            if add:
                old.misses += 1
            patience = 64 if env.force_checkpoint[pc] and old.branches else 3
            if old.misses > old.hits * patience + patience:
                known.remove(old)
                env.explored_count -= 1
                env.buckets[_bucket(env, key)] -= 1
                if old.branches or is_incomplete(old):
                    old.dropped = True
                    env.dropped += 1
    if seen > env.stats.max_states_per_insn:
        env.stats.max_states_per_insn = seen
    if add and (env.capable or seen <= MAX_STATES_UNPRIVILEGED):
        _remember(env, key, cur, pc)
    return False


def _bucket(env: Env, key: tuple[int, int]) -> int:
    """Return which of the kernel's hash buckets a place's states are in: what it counts and limits is a bucket."""
    return ((key[0] ^ key[1]) & 0xFFFFFFFF) % len(env.buckets)


def _equal_in_progress(env: Env, pc: int, old: State, cur: State) -> tuple[bool, bool]:
    """Compare with a state whose paths are still being followed: the current path came through it, so this is a loop."""
    frame = old.frames[-1]
    if frame.in_async_callback and frame.async_entry != cur.frames[-1].async_entry:
        return False, False
    kind = env.ins[pc].kind
    if kind is Kind.CALL_KFUNC and env.ins[pc].row.has("ITER_NEXT"):
        return states_equal(env, old, cur, RANGE_WITHIN) and _iterator_is_active(env, cur), True
    if kind is Kind.MAY_GOTO and old.may_goto_depth != cur.may_goto_depth and states_equal(env, old, cur, RANGE_WITHIN):
        return True, True
    if env.calls_callback[pc]:
        return states_equal(env, old, cur, RANGE_WITHIN), False
    if (
        _maybe_looping(old, cur)
        and states_equal(env, old, cur, EXACT)
        and not _iterations_differ(old, cur)
        and old.may_goto_depth == cur.may_goto_depth
        and old.callback_unroll == cur.callback_unroll
    ):
        if env.trace:
            env.trace.source(pc)
        states = (f"{word} state:{format_state(state, state.frames[-1])}" for word, state in (("cur", cur), ("old", old)))
        env.refuse("infinite_loop", more=tuple(states), pc=pc, loop=True)
    return False, False


def _remember(env: Env, key: tuple[int, int], cur: State, pc: int) -> None:
    stats = env.stats
    stats.total_states += 1
    env.explored_count += 1
    env.buckets[_bucket(env, key)] += 1
    env.count_states()
    env.prev_jumps, env.prev_processed = env.jumps, env.processed
    new = cur.copy()
    new.calls = cur.callsites()
    enter_loop(env, new)
    cur.parent = new
    cur.first_pc = pc
    cur.depth = new.depth + 1
    cur.hist = None
    known = env.explored.get(key)
    if known is None:
        env.explored[key] = [new]
    else:
        known.insert(0, new)


def _clean(env: Env, known: list[State], cur: State) -> None:
    """Forget in finished states what no continuation reads."""
    calls = cur.callsites()
    refreshed = False
    for old in known:
        if old.branches or old.cleaned or old.calls != calls or is_incomplete(old):
            continue
        if not refreshed:
            env.liveness.refresh()
            refreshed = True
        _clean_state(env, old)


def _clean_state(env: Env, state: State) -> None:
    for number, frame in enumerate(state.frames):
        live = env.live_regs[state.pc_of(number)]
        for i in range(10):
            if not live >> i & 1:
                frame.regs[i] = NO_REG
        frame.precise &= live
        if frame.stack:
            slots = env.liveness.live_slots(state, number)
            for i in range(len(frame.stack)):
                if not slots >> i & 1:
                    frame.stack[i] = NO_SLOT
            frame.precise_slots &= slots
    state.cleaned = True
    state.tests, state.bare = tests_of(env, state), state.is_bare()


# --- callbacks and iterators: forget what a round changed ----------------------------------------------------------------


def previous_entry(env: Env, cur: State, pc: int) -> State | None:
    """Return the newest remembered state at `pc` that the current path came through, under the same calls."""
    calls = cur.callsites()
    for old in env.explored.get((pc, calls[-1]), ()):
        if old.branches and old.calls == calls and old.depth < cur.depth:
            return old
    return None


def widen(env: Env, old: State, cur: State) -> None:
    """Make unknown every scalar of `cur` that differs from `old` and on whose range nobody relies."""
    ids = IdMap(env.ids, env.strict_scalars)
    for one, two in zip(old.frames, cur.frames, strict=False):
        for i in range(11):
            if not one.precise >> i & 1 and _widens(one.regs[i], two.regs[i], ids):
                two.regs[i] = UNKNOWN_REG
        for i in range(min(len(one.stack), len(two.stack))):
            was, now = one.stack[i], two.stack[i]
            if was.spilled and now.spilled and not one.precise_slots >> i & 1:
                assert was.reg is not None and now.reg is not None
                if _widens(was.reg, now.reg, ids):
                    two.stack[i] = Slot(now.kinds, UNKNOWN_REG)


def _widens(old: Reg, cur: Reg, ids: IdMap) -> bool:
    return old.type == SCALAR and cur.type == SCALAR and not exactly(old, cur, ids)

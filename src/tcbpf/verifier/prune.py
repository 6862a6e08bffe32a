"""Which paths need not be followed: those that reach a place in a state no wider than one already followed from there.

Source:  is_state_visited(), states_equal(), regsafe(), stacksafe(), refsafe(), kernel/bpf/verifier.c (v6.18).
"""

from __future__ import annotations

from typing import Final

from tcbpf.tables.insns import Kind
from tcbpf.verifier.env import MAX_STATES_UNPRIVILEGED, Env
from tcbpf.verifier.log import format_state
from tcbpf.verifier.precision import propagate_precision
from tcbpf.verifier.scc import add_backedge, enter_loop, is_incomplete
from tcbpf.verifier.state import (
    MAIN_CALLSITE,
    NO_REG,
    NO_SLOT,
    UNKNOWN_REG,
    Frame,
    Iterator,
    Reg,
    Slot,
    State,
    Step,
)
from tcbpf.verifier.types import BASE, BUF, MAP_KEY, MAP_VALUE, MEM, NOT_INIT, PACKET, PACKET_META, SCALAR, STACK

LONG_HISTORY: Final = 40

NOT_EXACT, EXACT, RANGE_WITHIN = range(3)
"""How alike: what the old state's continuation relied on; everything; everything, ranges as subsets."""


class IdMap:
    """Which id of the current state stands for which of the old one: one for one."""

    __slots__ = ("cur_of", "old_of", "spare", "strict")

    def __init__(self, spare: int, strict: bool) -> None:
        self.cur_of: dict[int, int] = {}
        self.old_of: dict[int, int] = {}
        self.spare = spare
        self.strict = strict                       # numbers must be equal, not only within what is known

    def same(self, old: int, cur: int) -> bool:
        """Tell whether the two ids may stand for each other, and remember that they do."""
        if not old or not cur:
            return old == cur
        known = self.cur_of.get(old)
        if known is not None:
            return known == cur
        if cur in self.old_of:
            return False
        self.cur_of[old] = cur
        self.old_of[cur] = old
        return True

    def same_scalar(self, old: int, cur: int) -> bool:
        """As `same`; an old scalar without an id was linked to nothing, so a link now only says more."""
        if not old:
            return True
        if not cur:
            self.spare += 1
            cur = self.spare
        return self.same(old, cur)


# --- is one register as safe as another --------------------------------------------------------------------------------

_MEMORY: Final = frozenset((MAP_KEY, MAP_VALUE, MEM, BUF))


def _exactly(old: Reg, cur: Reg, ids: IdMap) -> bool:
    return old.same_as(cur) and ids.same(old.id, cur.id) and ids.same(old.ref, cur.ref)


def reg_safe(old: Reg, cur: Reg, precise: int, ids: IdMap, exact: int) -> bool:
    """Tell whether what was safe with `old` in a register is safe with `cur`."""
    if exact == EXACT:
        return _exactly(old, cur, ids)
    type = old.type
    if type == NOT_INIT:
        return exact == NOT_EXACT or cur.type == NOT_INIT
    if type != cur.type:
        return False
    if type == SCALAR:
        if ids.strict:
            return old.val == cur.val and old.extra == cur.extra and ids.same_scalar(old.id, cur.id)
        if not precise and exact == NOT_EXACT:
            return True
        if old.extra is not None:
            if old.extra != cur.extra:
                return False
        elif old.id and cur.extra is not None:
            return False
        return ids.same_scalar(old.id, cur.id) and old.val.covers(cur.val)
    base = type & BASE
    if base in _MEMORY:
        return (
            old.off == cur.off and old.extra == cur.extra and old.uid == cur.uid and old.val.covers(cur.val)
            and ids.same(old.id, cur.id) and ids.same(old.ref, cur.ref)
        )
    if base in (PACKET, PACKET_META):
        if old.extra < 0 or cur.extra < 0:
            if old.extra != cur.extra:
                return False
        elif old.extra > cur.extra:
            return False
        return old.off == cur.off and ids.same(old.id, cur.id) and old.val.covers(cur.val)
    if base == STACK:
        return old.extra == cur.extra and _exactly(old, cur, ids)
    return _exactly(old, cur, ids)


def _as_scalar(slot: Slot, allow_uninit: bool) -> Reg | None:
    """Return what a load of all 8 bytes would give when that is a scalar and tracked as one."""
    kinds = slot.kinds
    if kinds == "rrrrrrrr":
        return slot.reg if slot.reg is not None and slot.reg.type == SCALAR else None
    if kinds == "mmmmmmmm" or (allow_uninit and not kinds.strip("m?")):
        return UNKNOWN_REG
    return None


def _slot_safe(old: Slot, cur: Slot, precise: int, ids: IdMap, exact: int, allow_uninit: bool) -> bool:
    if exact != NOT_EXACT and old.kinds != cur.kinds:
        return False
    if old is cur and old.reg is None:
        return True
    old_reg, cur_reg = _as_scalar(old, allow_uninit), _as_scalar(cur, allow_uninit)
    kinds = old.kinds
    if not kinds.strip("?m" if allow_uninit else "?"):
        return True
    if old_reg is not None and cur_reg is not None:
        return reg_safe(old_reg, cur_reg, precise, ids, exact)
    for old_kind, cur_kind in zip(kinds, cur.kinds, strict=True):
        if old_kind == "?" or (allow_uninit and old_kind == "m") or old_kind == cur_kind:
            continue
        if old_kind == "m" and cur_kind == "0":
            continue
        return False
    last = kinds[7]
    if last == "r":
        assert old.reg is not None and cur.reg is not None
        return reg_safe(old.reg, cur.reg, precise, ids, exact)
    if last == "d":
        assert old.reg is not None and cur.reg is not None
        return old.reg.extra == cur.reg.extra and ids.same(old.reg.ref, cur.reg.ref)
    if last == "i":
        assert old.reg is not None and cur.reg is not None
        one, two = old.reg.extra, cur.reg.extra
        return one.kind == two.kind and one.active == two.active and ids.same(old.reg.ref, cur.reg.ref)
    if last == "f":
        assert old.reg is not None and cur.reg is not None
        return ids.same(old.reg.ref, cur.reg.ref)
    return True


def _frame_safe(env: Env, old: Frame, cur: Frame, live: int, ids: IdMap, exact: int) -> bool:
    if old.callback_depth > cur.callback_depth:
        return False
    old_regs, cur_regs, precise = old.regs, cur.regs, old.precise if env.capable else -1
    for i in range(11):
        if live >> i & 1 and not reg_safe(old_regs[i], cur_regs[i], precise >> i & 1, ids, exact):
            return False
    cur_stack = cur.stack
    depth = len(cur_stack)
    precise = old.precise_slots if env.capable else -1
    allow_uninit = env.allow_uninit
    for i, slot in enumerate(old.stack):
        if i >= depth:
            if exact != NOT_EXACT or slot.kinds.strip("?m" if allow_uninit else "?"):
                return False
            continue
        if not _slot_safe(slot, cur_stack[i], precise >> i & 1, ids, exact, allow_uninit):
            return False
    return True


def _held_alike(old: State, cur: State, ids: IdMap) -> bool:
    """Tell whether both hold the same locks and references."""
    if (
        len(old.refs) != len(cur.refs) or old.locks != cur.locks or old.preempt_locks != cur.preempt_locks
        or old.rcu_locks != cur.rcu_locks or old.lock_owner is not cur.lock_owner
        or not ids.same(old.irq_id, cur.irq_id) or not ids.same(old.lock_id, cur.lock_id)
    ):
        return False
    for one, two in zip(old.refs, cur.refs, strict=True):
        if not ids.same(one.id, two.id) or one.kind != two.kind:
            return False
        if one.kind == "lock" and one.owner is not two.owner:
            return False
    return True


def states_equal(env: Env, old: State, cur: State, exact: int) -> bool:
    """Tell whether every continuation that was safe from `old` is safe from `cur`."""
    if len(old.frames) != len(cur.frames):
        return False
    if old.speculative and not cur.speculative:
        return False
    ids = IdMap(env.ids, env.strict_scalars)
    if not _held_alike(old, cur, ids):
        return False
    live_regs = env.live_regs
    last = len(old.frames) - 1
    for i, (one, two) in enumerate(zip(old.frames, cur.frames, strict=True)):
        if one.callsite != two.callsite:
            return False
        pc = old.pc if i == last else old.frames[i + 1].callsite
        if not _frame_safe(env, one, two, live_regs[pc], ids, exact):
            return False
    return True


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
            if slot.kinds[0] == "i" and slot.reg is not None and isinstance(slot.reg.extra, Iterator) and slot.reg.extra.active:
                other = two.stack[i].reg
                if other is None or other.extra.depth != slot.reg.extra.depth:
                    return True
    return False


def _iterator_is_active(env: Env, cur: State) -> bool:
    reg = cur.frames[-1].regs[1]
    slot = cur.frames[reg.extra].stack[(-(reg.off + reg.val.smin) - 1) // 8]
    return slot.reg is not None and slot.reg.extra.active


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
        _clean(env, known, cur)
        for old in list(known):
            if old.branches:
                equal, loop = _equal_in_progress(env, pc, old, cur)
                if not equal and not forced and jumps < 20 and processed < 100:
                    add = False
            else:
                loop = is_incomplete(env, old)
                equal = states_equal(env, old, cur, RANGE_WITHIN if loop else NOT_EXACT)
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
                if old.branches or is_incomplete(env, old):
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
        _maybe_looping(old, cur) and states_equal(env, old, cur, EXACT) and not _iterations_differ(old, cur)
        and old.may_goto_depth == cur.may_goto_depth and old.callback_unroll == cur.callback_unroll
    ):
        if env.trace:
            env.trace.source(pc)
        states = (f"{word} state:{format_state(state, state.frames[-1])}" for word, state in (("cur", cur), ("old", old)))
        env.refuse("infinite_loop", more=tuple(states), pc=pc)
    return False, False


def _remember(env: Env, key: tuple[int, int], cur: State, pc: int) -> None:
    stats = env.stats
    stats.total_states += 1
    env.explored_count += 1
    env.buckets[_bucket(env, key)] += 1
    env.count_states()
    env.prev_jumps, env.prev_processed = env.jumps, env.processed
    new = cur.copy()
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
    refreshed = False
    for old in known:
        if old.branches or old.cleaned or not old.same_callsites(cur) or is_incomplete(env, old):
            continue
        if not refreshed:
            env.liveness.refresh()
            refreshed = True
        _clean_state(env, old)


def _clean_state(env: Env, state: State) -> None:
    state.cleaned = True
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


# --- callbacks and iterators: forget what a round changed ----------------------------------------------------------------

def previous_entry(env: Env, cur: State, pc: int) -> State | None:
    """Return the newest remembered state at `pc` that the current path came through, under the same calls."""
    for old in env.explored.get((pc, cur.frames[-1].callsite if cur.frames else MAIN_CALLSITE), ()):
        if old.branches and old.same_callsites(cur) and old.depth < cur.depth:
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
    return old.type == SCALAR and cur.type == SCALAR and not _exactly(old, cur, ids)

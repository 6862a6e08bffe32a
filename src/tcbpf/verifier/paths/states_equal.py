"""Compare states: when the old one is as wide as the current one, the current path need not be followed.

A state that is still in use is compared register by register: `states_equal`. A final one, from which every path was followed,
is compared with many others and changes no more: what matters in it is listed once, as tests, and the test that failed last is
made first the next time. The tests give what `states_equal` gives with NOT_EXACT, in any order.

Source:  states_equal(), regsafe(), stacksafe(), refsafe(), kernel/bpf/verifier.c (v6.18).
"""

from __future__ import annotations

from typing import Final

from tcbpf.verifier.state.env import Env
from tcbpf.verifier.state.state import REG_FP, UNKNOWN_REG, Frame, Reg, Slot, State, Test
from tcbpf.verifier.values.types import BASE, BUF, MAP_KEY, MAP_VALUE, MEM, NOT_INIT, PACKET, PACKET_META, SCALAR, STACK

NOT_EXACT, EXACT, RANGE_WITHIN = range(3)
"""How alike: what the old state's continuation relied on; everything; everything, ranges as subsets."""


class IdMap:
    """Which id of the current state stands for which of the old one: one for one."""

    __slots__ = ("cur_of", "old_of", "spare", "strict")

    def __init__(self, spare: int, strict: bool) -> None:
        self.cur_of: dict[int, int] = {}
        self.old_of: dict[int, int] = {}
        self.spare = spare
        self.strict = strict  # numbers must be equal, not only within what is known

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


def exactly(old: Reg, cur: Reg, ids: IdMap) -> bool:
    return old.same_as(cur) and ids.same(old.id, cur.id) and ids.same(old.ref, cur.ref)


def reg_safe(old: Reg, cur: Reg, precise: int, ids: IdMap, exact: int) -> bool:
    """Tell whether what was safe with `old` in a register is safe with `cur`."""
    if exact == EXACT:
        return exactly(old, cur, ids)
    type = old.type
    if type == NOT_INIT:
        return exact == NOT_EXACT or cur.type == NOT_INIT
    if type != cur.type:
        return False
    if type == SCALAR:
        if ids.strict:
            return old.val == cur.val and old.delta == cur.delta and ids.same_scalar(old.id, cur.id)
        if not precise and exact == NOT_EXACT:
            return True
        if old.delta is not None:
            if old.delta != cur.delta:
                return False
        elif old.id and cur.delta is not None:
            return False
        return old.val.covers(cur.val) and ids.same_scalar(old.id, cur.id)
    base = type & BASE
    if base in _MEMORY:
        return (
            old.off == cur.off
            and old.extra == cur.extra
            and old.uid == cur.uid
            and old.val.covers(cur.val)
            and ids.same(old.id, cur.id)
            and ids.same(old.ref, cur.ref)
        )
    if base in (PACKET, PACKET_META):
        if old.range < 0 or cur.range < 0:
            if old.range != cur.range:
                return False
        elif old.range > cur.range:
            return False
        return old.off == cur.off and ids.same(old.id, cur.id) and old.val.covers(cur.val)
    if base == STACK:
        return old.extra == cur.extra and exactly(old, cur, ids)
    return exactly(old, cur, ids)


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
        return old.reg.dynptr == cur.reg.dynptr and ids.same(old.reg.ref, cur.reg.ref)
    if last == "i":
        assert old.reg is not None and cur.reg is not None
        one, two = old.reg.iter, cur.reg.iter
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
        len(old.refs) != len(cur.refs)
        or old.locks != cur.locks
        or old.preempt_locks != cur.preempt_locks
        or old.rcu_locks != cur.rcu_locks
        or old.lock_owner is not cur.lock_owner
        or not ids.same(old.irq_id, cur.irq_id)
        or not ids.same(old.lock_id, cur.lock_id)
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


# --- a final state, by tests -------------------------------------------------------------------------------------------

TYPE, NUMBER, VALUE, LINKED, BYTES, SPILL, SLOT, DEPTH = range(8)
"""What a test looks at: a scalar, whichever; a scalar of which only the range matters; another register; a register with an id
or a reference; a stack slot of which only the kinds of the bytes matter; one that holds a NUMBER; another slot; a frame's
rounds of callbacks.
"""


def tests_of(env: Env, old: State) -> list[Test]:
    """Return what must hold of a state so that it is as safe as `old`, whose dead registers and slots are forgotten."""
    tests: list[Test] = []
    trivial = "?m" if env.allow_uninit else "?"
    for number, frame in enumerate(old.frames):
        precise = frame.precise if env.capable else -1
        for i in range(REG_FP):
            reg = frame.regs[i]
            if reg.type != NOT_INIT:
                kind = TYPE if reg.type == SCALAR and not precise >> i & 1 else _kind(reg)
                tests.append(Test(kind, number, i, reg, 1))
        precise = frame.precise_slots if env.capable else -1
        for i, slot in enumerate(frame.stack):
            if slot.kinds.strip(trivial):
                mark = precise >> i & 1
                tests.append(Test(_slot_kind(slot, mark), number, i, slot, mark))
        if frame.callback_depth:
            tests.append(Test(DEPTH, number, 0, None, frame.callback_depth))
    tests.sort(key=_promise, reverse=True)
    return tests


def _promise(test: Test) -> int:
    """Return how soon to make a test: a number that was relied upon is what differs most, the mere type least."""
    return 3 if test.kind in (NUMBER, SPILL) else 1 if test.kind in (TYPE, BYTES) else 2


def _kind(reg: Reg) -> int:
    if reg.id or reg.ref:
        return LINKED
    return NUMBER if reg.type == SCALAR and reg.delta is None else VALUE


def _slot_kind(slot: Slot, precise: int) -> int:
    reg = slot.reg
    if reg is None or (reg.type == SCALAR and not precise):
        return BYTES
    return SPILL if slot.spilled and _kind(reg) == NUMBER else SLOT


def final_equal(env: Env, old: State, cur: State, bare: bool) -> bool:
    """Tell what `states_equal` does with NOT_EXACT of a final state; `bare` says that the current one holds nothing.

    Not where scalars must be the same (env.strict_scalars).
    """
    ids: IdMap | None = None
    if not (bare and old.bare):
        ids = IdMap(env.ids, False)
        if not _held_alike(old, cur, ids):
            return False
    frames, tests = cur.frames, old.tests
    for at, test in enumerate(tests):
        kind, number, place, what, mark = test
        frame = frames[number]
        reg: Reg | None
        if kind <= VALUE:
            reg = frame.regs[place]
            if reg is what:
                continue
            if kind == TYPE:
                if reg.type == SCALAR:
                    continue
            elif kind == NUMBER:
                if reg.type == SCALAR and what.val.covers(reg.val):
                    continue
            elif reg.type == what.type and reg_safe(what, reg, 1, ids or IdMap(env.ids, False), NOT_EXACT):
                continue
        elif kind == LINKED:
            if ids is None:
                ids = IdMap(env.ids, False)
            if reg_safe(what, frame.regs[place], 1, ids, NOT_EXACT):
                continue
        elif kind == DEPTH:
            if mark <= frame.callback_depth:
                continue
        elif place < len(frame.stack):
            slot = frame.stack[place]
            reg = slot.reg
            if kind == SLOT or slot.kinds != what.kinds:
                if ids is None:
                    ids = IdMap(env.ids, False)
                if _slot_safe(what, slot, mark, ids, NOT_EXACT, env.allow_uninit):
                    continue
            elif kind == BYTES:
                if slot.kinds[7] != "r" or (reg is not None and reg.type == SCALAR):
                    continue
            elif reg is not None and reg.type == SCALAR and what.reg.val.covers(reg.val):
                continue
        if at:
            del tests[at]
            tests.insert(0, test)
        return False
    return True

"""Open-coded iterators on the stack: bpf_iter_NAME_new(), _next() and _destroy().

A call of next is followed twice: first as if it gave nothing, and on a path of its own as if it gave an element. A round that
changes nothing on whose range anybody relies ends the loop, as for callbacks.

Source:  process_iter_arg(), process_iter_next_call(), mark_stack_slots_iter(), kernel/bpf/verifier.c (v6.18).
"""

from __future__ import annotations

from typing import NamedTuple

from tcbpf.tables.kfuncs import Kfunc
from tcbpf.uapi.kfuncs import SIZES
from tcbpf.verifier.memory import stack
from tcbpf.verifier.memory.dynptr import destroy_dynptr, object_slot
from tcbpf.verifier.memory.references import acquire, release
from tcbpf.verifier.paths.paths import push_path
from tcbpf.verifier.paths.prune import previous_entry, widen
from tcbpf.verifier.state.env import Env
from tcbpf.verifier.state.state import NO_SLOT, ZERO, ZERO_REG, Iterator, Reg, Slot, State
from tcbpf.verifier.values.types import MAYBE_NULL, RCU, STACK, UNTRUSTED
from tcbpf.verifier.words.reasons import kernel_words


class Place(NamedTuple):
    """Where an iterator lies: the frame, the slot of its first eight bytes, and how many slots it has."""

    frame: int
    spi: int
    slots: int


def check_iterator(env: Env, regno: int, reg: Reg, kfunc: Kfunc) -> Place:
    """Check the iterator that a kfunc takes as an argument; make it for new, end it for destroy.

    Raises:  Refused.
    """
    arg = regno - 1
    if reg.type != STACK:
        env.refuse("iter_stack", arg=arg)
    struct = kfunc.params[arg].target.removeprefix("struct ")
    kind, slots = struct.removeprefix("bpf_iter_"), SIZES[struct] // 8
    if kfunc.has("ITER_NEW"):
        place = _place(env, reg, slots, "iter_initialized", kind, arg)
        if _holds_iterator(env, place):
            env.refuse("iter_initialized", kind=kind, arg=arg)
        stack.check_within(env, regno, reg, reg.off, 8 * slots, stack.WRITE)
        for i in range(slots):
            destroy_dynptr(env, env.cur.frames[place.frame], place.spi - i)
        _make(env, place, kind, kfunc)
        if env.trace:
            env.trace.slots |= _mask(place)
        return place
    place = _place(env, reg, slots, "iter_uninitialized", kind, arg)
    first = _first(env, place, kind)
    if first is None:
        env.refuse("iter_uninitialized", kind=kind, arg=arg)
    if first.type & UNTRUSTED:
        env.refuse("iter_rcu", name=kfunc.name)
    env.liveness.read(place.frame, _mask(place))
    if env.trace:
        env.trace.slots |= _mask(place)
    if kfunc.has("ITER_DESTROY"):
        _destroy(env, place)
    return place


def _place(env: Env, reg: Reg, slots: int, reason: str, kind: str, arg: int) -> Place:
    """Return where a stack pointer points to.

    Raises:  Refused when no iterator of that size can lie there.
    """
    return Place(reg.frame, object_slot(env, reg, slots, "iter", kernel_words(reason, kind=kind, arg=arg)), slots)


def _mask(place: Place) -> int:
    return ((1 << place.slots) - 1) << (place.spi + 1 - place.slots)


def _holds_iterator(env: Env, place: Place) -> bool:
    """Tell whether an iterator lies there: never, as the kernel sees it, where the stack has yet to grow to the first slot."""
    held = env.cur.frames[place.frame].stack
    return place.spi < len(held) and any("i" in held[place.spi - i].kinds for i in range(place.slots))


def _first(env: Env, place: Place, kind: str) -> Reg | None:
    """Return what the first slot of an iterator of that kind says, None when there is no whole one."""
    held = env.cur.frames[place.frame].stack
    if place.spi >= len(held):
        return None
    for i in range(place.slots):
        slot = held[place.spi - i]
        reg = slot.reg
        if slot.kinds != "iiiiiiii" or reg is None or reg.iter.kind != kind or bool(reg.ref) == bool(i):
            return None
    return held[place.spi].reg


def _make(env: Env, place: Place, kind: str, kfunc: Kfunc) -> None:
    frame = env.cur.frames[place.frame]
    ref = acquire(env)
    type = STACK
    if kfunc.has("RCU_PROTECTED"):
        type |= RCU if env.cur.rcu_locks or not env.cur.sleepable else UNTRUSTED
    for i in range(place.slots):
        frame.stack[place.spi - i] = Slot("iiiiiiii", Reg(type, ZERO, ref=0 if i else ref, extra=Iterator(kind, True, 0)))
    env.liveness.write(place.frame, _mask(place))


def _destroy(env: Env, place: Place) -> None:
    held = env.cur.frames[place.frame].stack
    first = held[place.spi].reg
    assert first is not None
    release(env, first.ref)
    for i in range(place.slots):
        held[place.spi - i] = NO_SLOT
    env.liveness.write(place.frame, _mask(place))


def iterator_at(state: State, place: Place) -> Reg:
    """Return what the first slot of an iterator says."""
    reg = state.frames[place.frame].stack[place.spi].reg
    assert reg is not None
    return reg


def follow_next(env: Env, place: Place, pc: int) -> None:
    """After next: the current path got nothing; another got an element, which r0 holds, and will come by again."""
    reg = iterator_at(env.cur, place)
    if reg.iter.active:
        state = env.cur.copy()
        parent = env.cur.parent
        assert parent is not None  # a call of next is always remembered first
        previous = previous_entry(env, parent, pc)
        push_path(env, state, pc + 1)
        _set(state, place, reg, Iterator(reg.iter.kind, True, reg.iter.depth + 1))
        if previous is not None:
            widen(env, previous, state)
        regs = state.frames[-1].regs
        regs[0] = regs[0].with_type(regs[0].type & ~MAYBE_NULL)
    _set(env.cur, place, reg, Iterator(reg.iter.kind, False, reg.iter.depth))
    env.frame.regs[0] = ZERO_REG


def _set(state: State, place: Place, old: Reg, extra: Iterator) -> None:
    state.frames[place.frame].stack[place.spi] = Slot("iiiiiiii", Reg(old.type, ZERO, ref=old.ref, extra=extra))

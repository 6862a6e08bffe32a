"""Objects that live on the stack: where one lies, and dynptrs, made, found, destroyed and released.

Source:  mark_stack_slots_dynptr(), unmark_stack_slots_dynptr(), destroy_if_dynptr_stack_slot(), kernel/bpf/verifier.c (v6.18).
"""

from __future__ import annotations

from tcbpf.verifier.memory.invalidate import invalid, replace_registers
from tcbpf.verifier.memory.references import acquire, release
from tcbpf.verifier.state.env import Env
from tcbpf.verifier.state.state import NO_SLOT, ZERO, Dynptr, Frame, Reg, Slot
from tcbpf.verifier.values.types import DYNPTR, MAYBE_NULL, MEM

_REFCOUNTED = frozenset(("ringbuf", "file"))


def object_slot(env: Env, reg: Reg, slots: int, what: str, more: tuple[str, ...]) -> int:
    """Return the first slot (the highest index) of an object of so many slots that a stack pointer points to.

    Raises:  Refused when none can lie there; `more` are the lines that end the complaint.
    Differs: an object at offset 0, above the frame, is refused; the kernel takes one of 8 bytes there for the one at -8.
    """
    if reg.val.mask:
        env.refuse("object_constant_offset", more=more, what=what)
    off = reg.off + reg.val.smin
    spi = (-off - 1) // 8
    if off % 8 or spi + 1 < slots:
        env.refuse("object_offset", more=more, what=what, off=off)
    return spi


def dynptr_slot(env: Env, reg: Reg, more: tuple[str, ...] = ()) -> int:
    """Return the first slot (the higher index) of the dynptr that a stack pointer points to.

    Raises:  Refused when it cannot be one; `more` are the lines that end the complaint.
    """
    if reg.val.mask:
        env.refuse("dynptr_constant_offset", more=more)
    off = reg.off + reg.val.smin
    if off % 8 or off >= 0 or off < -512:
        env.refuse("dynptr_offset", more=more, off=off)
    spi = (-off - 1) // 8
    if spi < 1:
        env.refuse("dynptr_offset", more=more, off=off)
    return spi


def make_dynptr(env: Env, reg: Reg, kind: str, ref: int = 0) -> None:
    """Put a new dynptr into the two slots a stack pointer points to."""
    spi = dynptr_slot(env, reg)
    frame = env.cur.frames[reg.frame]
    frame.grow(8 * (spi + 1))
    sub = env.subprogs[frame.subprog]
    sub.stack_depth = max(sub.stack_depth, 8 * (spi + 1))
    destroy_dynptr(env, frame, spi)
    destroy_dynptr(env, frame, spi - 1)
    id = env.new_id()
    if kind in _REFCOUNTED and not ref:
        ref = acquire(env)
    if env.trace:
        env.trace.slots |= 3 << (spi - 1)
    frame.stack[spi] = Slot("dddddddd", Reg(DYNPTR, ZERO, id=id, ref=ref, extra=Dynptr(kind, True)))
    frame.stack[spi - 1] = Slot("dddddddd", Reg(DYNPTR, ZERO, id=id, ref=ref, extra=Dynptr(kind, False)))
    env.liveness.write(frame.number, 3 << (spi - 1))


def dynptr_at(env: Env, reg: Reg, more: tuple[str, ...] = ()) -> Reg | None:
    """Return the dynptr that a register points to, on the stack or given to a callback; None when it is not one."""
    if reg.type == DYNPTR:
        return reg
    spi = dynptr_slot(env, reg, more)
    stack = env.cur.frames[reg.frame].stack
    if spi >= len(stack):
        return None
    one, two = stack[spi], stack[spi - 1]
    if one.kinds != "dddddddd" or two.kinds != "dddddddd" or one.reg is None or not one.reg.dynptr.first:
        return None
    env.liveness.read(reg.frame, 3 << (spi - 1))
    if env.trace:
        env.trace.slots |= 3 << (spi - 1)
    held: Reg = one.reg
    return held


def destroy_dynptr(env: Env, frame: Frame, spi: int) -> None:
    """A store reaches slot `spi`: a dynptr there is gone with all that was derived from it, unless it must be released."""
    if spi >= len(frame.stack) or "d" not in frame.stack[spi].kinds:
        return
    reg = frame.stack[spi].reg
    assert reg is not None
    if not reg.dynptr.first:
        spi += 1
    if reg.dynptr.kind in _REFCOUNTED:
        env.refuse("dynptr_overwrite")
    frame.stack[spi] = frame.stack[spi - 1] = NO_SLOT
    if env.trace:
        env.trace.slots |= 3 << (spi - 1)
    env.liveness.write(frame.number, 3 << (spi - 1))
    _forget_slices(env, reg.id)


def release_dynptr(env: Env, reg: Reg) -> bool:
    """Release the dynptr a stack pointer points to, with every dynptr and slice of the same reference."""
    spi = dynptr_slot(env, reg)
    frame = env.cur.frames[reg.frame]
    first = frame.stack[spi].reg
    assert first is not None
    ref = first.ref
    if not ref:
        _remove_dynptr(env, frame, spi, first.id)
        return True
    found = release(env, ref)
    for other in env.cur.frames:
        for i in range(1, len(other.stack)):
            held = other.stack[i].reg
            if other.stack[i].kinds[0] == "d" and held is not None and held.ref == ref and held.dynptr.first:
                _remove_dynptr(env, other, i, held.id)
    return found


def _remove_dynptr(env: Env, frame: Frame, spi: int, id: int) -> None:
    frame.stack[spi] = frame.stack[spi - 1] = NO_SLOT
    env.liveness.write(frame.number, 3 << (spi - 1))
    _forget_slices(env, id)


def _forget_slices(env: Env, id: int) -> None:
    """A dynptr is gone, and the memory that a helper gave of it; slices of a packet stay valid as long as the packet does."""
    gone = invalid(env)
    replace_registers(env.cur, lambda reg: gone if reg.type in (MEM, MEM | MAYBE_NULL) and reg.uid == id else reg)

"""The stack: spilling and filling registers, plain bytes, unknown offsets, and what a helper is given.

Source:  check_stack_read(), check_stack_write(), check_stack_range_initialized(), kernel/bpf/verifier.c (v6.18).
"""

from __future__ import annotations

from tcbpf.verifier.memory.dynptr import destroy_dynptr
from tcbpf.verifier.paths.precision import mark_precise
from tcbpf.verifier.paths.prune import push_step
from tcbpf.verifier.state.env import MAX_VAR_OFF, Env
from tcbpf.verifier.state.insns import Ins
from tcbpf.verifier.state.state import (
    MAX_STACK,
    MISC_SLOT,
    UNKNOWN_REG,
    ZERO_REG,
    ZERO_SLOT,
    Frame,
    Reg,
    Slot,
    stack_step,
)
from tcbpf.verifier.values.types import SCALAR, STACK, is_spillable
from tcbpf.verifier.words.format import var_text

READ, WRITE = "read from", "write to"


def check_within(env: Env, regno: int, reg: Reg, off: int, size: int, how: str) -> tuple[int, int]:
    """Check that an access lies in the stack, and grow the frame to hold it; return the lowest and the highest start.

    Units:   off includes the pointer's fixed part.
    Raises:  Refused.
    """
    val = reg.val
    if not val.mask:
        low = high = val.smin + off
    else:
        if val.smax >= MAX_VAR_OFF or val.smin <= -MAX_VAR_OFF:
            env.refuse("stack_unbounded", how=how, reg=regno)
        low, high = val.smin + off, val.smax + off
    frame = env.cur.frames[reg.frame]
    bottom = -MAX_STACK if how != READ or env.allow_uninit else -8 * len(frame.stack)
    if low < bottom or low > -1 or high + size > 0 or size < 0:
        place = "bounds" if low < bottom or low > -1 else "end"  # outside of the frame, or from inside of it beyond its end
        if val.mask:
            env.refuse(f"stack_variable_{place}", how=how, reg=regno, var=var_text(val), off=off, size=size)
        env.refuse(f"stack_{place}", how=how, reg=regno, off=off, size=size)
    frame.grow(-low)
    sub = env.subprogs[frame.subprog]
    if -low > sub.stack_depth:
        sub.stack_depth = (-low + 7) // 8 * 8
    return low, high


# --- writing -----------------------------------------------------------------------------------------------------------


def write(env: Env, ins: Ins, regno: int, reg: Reg, off: int, size: int, value: int) -> None:
    """Store register `value` (-1: an unknown or immediate value) into the stack.

    Raises:  Refused.
    """
    low, high = check_within(env, regno, reg, off, size, WRITE)
    frame = env.cur.frames[reg.frame]
    if reg.val.mask:
        _write_variable(env, ins, frame, low, high + size, value)
    else:
        _write_fixed(env, ins, frame, low, size, value)


def _write_fixed(env: Env, ins: Ins, frame: Frame, off: int, size: int, value: int) -> None:
    spi = (-off - 1) // 8
    old = frame.stack[spi]
    if not env.allow_leaks and old.spilled and old.reg is not None and old.reg.type != SCALAR and size != 8:
        env.refuse("stack_spill_corrupt")
    source = env.frame.regs[value] if value >= 0 else None
    if "d" in old.kinds:
        destroy_dynptr(env, frame, spi)
        old = frame.stack[spi]
    if size == 8:
        env.liveness.write(frame.number, 1 << spi)
    constant = source is None and ins.k is not None
    if source is not None and off % 8 == 0 and source.type == SCALAR and env.capable:
        stored = source
        if source.val.umax < 1 << size * 8:
            if source.val.mask and (not source.id or source.delta is not None):
                stored = env.frame.regs[value] = source.with_id(env.new_id())
        else:
            stored = source.with_id(0)
        frame.stack[spi] = _spilled(old, stored, size)
    elif constant and off % 8 == 0 and env.capable:
        assert ins.k is not None
        frame.stack[spi] = _spilled(old, ins.k, size)
    elif source is not None and is_spillable(source.type):
        if size != 8:
            env.refuse("stack_spill_size")
        if frame is not env.frame and source.type == STACK:
            env.refuse("stack_spill_caller")
        frame.stack[spi] = Slot("rrrrrrrr", source)
    else:
        zero = (source is not None and source.type == SCALAR and not source.val.umax) or (constant and ins.imm == 0)
        if zero and value >= 0:
            mark_precise(env, value)
        frame.stack[spi] = _scribbled(old, off, size, "0" if zero else "m")
        return
    push_step(env, env.cur, stack_step(frame.number, spi))


def _spilled(old: Slot, reg: Reg, size: int) -> Slot:
    """Return the slot with a register's low `size` bytes spilled into its lowest bytes."""
    if size == 8:
        return Slot("rrrrrrrr", reg)
    above = "".join(kind if kind in "0?" else "m" for kind in old.kinds[: 8 - size])
    return Slot(above + "r" * size, reg)


def _scribbled(old: Slot, off: int, size: int, kind: str) -> Slot:
    """Return the slot with `size` bytes at `off` of another kind; a spilled register in it is one no longer."""
    if size == 8:
        return MISC_SLOT if kind == "m" else ZERO_SLOT
    kinds = old.kinds
    if kinds[7] in "rif":
        kinds = _scrubbed(kinds)
    start = (-off - size) % 8
    kinds = kinds[:start] + kind * size + kinds[start + size :]
    return Slot(kinds)


def _scrubbed(kinds: str) -> str:
    """Return the bytes of a slot that held something special as plain data."""
    return "".join("?" if kind == "?" else "m" for kind in kinds)


def _write_variable(env: Env, ins: Ins, frame: Frame, low: int, end: int, value: int) -> None:
    source = env.frame.regs[value] if value >= 0 else None
    writes_zero = (source is not None and source.type == SCALAR and not source.val.umax) or (
        source is None and ins.k is not None and ins.imm == 0
    )
    zero_used = False
    for spi in range((-low - 1) // 8, (-end) // 8 - 1, -1):
        if spi >= 0 and "d" in frame.stack[spi].kinds:
            destroy_dynptr(env, frame, spi)
    for byte in range(low, end):
        spi, at = (-byte - 1) // 8, (-byte - 1) % 8
        slot = frame.stack[spi]
        kind = slot.kinds[at]
        if writes_zero and kind == "r" and slot.reg is not None and slot.reg.type == SCALAR and not slot.reg.val.umax:
            zero_used = True
            continue
        kinds = slot.kinds
        if kinds[7] in "rif":
            kinds = _scrubbed(kinds)
        new = "m"
        if writes_zero and kind == "0":
            new, zero_used = "0", True
        frame.stack[spi] = Slot(kinds[:at] + new + kinds[at + 1 :])
    if zero_used and value >= 0:
        mark_precise(env, value)


# --- reading -----------------------------------------------------------------------------------------------------------


def read(env: Env, regno: int, reg: Reg, off: int, size: int, wanted: bool) -> Reg:
    """Return what a load of `size` bytes of stack gives; `wanted` is False when no register receives it.

    Raises:  Refused.
    """
    low, high = check_within(env, regno, reg, off, size, READ)
    if not reg.val.mask:
        return _read_fixed(env, reg.frame, low, size, wanted)
    if not wanted:
        env.refuse("stack_variable_helper", var=var_text(reg.val), off=off, size=size)
    check_initialized(env, regno, reg, off, size)
    frame = env.cur.frames[reg.frame]
    for byte in range(low, high + size):
        if frame.stack[(-byte - 1) // 8].kinds[(-byte - 1) % 8] != "0":
            return UNKNOWN_REG
    return ZERO_REG


def _read_fixed(env: Env, number: int, off: int, size: int, wanted: bool) -> Reg:
    spi = (-off - 1) // 8
    frame = env.cur.frames[number]
    slot = frame.stack[spi]
    start = (-off - size) % 8
    kinds = slot.kinds[start : start + size]
    reg = slot.reg
    env.liveness.read(number, 1 << spi)
    if slot.spilled and reg is not None:
        spilled = slot.kinds.count("r")
        if size == 8 == spilled:
            if not wanted and reg.type != SCALAR and not env.allow_leaks:
                env.refuse("stack_leak", off=off)
            push_step(env, env.cur, stack_step(number, spi))
            return reg
        if reg.type != SCALAR:
            env.refuse("stack_fill_size")
        if not wanted:
            return UNKNOWN_REG
        if size <= spilled and off % 8 == 0:
            push_step(env, env.cur, stack_step(number, spi))
            return reg if not reg.val.umax >> size * 8 else Reg(SCALAR, reg.val)
        _check_kinds(env, kinds, off, size)
        if kinds == "r" * size and not reg.val.umax:
            push_step(env, env.cur, stack_step(number, spi))
            return ZERO_REG
        return ZERO_REG if kinds == "0" * size else UNKNOWN_REG
    _check_kinds(env, kinds, off, size, spill_ok=False)
    return ZERO_REG if kinds == "0" * size else UNKNOWN_REG


def _check_kinds(env: Env, kinds: str, off: int, size: int, spill_ok: bool = True) -> None:
    for i in range(size):
        kind = kinds[size - 1 - i]
        if kind in "m0" or (kind == "r" and spill_ok) or (kind == "?" and env.allow_uninit):
            continue
        env.refuse("stack_uninitialized", off=off, i=i, size=size)


# --- memory handed to a helper -----------------------------------------------------------------------------------------


def check_initialized(
    env: Env, regno: int, reg: Reg, off: int, size: int, *, how: str = READ, zero_size_ok: bool = False
) -> None:
    """Check that all bytes of a range of stack are initialised; a helper that is given them to write may overwrite them.

    Raises:  Refused.
    """
    clobbers = how == WRITE
    if size == 0 and not zero_size_ok:
        env.refuse("zero_sized_read")
    low, high = check_within(env, regno, reg, off, size, how)
    val = reg.val
    number = reg.frame
    frame = env.cur.frames[number]
    read = 0
    for byte in range(low, high + size):
        spi, at = (-byte - 1) // 8, (-byte - 1) % 8
        slot = frame.stack[spi]
        kind = slot.kinds[at]
        read |= 1 << spi
        if kind == "m":
            continue
        if kind == "0" or (kind == "?" and env.allow_uninit):
            if clobbers:
                frame.stack[spi] = Slot(slot.kinds[:at] + "m" + slot.kinds[at + 1 :], slot.reg)
            continue
        if slot.spilled and slot.reg is not None and (slot.reg.type == SCALAR or env.allow_leaks):
            if clobbers:
                frame.stack[spi] = Slot(_scrubbed(slot.kinds))
            continue
        if val.mask:
            env.refuse("stack_uninitialized_variable", reg=regno, var=var_text(val), i=byte - low, size=size)
        env.refuse("stack_uninitialized_helper", reg=regno, off=low, i=byte - low, size=size)
    if read:
        env.liveness.read(number, read)


def check_uninitialized(env: Env, regno: int, reg: Reg, off: int, size: int, zero_size_ok: bool) -> bool:
    """Check a range that a helper fills; return whether it is then to be marked as written by `fill`.

    Raises:  Refused.
    """
    if reg.val.mask:
        check_initialized(env, regno, reg, off, size, how=WRITE, zero_size_ok=zero_size_ok)
        return False
    if size == 0 and not zero_size_ok:
        env.refuse("zero_sized_read")
    low, _ = check_within(env, regno, reg, off, size, WRITE)
    frame = env.cur.frames[reg.frame]
    for byte in range(low, low + size):
        if frame.stack[(-byte - 1) // 8].kinds[(-byte - 1) % 8] == "d":
            env.refuse("dynptr_write", off=byte)
    return True


def fill(env: Env, reg: Reg, off: int, size: int) -> None:
    """Mark a range of stack as holding some data, byte by byte, as a helper that fills it does."""
    frame = env.cur.frames[reg.frame]
    low = reg.val.smin + off
    if env.trace:
        env.trace.touch_slots(low, size)
    for byte in range(low, low + size):
        spi = (-byte - 1) // 8
        slot = frame.stack[spi]
        if not env.allow_leaks and slot.spilled and slot.reg is not None and slot.reg.type != SCALAR:
            env.refuse("stack_spill_corrupt")
        frame.stack[spi] = _scribbled(slot, byte, 1, "m")

"""Find the scalars that a verdict relied on, walking a path backwards from where an exact range was needed.

Two states are alike when the scalars that nobody relied on differ. So whenever a check uses a scalar's range, the registers and
stack slots that it came from are marked precise in the remembered states along the path.

Source:  __mark_chain_precision(), backtrack_insn(), kernel/bpf/verifier.c (v6.18).
"""

from __future__ import annotations

from typing import Final, NoReturn

from tcbpf.tables.insns import Kind
from tcbpf.tables.opcodes import END, MOV, NEG, OPERATION, X
from tcbpf.verifier.state.env import Env
from tcbpf.verifier.state.insns import Ins
from tcbpf.verifier.state.state import MAIN_CALLSITE, REG_FP, STEP_DST_IS_STACK, STEP_SRC_IS_STACK, STEP_STACK, State, Step
from tcbpf.verifier.values.types import SCALAR

_ARGS: Final = 0b111110


class _Lost(Exception):
    """The walk met something it cannot follow: everything must count as relied upon."""


class _Wanted:
    """The registers and slots still looked for, a mask for each frame; `frame` is where the walk is."""

    __slots__ = ("frame", "regs", "slots")

    def __init__(self, frame: int) -> None:
        self.frame = frame
        self.regs = [0] * 9
        self.slots = [0] * 9

    def empty(self) -> bool:
        """Tell whether everything was found."""
        return not (any(self.regs) or any(self.slots))


def mark_precise(env: Env, reg: int) -> None:
    """The range of scalar register `reg` of the current frame was relied upon."""
    if not env.capable:
        return
    state = env.cur
    last = len(state.frames) - 1
    wanted = _Wanted(last)
    wanted.regs[last] = 1 << reg
    _walk(env, state, wanted, env.pc, skip_first=True)


def mark_slot_precise(env: Env, frame: int, spi: int) -> None:
    """The value of the scalar spilled in slot `spi` of `frame` was relied upon."""
    if not env.capable:
        return
    wanted = _Wanted(len(env.cur.frames) - 1)
    wanted.slots[frame] = 1 << spi
    _walk(env, env.cur, wanted, env.pc, skip_first=True)


def propagate_precision(env: Env, old: State, state: State) -> bool:
    """What `old` relies on, the end of the path that leads to `state` relies on too; return whether that was news."""
    wanted = _Wanted(len(old.frames) - 1)
    for number, frame in enumerate(old.frames):
        wanted.regs[number] = frame.precise
        wanted.slots[number] = frame.precise_slots
    if wanted.empty():
        return False
    if env.trace and env.trace.deep:
        env.trace.propagating(old)
    pc = env.pc if state is env.cur else state.pc
    return _walk(env, state, wanted, pc, skip_first=True)


def mark_all_precise(env: Env, state: State) -> None:
    """Every scalar of every remembered state before this one counts as relied upon."""
    if env.trace and env.trace.deep:
        env.trace.forced(state)
    parent = state.parent
    while parent is not None:
        for frame in parent.frames:
            for i in range(10):
                if frame.regs[i].type == SCALAR:
                    frame.precise |= 1 << i
            for i, slot in enumerate(frame.stack):
                if slot.spilled and slot.reg is not None and slot.reg.type == SCALAR:
                    frame.precise_slots |= 1 << i
        parent = parent.parent


def _walk(env: Env, state: State, wanted: _Wanted, last_pc: int, *, skip_first: bool) -> bool:
    """Follow the path backwards until everything wanted was found; return whether a remembered state learned something."""
    start = state
    changed = False
    first_pc = state.first_pc
    step = state.hist
    later = -1
    ins, regs = env.ins, wanted.regs
    trace = env.trace if env.trace and env.trace.deep else None
    try:
        while True:
            if trace:
                trace.walk(wanted.frame, last_pc, first_pc, later)
            if last_pc < 0:
                return _at_entry(env, state, wanted, start) or changed
            pc = last_pc
            while True:
                if skip_first:
                    skip_first = False
                else:
                    here = step if step is not None and step.pc == pc else None
                    if trace and ins[pc].pc == pc:
                        trace.back(wanted.frame, wanted.regs[wanted.frame], wanted.slots[wanted.frame], pc)
                    touches = ins[pc].touches
                    if touches < 0 or regs[wanted.frame] & touches or (here is not None and (here.flags or here.linked)):
                        _back(env, ins[pc], pc, later, here, wanted)
                        if wanted.empty():
                            return changed
                later = pc
                if pc == first_pc and (step is None or (step.older is None and step.pc == pc)):
                    break
                if step is not None and step.pc == pc:
                    pc = step.prev
                    step = step.older
                else:
                    pc -= 1
                if pc < 0:
                    raise _Lost
            parent = state.parent
            if parent is None:
                break
            state = parent
            changed |= _note(state, wanted)
            if trace:
                for number in range(wanted.frame, -1, -1):
                    trace.parent(state, state.frames[number], wanted.regs[number], wanted.slots[number])
            if wanted.empty():
                return changed
            later = first_pc
            last_pc = state.last_pc
            first_pc = state.first_pc
            step = state.hist
        if not wanted.empty():
            mark_all_precise(env, start)
            return True
    except _Lost:
        mark_all_precise(env, start)
        return True
    return changed


def _at_entry(env: Env, state: State, wanted: _Wanted, start: State) -> bool:
    """The walk reached the start of a function that is checked on its own: its arguments are simply relied upon."""
    frame = state.frames[0]
    if len(state.frames) == 1 and frame.callsite == MAIN_CALLSITE and not wanted.slots[0] and not wanted.regs[0] & ~_ARGS:
        for i in range(1, 6):
            if wanted.regs[0] >> i & 1 and frame.regs[i].type == SCALAR:
                frame.precise |= 1 << i
        return False
    mark_all_precise(env, start)
    return True


def _note(state: State, wanted: _Wanted) -> bool:
    """Mark what is wanted in a remembered state; what it has marked already, or is no scalar, is wanted no longer."""
    changed = False
    for number in range(wanted.frame + 1):
        regs, slots = wanted.regs[number], wanted.slots[number]
        if not regs and not slots:
            continue
        frame = state.frames[number]
        news = regs & ~frame.precise
        keep = 0
        if news:
            for i in range(10):
                if news >> i & 1 and frame.regs[i].type == SCALAR:
                    keep |= 1 << i
            frame.precise |= keep
        wanted.regs[number] = keep
        news = slots & ~frame.precise_slots
        keep_slots = 0
        while news:
            low = news & -news
            news ^= low
            i = low.bit_length() - 1
            if i >= len(frame.stack):
                raise _Lost
            slot = frame.stack[i]
            if slot.spilled and slot.reg is not None and slot.reg.type == SCALAR:
                keep_slots |= low
        frame.precise_slots |= keep_slots
        wanted.slots[number] = keep_slots
        changed |= bool(keep or keep_slots)
    return changed


def _sync_linked(wanted: _Wanted, step: Step | None) -> None:
    """When one of the scalars that were refined together is wanted, all are."""
    if step is None or not step.linked:
        return
    for frame, is_reg, index in step.linked:
        if (wanted.regs[frame] if is_reg else wanted.slots[frame]) >> index & 1:
            break
    else:
        return
    for frame, is_reg, index in step.linked:
        if is_reg:
            wanted.regs[frame] |= 1 << index
        else:
            wanted.slots[frame] |= 1 << index


def _back(env: Env, ins: Ins, pc: int, later: int, step: Step | None, wanted: _Wanted) -> None:
    """Undo one instruction: what was wanted after it, in terms of what must be wanted before it."""
    if ins.pc != pc:
        return  # the second half of a 16-byte load
    _sync_linked(wanted, step)
    kind = ins.kind
    here = wanted.frame
    if kind is Kind.ALU:
        _back_alu(ins, wanted, here)
        return
    if kind is Kind.LOAD or (kind is Kind.ATOMIC and (ins.row.fetch or ins.row.name == "LOAD_ACQ")):
        _back_load(ins, step, wanted, here)
        return
    if kind is Kind.STORE or kind is Kind.ATOMIC:
        _back_store(ins, step, wanted, here)
        return
    if kind is Kind.JUMP:
        mask = wanted.regs[here]
        if ins.use_reg and (mask >> ins.dst | mask >> ins.src) & 1:
            flags = step.flags if step is not None else 0
            if not flags & STEP_SRC_IS_STACK:
                wanted.regs[here] |= 1 << ins.src
            if not flags & STEP_DST_IS_STACK:
                wanted.regs[here] |= 1 << ins.dst
    elif kind is Kind.CALL_LOCAL:
        _back_call(env, ins, pc, later, wanted)
        return
    elif env.calls_callback[pc] and pc != later - 1:
        _check_left(env, wanted, "callback")
        wanted.regs[here] = 0
        wanted.frame -= 1
        return
    elif ins.leaves and kind is Kind.CALL and later != pc + 1:
        wanted.frame += 1  # a tail call's target returned to the caller
        return
    elif kind in (Kind.CALL, Kind.CALL_KFUNC):
        wanted.regs[here] &= ~1
        if wanted.regs[here] & _ARGS:
            _give_up(env, f"backtracking call unexpected regs {wanted.regs[here]:x}")
    elif kind is Kind.EXIT:
        _back_exit(env, later, wanted, here)
        return
    elif kind is Kind.LD_IMM64:
        wanted.regs[here] &= ~(1 << ins.dst)
        return
    elif kind in (Kind.LD_ABS, Kind.LD_IND):
        if wanted.regs[here] & 1:
            raise _Lost
        return  # where it left the function, the walk goes on as if in the caller: lost
    _sync_linked(wanted, step)


def _back_alu(ins: Ins, wanted: _Wanted, here: int) -> None:
    dst = 1 << ins.dst
    mask = wanted.regs[here]
    if not mask & dst:
        return
    op = ins.code & OPERATION
    if op in (END, NEG):
        return
    if op == MOV:
        mask &= ~dst
        if ins.code & X and ins.src != REG_FP:
            mask |= 1 << ins.src
    elif ins.code & X and ins.src != REG_FP:
        mask |= 1 << ins.src
    wanted.regs[here] = mask


def _back_load(ins: Ins, step: Step | None, wanted: _Wanted, here: int) -> None:
    """What a load gives is wanted of the slot it reads.

    Differs: an atomic that fetches reads a slot as well. The kernel's walk goes by such a slot and keeps the register wanted,
             which is not enough to be sound; here both are.
    """
    loaded = ins.dst
    if ins.kind is Kind.ATOMIC and ins.row.fetch:
        loaded = 0 if ins.row.name == "CMPXCHG" else ins.src
    bit = 1 << loaded
    if not wanted.regs[here] & bit:
        return
    if ins.kind is not Kind.ATOMIC or not ins.row.fetch:
        wanted.regs[here] &= ~bit
    if step is not None and step.flags & STEP_STACK:
        wanted.slots[step.flags >> 7 & 7] |= 1 << (step.flags >> 1 & 63)


def _back_store(ins: Ins, step: Step | None, wanted: _Wanted, here: int) -> None:
    if wanted.regs[here] >> ins.dst & 1:
        raise _Lost
    if step is None or not step.flags & STEP_STACK:
        return
    frame, bit = step.flags >> 7 & 7, 1 << (step.flags >> 1 & 63)
    if not wanted.slots[frame] & bit:
        return
    wanted.slots[frame] &= ~bit
    if ins.use_reg or ins.kind is Kind.ATOMIC:
        wanted.regs[here] |= 1 << ins.src


def _back_call(env: Env, ins: Ins, pc: int, later: int, wanted: _Wanted) -> None:
    here = wanted.frame
    if env.subprogs[env.subprog_at[ins.target]].is_global:
        if wanted.regs[here] & _ARGS:
            _give_up(env, f"global subprog unexpected regs {wanted.regs[here]:x}")
        wanted.regs[here] &= ~1
        return
    _check_left(env, wanted, "static subprog")
    wanted.regs[here - 1] |= wanted.regs[here]
    wanted.regs[here] = 0
    wanted.frame -= 1


def _back_exit(env: Env, later: int, wanted: _Wanted, here: int) -> None:
    if later >= 0 and env.calls_callback[later]:
        wanted.regs[here] &= ~_ARGS  # the helper itself gives a callback its arguments
    from_call = later >= 1 and env.ins[later - 1].kind is Kind.CALL_LOCAL and env.ins[later - 1].pc == later - 1
    if from_call and wanted.regs[here] & _ARGS:
        _give_up(env, f"backtracking exit unexpected regs {wanted.regs[here]:x}")
    result = from_call and wanted.regs[here] & 1
    wanted.regs[here] &= ~1
    if here >= 7:
        raise _Lost
    wanted.frame += 1
    if result:
        wanted.regs[here + 1] |= 1


def _check_left(env: Env, wanted: _Wanted, what: str) -> None:
    """On the way back from a function to its call, only arguments can still be wanted of its frame.

    Raises:  Refused.
    """
    here = wanted.frame
    if wanted.regs[here] & ~_ARGS:
        _give_up(env, f"{what} unexpected regs {wanted.regs[here]:x}")
    if wanted.slots[here]:
        _give_up(env, f"{what} leftover stack slots {wanted.slots[here]:x}")
    if not here:
        _give_up(env, "subprog exit from frame 0")


def _give_up(env: Env, what: str) -> NoReturn:
    """Refuse where the kernel's walk meets what it takes for a fault of its own, and refuses."""
    env.refuse("walk_lost", what=what)

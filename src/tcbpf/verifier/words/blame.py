"""Which instructions of the path led to a refusal: those that made the value at fault, and the conditions on it.

Two walks over the path. Forwards, each register and stack slot is given its origins: the loads and calls whose results went
into it; so that a comparison of a copy is known to be one of the value at fault. Backwards, the data dependences are followed
through moves, arithmetic, the stack, calls and callbacks.

Source:  this project; the kernel gives only the log.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from tcbpf.tables.helpers import helper_at
from tcbpf.tables.insns import Kind
from tcbpf.verifier.state.env import Env
from tcbpf.verifier.state.insns import Ins
from tcbpf.verifier.state.state import REG_FP, STEP_STACK, State, Step

MAX_PATH: Final = 100_000
MAX_LOOP: Final = 40
"""Instructions shown of a loop that never ends."""

Place = tuple[int, int]  # frame and register; or frame and 16 + stack slot
_SLOTS: Final = 16
_PACKET_FIELDS: Final = ("data", "data_meta", "data_end")


class Point(NamedTuple):
    """One instruction of the path: in which frame, and which slot it accessed (-1: none) of which frame."""

    pc: int
    frame: int
    slot: int
    slot_frame: int


@dataclass(slots=True)
class Blame:
    """What is to blame: the instructions, oldest first; the register; the call that made its pointer stale, if one did."""

    slice: tuple[int, ...] = ()
    reg: int = -1
    made: tuple[int, ...] = ()  # those of the slice that made the value, newest first
    stale: int = -1


def blame(env: Env, facts: dict[str, Any]) -> Blame:
    """Find what led to the refusal of the instruction that env stands at."""
    path = _path(env)
    if not path:
        return Blame()
    last = path[-1]
    ins = env.ins[last.pc]
    reg = facts.get("reg", -1)
    reg = reg if isinstance(reg, int) and 0 <= reg <= REG_FP else -1
    if facts.get("acquired") is not None:
        return _of_reference(env, path, facts["acquired"])
    if facts.get("loop"):
        return _of_loop(path)
    used = 1 << reg if reg >= 0 else ins.uses & 0x7FF
    at, seen = _origins(env, path)
    wanted = {(last.frame, i) for i in range(REG_FP) if used >> i & 1}
    roots = frozenset().union(*(at.get(place, frozenset()) for place in wanted))
    found = _walk(env, path, wanted, roots, seen)
    found.reg = reg
    return found


# --- the path ----------------------------------------------------------------------------------------------------------


def _path(env: Env) -> list[Point]:
    """Return the current path from the function's start, as far as the history tells."""
    steps: list[tuple[int, int]] = []
    state: State | None = env.cur
    pc = env.pc
    step: Step | None = env.cur.hist
    while state is not None and len(steps) < MAX_PATH and 0 <= pc < len(env.ins):
        here = step is not None and step.pc == pc
        steps.append((pc, step.flags if here and step is not None else 0))
        if pc == state.first_pc and (step is None or (step.older is None and here)):
            last, state = state.last_pc, state.parent
            if state is None or last < 0:
                break
            pc, step = last, state.hist
        elif here and step is not None:
            pc, step = step.prev, step.older
        else:
            pc -= 1
    steps.reverse()
    return _framed(env, [(pc, flags) for pc, flags in steps if env.ins[pc].pc == pc])


def _framed(env: Env, steps: list[tuple[int, int]]) -> list[Point]:
    """Give each step its frame: calls go one deeper, exits one back; the path ends in the innermost open frame."""
    depth, points = 0, []
    for i, (pc, flags) in enumerate(steps):
        slot, owner = (flags >> 1 & 63, flags >> 7 & 7) if flags & STEP_STACK else (-1, 0)
        points.append(Point(pc, depth, slot, owner))
        following = steps[i + 1][0] if i + 1 < len(steps) else -1
        kind = env.ins[pc].kind
        if kind in (Kind.CALL_LOCAL, Kind.CALL) and following != pc + 1 and following in env.subprog_at:
            depth += 1
        elif kind is Kind.EXIT:
            depth -= 1
    shift = len(env.cur.frames) - 1 - (points[-1].frame if points else 0)
    return [point._replace(frame=point.frame + shift) for point in points] if shift else points


# --- forwards: where values come from ----------------------------------------------------------------------------------

Origins = frozenset[int]
_NONE: Final[Origins] = frozenset()


def _origins(env: Env, path: list[Point]) -> tuple[dict[Place, Origins], list[Origins]]:
    """Return the origins before the last instruction, and at each instruction those of what it reads."""
    at: dict[Place, Origins] = {}
    seen: list[Origins] = []
    for i, point in enumerate(path):
        ins, frame = env.ins[point.pc], point.frame
        read = frozenset().union(*(at.get((frame, r), _NONE) for r in _bits(ins.uses & 0x3FF)))
        seen.append(read)
        if i + 1 == len(path):
            break  # the refused one gives nothing
        if ins.kind is Kind.CALL_LOCAL and path[i + 1].frame > frame:
            for r in range(1, 6):
                at[frame + 1, r] = at.get((frame, r), _NONE)
        elif ins.kind is Kind.EXIT:
            at[frame - 1, 0] = at.get((frame, 0), _NONE)
        else:
            _step(env, ins, point, at, read)
    return at, seen


def _step(env: Env, ins: Ins, point: Point, at: dict[Place, Origins], read: Origins) -> None:
    frame, slot = point.frame, (point.slot_frame, _SLOTS + point.slot)
    if ins.kind is Kind.STORE:
        if point.slot >= 0:
            at[slot] = at.get((frame, ins.src), _NONE) if ins.use_reg else _NONE
        return
    if ins.kind is Kind.LOAD:
        at[frame, ins.dst] = at.get(slot, _NONE) if point.slot >= 0 else frozenset((point.pc,))
        return
    new = read if ins.kind is Kind.ALU else frozenset((point.pc,))
    for r in _bits(ins.defs & 0x3FF):
        at[frame, r] = new if ins.kind is not Kind.CALL or not r else _NONE


def _bits(mask: int) -> list[int]:
    return [i for i in range(mask.bit_length()) if mask >> i & 1]


# --- backwards: what is needed -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Search:
    env: Env
    wanted: set[Place]
    kept: list[int]
    made: list[int] = field(default_factory=list)
    stale: int = -1


def _walk(env: Env, path: list[Point], wanted: set[Place], roots: Origins, seen: list[Origins]) -> Blame:
    search = _Search(env, wanted, [path[-1].pc])
    from_packet = any(_is_packet_load(env, pc) for pc in roots)
    for i in range(len(path) - 2, -1, -1):
        point, following = path[i], path[i + 1]
        ins = env.ins[point.pc]
        if ins.kind is Kind.JUMP:
            if seen[i] & roots:
                search.kept.append(point.pc)
        elif ins.kind is Kind.CALL_LOCAL and following.frame > point.frame:
            _into_caller(search, point)
        elif ins.kind is Kind.EXIT:
            if (following.frame, 0) in search.wanted:
                search.wanted.discard((following.frame, 0))
                search.wanted.add((point.frame, 0))
        else:
            if from_packet and search.stale < 0 and _moves_packet(env, ins):
                search.stale = point.pc
                search.kept.append(point.pc)
            _undo(search, ins, point)
    kept = sorted(set(search.kept), key=search.kept.index)[::-1]
    return Blame(tuple(kept), made=tuple(search.made), stale=search.stale)


def _into_caller(search: _Search, point: Point) -> None:
    callee = point.frame + 1
    args = [r for frame, r in search.wanted if frame == callee and 1 <= r <= 5]
    if args:
        search.kept.append(point.pc)
    search.wanted -= {(callee, r) for r in args}
    search.wanted |= {(point.frame, r) for r in args}


def _undo(search: _Search, ins: Ins, point: Point) -> None:
    """Replace what the instruction makes and is wanted by what it makes it from."""
    frame, wanted = point.frame, search.wanted
    if ins.kind is Kind.STORE:
        slot = (point.slot_frame, _SLOTS + point.slot)
        if point.slot >= 0 and slot in wanted:
            wanted.discard(slot)
            search.kept.append(point.pc)
            search.made.append(point.pc)
            if ins.use_reg:
                wanted.add((frame, ins.src))
        return
    made = [r for r in _bits(ins.defs & 0x3FF) if (frame, r) in wanted]
    if not made:
        return
    wanted -= {(frame, r) for r in made}
    search.kept.append(point.pc)
    search.made.append(point.pc)
    if ins.kind in (Kind.CALL, Kind.CALL_LOCAL, Kind.CALL_KFUNC, Kind.LD_ABS, Kind.LD_IND):
        return
    if ins.kind is Kind.LOAD and point.slot >= 0:
        wanted.add((point.slot_frame, _SLOTS + point.slot))
        return
    wanted |= {(frame, r) for r in _bits(ins.uses & 0x3FF)}


def _is_packet_load(env: Env, pc: int) -> bool:
    row = env.aux[pc].field
    return row is not None and row.name in _PACKET_FIELDS


def _moves_packet(env: Env, ins: Ins) -> bool:
    if ins.kind is Kind.CALL:
        row = helper_at(ins.imm)
        return row is not None and row.changes_data
    return ins.kind is Kind.CALL_LOCAL and env.subprogs[env.subprog_at[ins.target]].changes_packet


# --- references and loops ----------------------------------------------------------------------------------------------


def _of_reference(env: Env, path: list[Point], acquired: int) -> Blame:
    """What was acquired at a call and not released: the call, and the conditions on it."""
    _, seen = _origins(env, path)
    kept = [
        point.pc
        for i, point in enumerate(path[:-1])
        if point.pc == acquired or (env.ins[point.pc].kind is Kind.JUMP and acquired in seen[i])
    ]
    return Blame((*dict.fromkeys(kept), path[-1].pc), made=(acquired,))


def _of_loop(path: list[Point]) -> Blame:
    """A loop that never ends: its last round."""
    last = path[-1].pc
    for i in range(len(path) - 2, -1, -1):
        if path[i].pc == last:
            return Blame(tuple(point.pc for point in path[max(i, len(path) - MAX_LOOP) :]))
    return Blame((last,))

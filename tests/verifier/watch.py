"""Beside a run of the interpreter, what the verifier said of each instruction: is every register in one of its states?

`states` verifies a program once more and keeps the registers of every visit. A path that was cut off is as safe as the state it
was compared with, no more: a number that nothing relied on may be another. So there are two ways to ask.

`whole`: paths are cut off only where every live register is within the old state's. Then each live register of a run is within
one visit's, numbers and all.

As verified: paths are cut off as always. Then the run stays on instructions that were visited, each live register is of the
type that one visit has, and at a remembered state the numbers that were relied on are within its.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from tcbpf.obj.program import Program
from tcbpf.verifier import check, explore
from tcbpf.verifier.paths import prune
from tcbpf.verifier.paths import states_equal as alike
from tcbpf.verifier.state.env import Env, SubInfo
from tcbpf.verifier.state.insns import Ins
from tcbpf.verifier.state.state import Frame, Reg
from tcbpf.verifier.values.types import (
    BASE,
    CTX,
    MAP_VALUE,
    MAYBE_NULL,
    NOT_INIT,
    PACKET,
    PACKET_END,
    PACKET_META,
    SCALAR,
    STACK,
)
from tcbpf.vm.interp.interp import Interp, ProgramMachine
from tcbpf.vm.interp.machine import FRAME

LONGEST = 3000
"""How many instructions of a run are looked at."""

MASK = (1 << 64) - 1
Place = tuple[tuple[int, ...], int]
"""The pcs of the open calls, and the pc."""


@dataclass(frozen=True, slots=True)
class Visit:
    """The registers as an instruction was visited, and the frame of the state that was remembered there, if one was."""

    regs: tuple[Reg, ...]
    remembered: Frame | None

    def relied(self, whole: bool) -> int:
        """Return the mask of the registers whose numbers must hold."""
        return -1 if whole else self.remembered.precise if self.remembered is not None else 0


@dataclass
class States:
    """What was found of a program."""

    program: Program
    whole: bool
    visits: dict[Place, list[Visit]] = field(default_factory=dict)
    live: list[int] = field(default_factory=list)
    subprogs: list[SubInfo] = field(default_factory=list)

    def is_global(self, pc: int) -> bool:
        """Tell whether the function around `pc` was verified by itself."""
        return next(sub.is_global for sub in self.subprogs if sub.start <= pc < sub.end)


def states(program: Program, *, whole: bool, limit: int = 20_000) -> States:
    """Return the states of a program that is accepted.

    Raises:  VerifierError, also when more instructions are processed than `limit`.
    """
    found = States(program, whole)
    handler = explore._handler

    def recording(ins: Ins) -> Callable[[Env, Ins], int]:
        run = handler(ins)

        def visit(env: Env, ins: Ins) -> int:
            if not found.live:
                found.live, found.subprogs = env.live_regs, env.subprogs
            calls = tuple(frame.callsite for frame in env.cur.frames[1:])
            parent = env.cur.parent
            here = parent is not None and env.cur.hist is None and parent.pc == env.pc and env.prev_processed == env.processed
            frame = parent.frames[-1] if here and parent is not None else None
            found.visits.setdefault((calls, env.pc), []).append(Visit(tuple(env.frame.regs), frame))
            return run(env, ins)

        return visit

    def within(env: Env, old: Any, cur: Any, bare: bool) -> bool:
        return alike.states_equal(env, old, cur, alike.RANGE_WITHIN)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(explore, "_handler", recording)
        if whole:
            patch.setattr(prune, "NOT_EXACT", alike.RANGE_WITHIN)
            patch.setattr(prune, "final_equal", within)
        check.verify(program, max_insns=limit)
    return found


class Outside(AssertionError):
    """A register that is in none of the states, told with all of them."""


class Enough(Exception):
    """The run is longer than anyone wants to look at."""


class Watched(ProgramMachine):
    """A run that looks before every instruction."""

    found: States
    steps = 0

    def one(self) -> None:
        if self.verified.program.insns is self.found.program.insns and not self.done:
            self._look()
        super().one()

    def _look(self) -> None:
        type(self).steps += 1
        if self.executed > LONGEST:
            raise Enough
        found, pc = self.found, self.pc
        calls = [frame.back - 1 for frame in self.frames]
        first = 0  # a function verified by itself knows nothing of its callers
        for depth, inside in enumerate([*calls, pc]):
            if depth and found.is_global(inside):
                first = depth
        place = tuple(calls[first:]), pc
        visits = found.visits.get(place)
        if not visits:
            raise Outside(f"pc {pc} is reached over {place[0]}, and was never visited so")
        live = found.live[pc]
        if not any(self._within(visit, live, first) for visit in visits):
            regs = " ".join(f"r{i}={self.regs[i]:#x}" for i in range(11) if live >> i & 1)
            lines = "\n".join(
                "  " + " ".join(f"r{i}={_said(visit.regs[i])}" for i in range(11) if live >> i & 1) for visit in visits[:20]
            )
            raise Outside(f"pc {pc}, {found.program.insns[pc]}: {regs}\n{lines}")

    def _within(self, visit: Visit, live: int, first: int) -> bool:
        relied = visit.relied(self.found.whole)
        return all(self._holds(visit.regs[i], self.regs[i], bool(relied >> i & 1), first) for i in range(11) if live >> i & 1)

    def _holds(self, reg: Reg, value: int, relied: bool, first: int) -> bool:
        """Tell whether a register can hold the value."""
        if reg.type == SCALAR:
            return not relied or reg.val.contains(value)
        if reg.type & MAYBE_NULL and not value:
            return True
        base = self._base(reg, value, first)
        return base is None or (reg.val.contains(value - base - reg.off) if self.found.whole else True)

    def _base(self, reg: Reg, value: int, first: int) -> int | None:
        """Return where the memory starts that a pointer points into, None when that is not known of its kind."""
        kind = reg.type & BASE
        if kind == STACK:
            return self.stack + FRAME * (reg.frame + first + 1)
        if kind == CTX:
            return self.ctx
        if kind == PACKET and not reg.id:
            return int(self.skb.data)
        if kind == PACKET_META:
            return int(self.skb.data_meta or self.skb.data)
        if kind == PACKET_END:
            return int(self.skb.data_end)
        if kind == MAP_VALUE and not reg.val.mask:
            region = self._value((value - reg.off - reg.val.value) & MASK)
            return region.start if region is not None else 0
        return None


def _said(reg: Reg) -> str:
    return str(reg.val) if reg.type == SCALAR else "?" if reg.type == NOT_INIT else f"type {reg.type}{reg.off:+d}+{reg.val}"


@contextmanager
def watching(found: States) -> Iterator[type[Watched]]:
    """Have the interpreter look at every instruction of runs of this program."""
    watched = type("WatchedHere", (Watched,), {"found": found, "steps": 0})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Interp, "_machine", lambda engine, ctx, env: watched(engine, ctx, env))
        yield watched

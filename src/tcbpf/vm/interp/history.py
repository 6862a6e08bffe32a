"""Steps that can be undone: what each instruction changed of registers, frames and memory.

The memory is the machine's stack, the packet and its context, the environment, and the maps' files. After an instruction that
may have written, what it can reach is compared with a copy of what it was: an ordinary store reaches one page, a helper what
its arguments point into.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from tcbpf.native.library import struct
from tcbpf.tables.insns import Kind
from tcbpf.vm.interp.interp import Interp, ProgramMachine
from tcbpf.vm.interp.machine import FRAME, FRAMES, Frame, Step

BLOCK, LARGE = 1 << 12, 1 << 18
_compare: Any = ctypes.CDLL(None).memcmp
_compare.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]


class Area:
    """A piece of memory and a copy of what it holds."""

    def __init__(self, start: int, size: int) -> None:
        self.start, self.size = start, size
        self._copy = ctypes.create_string_buffer(ctypes.string_at(start, size), size)
        self._base = ctypes.addressof(self._copy)

    def holds(self, address: int) -> bool:
        """Whether `address` lies inside."""
        return self.start <= address < self.start + self.size

    def changes(self, first: int = 0, end: int | None = None) -> Iterator[Change]:
        """Take over what differs from the copy, and yield what it was."""
        end = self.size if end is None else min(end, self.size)
        for large in range(first, end, LARGE):
            if not self._differs(large, min(LARGE, end - large)):
                continue
            for off in range(large, min(large + LARGE, end), BLOCK):
                size = min(BLOCK, end - off)
                if self._differs(off, size):
                    old = ctypes.string_at(self._base + off, size)
                    ctypes.memmove(self._base + off, self.start + off, size)
                    yield Change(self, off, old)

    def restore(self, off: int, old: bytes) -> None:
        """Put bytes back, in memory and copy."""
        ctypes.memmove(self.start + off, old, len(old))
        ctypes.memmove(self._base + off, old, len(old))

    def _differs(self, off: int, size: int) -> bool:
        return bool(_compare(self.start + off, self._base + off, size))


@dataclass(frozen=True, slots=True)
class Change:
    """Bytes that an instruction overwrote."""

    area: Area
    off: int
    old: bytes


@dataclass(frozen=True, slots=True)
class Place:
    """Where a machine stood, and what it overwrote when it went on."""

    engine: Interp
    pc: int
    done: bool
    executed: int
    regs: tuple[int, ...]
    frames: tuple[Frame, ...]
    may: int
    step: Step | None = None  # the one that led here
    changes: tuple[Change, ...] = ()


class History:
    """A machine and the way it came; `last` is the step that led to where it stands, None at the start."""

    def __init__(self, machine: ProgramMachine) -> None:
        self.machine = machine
        self.last: Step | None = None
        skb = struct("tcbpf_skb")
        self._areas = {
            machine.stack: Area(machine.stack, FRAME * FRAMES),
            machine.ctx: Area(machine.ctx, ctypes.sizeof(skb)),
            machine.env: Area(machine.env, ctypes.sizeof(struct("tcbpf_env"))),
            machine.skb.head: Area(machine.skb.head, machine.skb.end - machine.skb.head),
        }
        self._near = tuple(self._areas.values())
        self._places: list[Place] = []
        self._add_maps()

    def __len__(self) -> int:
        return len(self._places)

    def forward(self) -> Step:
        """Run one instruction.

        Raises:  Stopped, when the program does what it must not.
        """
        machine = self.machine
        place = Place(
            machine.engine,
            machine.pc,
            machine.done,
            machine.executed,
            tuple(machine.regs),
            tuple(machine.frames),
            machine.may,
            self.last,
        )
        op = machine.ops[machine.pc]
        step = machine.step()
        kind = op.kind if op is not None else None
        changes: tuple[Change, ...] = ()
        if kind in (Kind.STORE, Kind.ATOMIC):
            changes = self._stored((place.regs[step.insn.dst] + step.insn.off) & (1 << 64) - 1)
        elif kind not in (Kind.ALU, Kind.JUMP, Kind.JA, Kind.LOAD, Kind.LD_IMM64):
            changes = self._called(place.regs[1:6])
        self._places.append(replace(place, changes=changes))
        self.last = step
        return step

    def back(self) -> bool:
        """Undo one instruction; False at the start."""
        if not self._places:
            return False
        place, machine = self._places.pop(), self.machine
        for change in place.changes:
            change.area.restore(change.off, change.old)
        if place.engine is not machine.engine:
            machine.begin(place.engine)
        machine.pc, machine.done, machine.executed, machine.may = place.pc, place.done, place.executed, place.may
        machine.regs[:], machine.frames[:] = place.regs, place.frames
        self.last = place.step
        return True

    def _stored(self, address: int) -> tuple[Change, ...]:
        """Return what a store changed. One to the context may lie elsewhere than its address says."""
        for area in self._areas.values():
            if area.start == self.machine.ctx and area.holds(address):
                return tuple(area.changes())
            if area.holds(address):
                first = (address - area.start) // BLOCK * BLOCK
                return tuple(area.changes(first, first + 2 * BLOCK))
        return ()

    def _called(self, arguments: tuple[int, ...]) -> tuple[Change, ...]:
        """Return what a call changed: nearby, or in a map that an argument points into, or anywhere by way of the stack."""
        self._add_maps()
        hidden = any(map(self._near[0].holds, arguments))  # a dynptr lies there
        reached = [area for area in self._areas.values() if area in self._near or hidden or any(map(area.holds, arguments))]
        return tuple(change for area in reached for change in area.changes())

    def _add_maps(self) -> None:
        """Keep copies of the maps that the machine has come to know."""
        for values in self.machine.maps:
            if values.address not in self._areas:
                size = int(struct("tcbpf_map").from_address(values.address).size)
                self._areas[values.address] = Area(values.address, size)

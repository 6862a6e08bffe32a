"""The stepping machine: registers, frames and a pc over checked memory. What calls mean is the subclass's.

Source:  RFC 9669, through the rows of tables.insns over `Concrete`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from tcbpf.errors import InternalError, TcbpfError
from tcbpf.isa.concrete import concrete
from tcbpf.isa.insn import Insn
from tcbpf.native.library import constant
from tcbpf.tables.insns import ATOMICS, Kind, Op
from tcbpf.vm.cfg import Slots, target
from tcbpf.vm.interp.memory import Memory, Region, Touch

FRAME = 512  # bytes of stack of one function
FRAMES = 8  # how deep calls nest: MAX_CALL_FRAMES
MASK = (1 << 64) - 1


class Stopped(TcbpfError):
    """The machine refused to go on: what the program did, and at which pc."""

    def __init__(self, pc: int, why: str) -> None:
        self.pc, self.why = pc, why
        super().__init__(f"pc {pc}: {why}")


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction that ran."""

    pc: int
    insn: Insn
    before: tuple[int, ...]  # r0 to r10
    after: tuple[int, ...]
    touches: tuple[Touch, ...]
    depth: int  # 0 in the entry function


@dataclass(frozen=True, slots=True)
class Frame:
    """A function that waits for the one it called."""

    back: int
    saved: tuple[int, ...]  # r6 to r10
    may: int
    then: Callable[[int], None] | None  # called with the r0 of a callback, in place of going on after a call


@dataclass
class Machine:
    """A program being run; `run` goes to the end, `steps` one instruction at a time."""

    insns: Sequence[Insn]
    ops: Slots
    memory: Memory
    budget: int = 1 << 62
    pc: int = 0
    done: bool = False
    executed: int = 0
    regs: list[int] = field(default_factory=lambda: [0] * 11)
    frames: list[Frame] = field(default_factory=list)
    may: int = 0

    def __post_init__(self) -> None:
        self.may = constant("MAX_LOOPS")
        self._stack = ctypes.create_string_buffer(FRAME * FRAMES)
        self.stack = ctypes.addressof(self._stack)
        self.regs[10] = self.stack + FRAME
        self.memory.providers = (self._frames_in_use, *self.memory.providers)

    def _frames_in_use(self, address: int) -> Region:
        size = FRAME * (len(self.frames) + 1)
        return Region("stack", self.stack, size, offset=-size)

    # --- what a subclass decides ---

    def call(self, insn: Insn, op: Op) -> None:
        """Call a helper: take r1 to r5, leave r0."""
        raise Stopped(self.pc, "no helpers here")

    def call_kfunc(self, pc: int) -> None:
        """Call a kernel function: take r1 to r5, leave r0."""
        raise Stopped(pc, "no kernel functions here")

    def named(self, insn: Insn, second: Insn) -> int:
        """Return what an LD_IMM64 with src names."""
        raise Stopped(self.pc, "LD_IMM64 names nothing here")

    def packet_load(self, insn: Insn, op: Op) -> None:
        """Run LD_ABS or LD_IND."""
        raise Stopped(self.pc, "no packet here")

    def load(self, insn: Insn, op: Op) -> int:
        """Return what a load reads, zero-extended."""
        return self.memory.read((self.regs[insn.src] + insn.off) & MASK, op.size)

    def store(self, insn: Insn, op: Op, value: int) -> None:
        """Do a store."""
        self.memory.write((self.regs[insn.dst] + insn.off) & MASK, op.size, value)

    # --- running ---

    def run(self) -> int:
        """Run to the end and return r0.

        Raises:  Stopped, when the program does what it must not.
        """
        while not self.done:
            self.one()
        return self.regs[0]

    def steps(self) -> Iterator[Step]:
        """Yield every instruction after it ran."""
        self.memory.trace = True
        while not self.done:
            yield self.step()

    def step(self) -> Step:
        """Run one instruction and return what it did."""
        self.memory.trace = True
        self.memory.touches = []
        pc, insns, before, depth = self.pc, self.insns, tuple(self.regs), len(self.frames)
        self.one()
        return Step(pc, insns[pc], before, tuple(self.regs), tuple(self.memory.touches), depth)

    def one(self) -> None:
        """Run the instruction at pc."""
        pc = self.pc
        op = self.ops[pc] if 0 <= pc < len(self.ops) else None
        if op is None:
            raise Stopped(pc, "a path leaves the program")
        if self.executed >= self.budget:
            raise Stopped(pc, f"more than {self.budget} instructions")
        self.executed += 1
        self.pc = pc + 1
        try:
            self._one(pc, self.insns[pc], op)
        except Stopped:
            raise
        except TcbpfError as error:
            raise Stopped(pc, str(error)) from error

    def _one(self, pc: int, insn: Insn, op: Op) -> None:
        kind, regs = op.kind, self.regs
        if kind is Kind.ALU:
            algebra = concrete(op.width)
            regs[insn.dst] = op.row.fn(algebra, regs[insn.dst] & algebra.mask, self._source(insn, op) & algebra.mask)
        elif kind is Kind.JUMP:
            algebra = concrete(op.width)
            if op.row.fn(algebra, regs[insn.dst] & algebra.mask, self._source(insn, op) & algebra.mask):
                self.pc = target(pc, insn, op)
        elif kind is Kind.LOAD:
            value = self.load(insn, op)
            regs[insn.dst] = concrete(64).sext(value, op.size * 8) if op.signed else value
        elif kind is Kind.STORE:
            self.store(insn, op, self._source(insn, op))
        elif kind is Kind.JA:
            self.pc = target(pc, insn, op)
        elif kind is Kind.EXIT:
            self.leave()
        elif kind is Kind.LD_IMM64:
            second = self.insns[pc + 1]
            wide = insn.imm & 0xFFFFFFFF | (second.imm & 0xFFFFFFFF) << 32
            regs[insn.dst] = self.named(insn, second) if insn.src else wide
            self.pc = pc + 2
        elif kind is Kind.CALL:
            self.call(insn, op)
        elif kind is Kind.CALL_LOCAL:
            self.enter(target(pc, insn, op))
        elif kind is Kind.CALL_KFUNC:
            self.call_kfunc(pc)
        elif kind is Kind.ATOMIC:
            self._atomic(insn, op)
        elif kind is Kind.MAY_GOTO:
            if self.may == 0:
                self.pc = target(pc, insn, op)
            self.may = max(self.may - 1, 0)
        elif kind in (Kind.LD_ABS, Kind.LD_IND):
            self.packet_load(insn, op)
        else:
            raise InternalError(f"no meaning for {kind.value}")

    def _source(self, insn: Insn, op: Op) -> int:
        return self.regs[insn.src] if op.use_reg else insn.imm & MASK

    def enter(self, where: int, then: Callable[[int], None] | None = None) -> None:
        """Call the function at `where`; it comes back to the pc after the call, having done `then`."""
        if len(self.frames) + 1 >= FRAMES:
            raise Stopped(self.pc - 1, f"calls nest deeper than {FRAMES}")
        self.frames.append(Frame(self.pc, tuple(self.regs[6:11]), self.may, then))
        self.regs[10] = self.stack + FRAME * (len(self.frames) + 1)
        self.may = constant("MAX_LOOPS")
        self.pc = where

    def leave(self) -> None:
        """Return from the function, or end the run."""
        if not self.frames:
            self.done = True
            return
        frame = self.frames.pop()
        self.pc, self.may = frame.back, frame.may
        self.regs[1:6] = [0] * 5
        self.regs[6:11] = frame.saved
        if frame.then is not None:
            frame.then(self.regs[0])

    def _atomic(self, insn: Insn, op: Op) -> None:
        row, regs, memory = op.row, self.regs, self.memory
        algebra = concrete(op.size * 8) if op.size >= 4 else concrete(64)
        base = insn.src if row is ATOMICS["LOAD_ACQ"] else insn.dst
        address = (regs[base] + insn.off) & MASK
        memory.find(address, op.size, write=row is not ATOMICS["LOAD_ACQ"])
        if address % op.size:
            raise Stopped(self.pc - 1, "atomic access that is not aligned")
        if row is ATOMICS["STORE_REL"]:
            memory.write(address, op.size, regs[insn.src])
            return
        old = memory.read(address, op.size)
        if row is ATOMICS["LOAD_ACQ"]:
            regs[insn.dst] = old
            return
        if row is not ATOMICS["CMPXCHG"] or old == regs[0] & algebra.mask:
            memory.write(address, op.size, row.fn(algebra, old, regs[insn.src] & algebra.mask))
        if row.fetch:
            regs[0 if row is ATOMICS["CMPXCHG"] else insn.src] = old

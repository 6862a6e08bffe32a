"""Checked mode: programs that no verifier has seen, run so that they cannot harm the process.

Every load and store is checked against the program's memory and stack, every block pays from a budget, calls nest eight
deep. r1 is the memory, r2 its length; only helpers without arguments can be called. The conformance suite runs this.
"""

from __future__ import annotations

import ctypes
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from tcbpf.errors import InputError
from tcbpf.isa.insn import Insn
from tcbpf.tables.insns import Kind, Op
from tcbpf.tables.opcodes import CALL, JMP, MAX_REG, X
from tcbpf.vm.cfg import Block, Slots, blocks_of, slots_of, target
from tcbpf.vm.interp.machine import FRAME, FRAMES, Machine, Stopped
from tcbpf.vm.interp.memory import Memory, Region
from tcbpf.vm.jit.body import IMPLICIT_ARGS, Body
from tcbpf.vm.jit.elf_image import link
from tcbpf.vm.jit.llvmtext import INTRINSICS
from tcbpf.vm.jit.pages import ENTRY, Pages

BUDGET = 100_000_000  # instructions

HELPERS = {5: "ktime_get_ns", 7: "get_prandom_u32", 8: "get_smp_processor_id"}
"""What may be called, by id: helpers that touch no memory."""

CALLX = Op(Kind.CALL, use_reg=True)
"""Call the helper whose number is in a register: a draft that RFC 9669 left out and clang emits."""


class Fault(IntEnum):
    """Why a program was stopped."""

    NONE, MEMORY, BUDGET, DEPTH, HELPER, ALIGNMENT = range(6)


WORDS = {
    Fault.MEMORY: "access outside the memory and the stack",
    Fault.BUDGET: f"more than {BUDGET} instructions",
    Fault.DEPTH: f"calls nest deeper than {FRAMES}",
    Fault.HELPER: "no such helper for an unverified program",
    Fault.ALIGNMENT: "atomic access that is not aligned",
}


class State(ctypes.Structure):
    """What checked code shares with its caller; passed where a verified program has its env.

    Units:   budget in instructions; fault holds a Fault in its low byte and the pc above it.
    """

    _fields_ = [
        ("mem_len", ctypes.c_uint64),
        ("stack", ctypes.c_uint64),
        ("budget", ctypes.c_int64),
        ("depth", ctypes.c_uint64),
        ("fault", ctypes.c_uint64),
        ("values", ctypes.c_uint64 * 3),
    ]


_AT = {name: getattr(State, name).offset for name in ("mem_len", "stack", "budget", "depth", "fault", "values")}


@dataclass(frozen=True)
class Checked:
    """A program in checked mode: its slots, known to be instructions, and where its functions start."""

    insns: tuple[Insn, ...]
    ops: Slots
    functions: tuple[int, ...]


def check(insns: Sequence[Insn]) -> Checked:
    """Return `insns` ready for checked mode.

    Raises:  InputError for an unknown opcode, a register that is not there, or a path or call that leaves the program.
    """
    ops = slots_of(insns, lambda insn: CALLX if insn.code == JMP | CALL | X and insn.src == 0 else None)
    functions = {0}
    for pc, (insn, op) in enumerate(zip(insns, ops, strict=True)):
        if op is None:
            continue
        if insn.dst > MAX_REG or (insn.src > MAX_REG and op.use_reg):
            raise InputError(f"R{max(insn.dst, insn.src)} is invalid", where=f"pc {pc}", hint="registers are r0 to r10")
        if insn.dst == MAX_REG and op.kind in (Kind.ALU, Kind.LOAD, Kind.LD_IMM64):
            raise InputError("frame pointer is read only", where=f"pc {pc}")
        if op.kind in (Kind.LD_ABS, Kind.LD_IND, Kind.CALL_KFUNC) or (op.kind is Kind.LD_IMM64 and insn.src):
            raise InputError(f"{op.kind.value} needs a context", where=f"pc {pc}", hint="load it as sched_cls")
        if op.kind is Kind.CALL_LOCAL:
            where = target(pc, insn, op)
            if not 0 <= where < len(insns):
                raise InputError(f"call to pc {where}, outside the program", where=f"pc {pc}")
            functions.add(where)
    if not insns:
        raise InputError("an empty program", hint="the shortest is: exit")
    for start in functions:
        blocks_of(insns, ops, start)
    return Checked(tuple(insns), ops, tuple(sorted(functions)))


class CheckedBody(Body):
    """A function whose accesses are checked; its frame pointer is a parameter."""

    def prologue(self) -> None:
        self.write(MAX_REG, "%fp")
        for reg in range(10):
            self.write(reg, f"%a{reg}" if 1 <= reg <= 5 else "0")

    def field(self, name: str) -> str:
        """Return a ptr to a field of State."""
        return self.out.value(f"getelementptr i8, ptr %env, i64 {_AT[name]}")

    def require(self, ok: str, fault: Fault, pc: int) -> None:
        """Go on when `ok`, else leave with `fault`."""
        out, good, bad = self.out, self.out.label(), self.out.label()
        out.emit(f"br i1 {ok}, label %{good}, label %{bad}")
        out.start(bad)
        out.emit(f"store i64 {int(fault) | pc << 8}, ptr {self.field('fault')}")
        out.emit("ret i64 0")
        out.start(good)

    def enter(self, block: Block) -> None:
        out = self.out
        place = self.field("budget")
        left = out.value(f"sub i64 {out.value(f'load i64, ptr {place}')}, {block.end - block.start}")
        out.emit(f"store i64 {left}, ptr {place}")
        self.require(out.value(f"icmp sge i64 {left}, 0"), Fault.BUDGET, block.start)

    def pointer(self, pc: int, reg: int, off: int, size: int, *, write: bool, aligned: bool = False) -> str:
        out = self.out
        address = out.value(f"add i64 {self.read(reg)}, {off}")
        length = out.value(f"load i64, ptr {self.field('mem_len')}")
        mem = out.value("ptrtoint ptr %ctx to i64")
        stack = out.value(f"load i64, ptr {self.field('stack')}")
        fits = out.value(f"icmp uge i64 {length}, {size}")
        offset, last = out.value(f"sub i64 {address}, {mem}"), out.value(f"sub i64 {length}, {size}")
        inside = out.value(f"icmp ule i64 {offset}, {last}")
        in_mem = out.value(f"and i1 {fits}, {inside}")
        depth = out.value(f"load i64, ptr {self.field('depth')}")
        frames = out.value(f"add i64 {depth}, 1")
        room = out.value(f"sub i64 {out.value(f'mul i64 {frames}, {FRAME}')}, {size}")
        in_stack = out.value(f"icmp ule i64 {out.value(f'sub i64 {address}, {stack}')}, {room}")
        self.require(out.value(f"or i1 {in_mem}, {in_stack}"), Fault.MEMORY, pc)
        if aligned and size > 1:
            low = out.value(f"and i64 {address}, {size - 1}")
            self.require(out.value(f"icmp eq i64 {low}, 0"), Fault.ALIGNMENT, pc)
        return out.value(f"inttoptr i64 {address} to ptr")

    def call(self, pc: int, insn: Insn) -> None:
        out = self.out
        number = self.read(insn.dst) if insn.code == JMP | CALL | X else str(insn.imm)
        known, value = "0", "0"
        for i, helper in enumerate(HELPERS):
            this = out.value(f"icmp eq i64 {number}, {helper}")
            known = out.value(f"or i1 {known}, {this}")
            at = out.value(f"getelementptr i8, ptr %env, i64 {_AT['values'] + 8 * i}")
            value = out.value(f"select i1 {this}, i64 {out.value(f'load i64, ptr {at}')}, i64 {value}")
        self.require(known, Fault.HELPER, pc)
        self.clobber(value)
        for reg in range(1, 6):
            self.write(reg, "0")

    def call_local(self, pc: int, insn: Insn) -> None:
        out = self.out
        depth, fault = self.field("depth"), self.field("fault")
        deeper = out.value(f"add i64 {out.value(f'load i64, ptr {depth}')}, 1")
        self.require(out.value(f"icmp ult i64 {deeper}, {FRAMES}"), Fault.DEPTH, pc)
        out.emit(f"store i64 {deeper}, ptr {depth}")
        args = ", ".join(f"i64 {self.read(reg)}" for reg in range(1, 6))
        fp = out.value(f"add i64 {self.read(MAX_REG)}, {FRAME}")
        result = out.value(f"call i64 @f{pc + 1 + insn.imm}({args}, i64 {fp}, {IMPLICIT_ARGS})")
        out.emit(f"store i64 {out.value(f'sub i64 {deeper}, 1')}, ptr {depth}")
        good, bad = out.label(), out.label()
        stopped = out.value(f"icmp ne i64 {out.value(f'load i64, ptr {fault}')}, 0")
        out.emit(f"br i1 {stopped}, label %{bad}, label %{good}")
        out.start(bad)
        out.emit("ret i64 0")
        out.start(good)
        self.clobber(result)
        for reg in range(1, 6):
            self.write(reg, "0")


def ir(program: Checked) -> str:
    """Return the module text: `@prog(mem, state, null)` runs the program."""
    arguments = ", ".join(f"i64 %a{reg}" for reg in range(1, 6))
    text = [INTRINSICS]
    for start in program.functions:
        head = f"define internal i64 @f{start}({arguments}, i64 %fp, {IMPLICIT_ARGS}) noinline"
        text.append(CheckedBody(program.insns, program.ops, start).text(head))
    return (
        "\n".join(text)
        + f"""
define i64 @prog({IMPLICIT_ARGS}) {{
  %mem = ptrtoint ptr %ctx to i64
  %len.at = getelementptr i8, ptr %env, i64 {_AT["mem_len"]}
  %len = load i64, ptr %len.at
  %stack.at = getelementptr i8, ptr %env, i64 {_AT["stack"]}
  %stack = load i64, ptr %stack.at
  %fp = add i64 %stack, {FRAME}
  %r = call i64 @f0(i64 %mem, i64 %len, i64 0, i64 0, i64 0, i64 %fp, {IMPLICIT_ARGS})
  ret i64 %r
}}
"""
    )


def _values() -> tuple[int, int, int]:
    """Return what the helpers of HELPERS give during one run."""
    return time.monotonic_ns(), secrets.randbits(32), 0


def run_jit(program: Checked, mem: bytes, budget: int = BUDGET) -> int:
    """Run as machine code on a copy of `mem` and return r0.

    Raises:  InputError when the program does what it must not; NotSupported without a JIT.
    """
    from tcbpf.vm.jit import llvm

    pages = Pages(link(llvm.compile_object(ir(program), ["prog"]), ["prog"]))
    try:
        memory, stack = ctypes.create_string_buffer(mem, len(mem) or 1), (ctypes.c_uint64 * (FRAME * FRAMES // 8))()
        state = State(len(mem), ctypes.addressof(stack), budget, 0, 0, _values())
        r0 = int(ENTRY(pages.entries["prog"])(ctypes.addressof(memory), ctypes.addressof(state), None))
    finally:
        pages.close()
    if state.fault:
        raise InputError(WORDS[Fault(state.fault & 0xFF)], where=f"pc {state.fault >> 8}")
    return r0


class CheckedMachine(Machine):
    """The stepping machine in checked mode."""

    values: tuple[int, int, int] = (0, 0, 0)

    def call(self, insn: Insn, op: Op) -> None:
        number = self.regs[insn.dst] if op.use_reg else insn.imm
        if number not in HELPERS:
            raise Stopped(self.pc - 1, WORDS[Fault.HELPER])
        self.regs[:6] = [self.values[list(HELPERS).index(number)], 0, 0, 0, 0, 0]


def run_interp(program: Checked, mem: bytes, budget: int = BUDGET) -> int:
    """Run in the interpreter on a copy of `mem` and return r0.

    Raises:  InputError when the program does what it must not.
    """
    memory = ctypes.create_string_buffer(mem, len(mem) or 1)
    start = ctypes.addressof(memory)
    machine = CheckedMachine(program.insns, program.ops, Memory(lambda address: Region("mem", start, len(mem))), budget)
    machine.values = _values()
    machine.regs[1:3] = [start, len(mem)]
    try:
        return machine.run()
    except Stopped as stop:
        raise InputError(stop.why, where=f"pc {stop.pc}") from stop

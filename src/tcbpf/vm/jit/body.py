"""One function of a program as LLVM IR text: registers, arithmetic, jumps. Memory and calls are the subclass's.

A register is an alloca that LLVM's SROA turns into values; inside a basic block its value is kept by name, so that the
text holds one load and one store of a register for each block that uses it. r11 is AX, the kernel's hidden register: a
constant moved into it is hidden from the optimiser (blind.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tcbpf.errors import InternalError
from tcbpf.isa.insn import Insn
from tcbpf.native.library import constant
from tcbpf.tables.insns import ATOMICS, Atomic, Kind, Op
from tcbpf.tables.opcodes import MOV
from tcbpf.vm.cfg import Block, Slots, blocks_of, target
from tcbpf.vm.jit.llvmtext import Llvm, Writer

REGS = 12
AX = 11

IMPLICIT_ARGS = "ptr %ctx, ptr %env, ptr %maps"
"""Arguments that every call passes after the program's own: context, environment, maps."""

_RMW = {"ADD": "add", "OR": "or", "AND": "and", "XOR": "xor", "XCHG": "xchg"}


class Body:
    """Writes one function; `insns` is the whole program, `entry` the function's first slot."""

    def __init__(self, insns: Sequence[Insn], ops: Slots, entry: int, live: Callable[[int], bool] = lambda pc: True) -> None:
        self.insns, self.ops, self.entry = insns, ops, entry
        self.blocks = blocks_of(insns, ops, entry, live)
        self.out = Writer()
        self.algebra = {64: Llvm(self.out, 64), 32: Llvm(self.out, 32)}
        self.regs: list[str | None] = [None] * REGS
        self.dirty: set[int] = set()
        self.nested = False

    # --- what a subclass decides ---

    def prologue(self) -> None:
        """Write what comes before the first block: the initial registers."""

    def stopped(self) -> str:
        """Return an i1: whether loops that stand one in another shall end."""
        raise NotImplementedError

    def enter(self, block: Block) -> None:
        """Write what comes first in a block."""

    def pointer(self, pc: int, reg: int, off: int, size: int, *, write: bool, aligned: bool = False) -> str:
        """Return a ptr to `size` bytes at `reg` + `off`; `aligned` when the access must be naturally aligned."""
        raise NotImplementedError

    def load(self, pc: int, insn: Insn, op: Op) -> None:
        """Write a load."""
        place = self.pointer(pc, insn.src, insn.off, op.size, write=False)
        value = self.out.value(f"load i{op.size * 8}, ptr {place}, align 1")
        self.write(insn.dst, self.extend(value, op.size, op.signed))

    def store(self, pc: int, insn: Insn, op: Op) -> None:
        """Write a store of a register or an immediate."""
        value = self.source(insn, op, 64)
        place = self.pointer(pc, insn.dst, insn.off, op.size, write=True)
        self.out.emit(f"store i{op.size * 8} {self.cut(value, op.size)}, ptr {place}, align 1")

    def call(self, pc: int, insn: Insn) -> None:
        """Write a helper call."""
        raise NotImplementedError

    def call_kfunc(self, pc: int, insn: Insn) -> None:
        """Write a call of a kernel function."""
        raise NotImplementedError

    def call_local(self, pc: int, insn: Insn) -> None:
        """Write a call of another function of the program."""
        raise NotImplementedError

    def packet_load(self, pc: int, insn: Insn, op: Op) -> None:
        """Write LD_ABS or LD_IND."""
        raise NotImplementedError

    def named(self, pc: int, insn: Insn) -> str:
        """Return the value of an LD_IMM64 whose src is not 0."""
        raise NotImplementedError

    def leave(self, value: str) -> None:
        """Write the return of `value`."""
        self.out.emit(f"ret i64 {value}")

    # --- registers ---

    def read(self, reg: int) -> str:
        """Return the value of a register."""
        value = self.regs[reg]
        if value is None:
            value = self.regs[reg] = self.out.value(f"load i64, ptr %r{reg}")
        return value

    def write(self, reg: int, value: str) -> None:
        """Give a register a value."""
        self.regs[reg] = value
        self.dirty.add(reg)

    def flush(self) -> None:
        """Write the registers that changed back to their places, at the end of a block."""
        for reg in sorted(self.dirty):
            self.out.emit(f"store i64 {self.read(reg)}, ptr %r{reg}")
        self.dirty.clear()

    def clobber(self, result: str | None) -> None:
        """Leave r0 with `result` and r1 to r5 with nothing, as a call does."""
        for reg in range(1, 6):
            self.regs[reg] = None
            self.dirty.discard(reg)
        if result is not None:
            self.write(0, result)

    def cut(self, value: str, size: int) -> str:
        """Return the low `size` bytes of a 64-bit value."""
        return value if size == 8 else self.out.value(f"trunc i64 {value} to i{size * 8}")

    def extend(self, value: str, size: int, signed: bool = False) -> str:
        """Return a value of `size` bytes at 64 bits."""
        return value if size == 8 else self.out.value(f"{'sext' if signed else 'zext'} i{size * 8} {value} to i64")

    def source(self, insn: Insn, op: Op, width: int) -> str:
        """Return the second operand at `width` bits: the register src, or imm sign-extended."""
        if not op.use_reg:
            return self.algebra[width].const(insn.imm)
        return self.cut(self.read(insn.src), width // 8)

    # --- the text ---

    def text(self, header: str) -> str:
        """Return the whole function, `header` being its define line without the brace.

        Raises:  InputError when a path leaves the program.
        """
        out = self.out
        out.start("entry")
        for reg in range(REGS):
            out.emit(f"%r{reg} = alloca i64")
        if any(op is not None and op.kind is Kind.MAY_GOTO for op in self.ops):
            out.emit("%may = alloca i64")
            out.emit(f"store i64 {constant('MAX_LOOPS')}, ptr %may")
        self.prologue()
        self.flush()
        out.emit(f"br label %b{self.entry}")
        for block in self.blocks:
            self.regs = [None] * REGS
            out.start(f"b{block.start}")
            self.enter(block)
            self._block(block)
        return f"{header} {{\n" + "\n".join(out.lines) + "\n}\n"

    def _block(self, block: Block) -> None:
        for pc in range(block.start, block.end):
            op = self.ops[pc]
            if op is not None and self._insn(pc, self.insns[pc], op, block):
                return
        self.flush()
        self.out.emit(f"br label %b{block.succ[0]}" if block.succ else "unreachable")

    def _insn(self, pc: int, insn: Insn, op: Op, block: Block) -> bool:
        """Write one instruction; True when it ended the block."""
        kind = op.kind
        if kind is Kind.ALU:
            self._alu(insn, op)
        elif kind is Kind.LOAD:
            self.load(pc, insn, op)
        elif kind is Kind.STORE:
            self.store(pc, insn, op)
        elif kind is Kind.JUMP:
            return self._jump(pc, insn, op, block)
        elif kind is Kind.EXIT:
            self.leave(self.read(0))
            self.dirty.clear()
            return True
        elif kind is Kind.CALL:
            self.call(pc, insn)
        elif kind is Kind.CALL_LOCAL:
            self.call_local(pc, insn)
        elif kind is Kind.CALL_KFUNC:
            self.call_kfunc(pc, insn)
        elif kind is Kind.LD_IMM64:
            wide = self.algebra[64].const(insn.imm & 0xFFFFFFFF | self.insns[pc + 1].imm << 32)
            self.write(insn.dst, self.named(pc, insn) if insn.src else wide)
        elif kind is Kind.ATOMIC:
            self._atomic(pc, insn, op)
        elif kind in (Kind.LD_ABS, Kind.LD_IND):
            self.packet_load(pc, insn, op)
        elif kind is Kind.MAY_GOTO:
            return self._may_goto(pc, insn, op, block)
        elif kind is not Kind.JA:
            raise InternalError(f"pc {pc}: no IR for {kind.value}")
        return False

    def _alu(self, insn: Insn, op: Op) -> None:
        algebra, out = self.algebra[op.width], self.out
        unary = getattr(op.row, "unary", True)  # byte order rows have one operand too
        moves = not unary and op.row.code << 4 == MOV
        dst = "" if moves else self.cut(self.read(insn.dst), op.width // 8)
        src = "" if unary else self.source(insn, op, op.width)
        if insn.dst == AX and moves and not op.use_reg:
            src = out.value(f'call {algebra.type} asm "", "=r,0"({algebra.type} {src})')
        self.write(insn.dst, self.extend(op.row.fn(algebra, dst, src), op.width // 8))

    def _jump(self, pc: int, insn: Insn, op: Op, block: Block) -> bool:
        if len(block.succ) < 2:
            return False
        dst = self.cut(self.read(insn.dst), op.width // 8)
        cond = op.row.fn(self.algebra[op.width], dst, self.source(insn, op, op.width))
        self.flush()
        self.out.emit(f"br i1 {cond}, label %b{target(pc, insn, op)}, label %b{pc + 1}")
        return True

    def _may_goto(self, pc: int, insn: Insn, op: Op, block: Block) -> bool:
        if len(block.succ) < 2:
            return False
        left = self.out.value("load i64, ptr %may")
        spent = self.out.value(f"icmp eq i64 {left}, 0")
        if self.nested:
            spent = self.out.value(f"or i1 {spent}, {self.stopped()}")
        self.out.emit(f"store i64 {self.out.value(f'sub i64 {left}, 1')}, ptr %may")
        self.flush()
        self.out.emit(f"br i1 {spent}, label %b{target(pc, insn, op)}, label %b{pc + 1}")
        return True

    def _atomic(self, pc: int, insn: Insn, op: Op) -> None:
        row: Atomic = op.row
        kind, out = f"i{op.size * 8}", self.out
        if row is ATOMICS["LOAD_ACQ"]:
            place = self.pointer(pc, insn.src, insn.off, op.size, write=False, aligned=True)
            old = out.value(f"load atomic {kind}, ptr {place} acquire, align {op.size}")
            self.write(insn.dst, self.extend(old, op.size))
            return
        value = self.cut(self.read(insn.src), op.size)
        place = self.pointer(pc, insn.dst, insn.off, op.size, write=True, aligned=True)
        if row is ATOMICS["STORE_REL"]:
            out.emit(f"store atomic {kind} {value}, ptr {place} release, align {op.size}")
        elif row is ATOMICS["CMPXCHG"]:
            wanted = self.cut(self.read(0), op.size)
            pair = out.value(f"cmpxchg ptr {place}, {kind} {wanted}, {kind} {value} seq_cst seq_cst, align {op.size}")
            old = out.value(f"extractvalue {{ {kind}, i1 }} {pair}, 0")
            self.write(0, self.extend(old, op.size))
        else:
            order = "seq_cst" if row.fetch else "monotonic"
            how = _RMW[row.name.removeprefix("FETCH_")]
            old = out.value(f"atomicrmw {how} ptr {place}, {kind} {value} {order}, align {op.size}")
            if row.fetch:
                self.write(insn.src, self.extend(old, op.size))

"""Random programs that are mostly valid: a grammar over the instruction rows, with a light model of what each register holds.

The model is only there to make programs interesting: it may be wrong, the verifiers judge. Constants are drawn near limits.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from tcbpf.isa.insn import Insn
from tcbpf.obj.program import MapSpec, Program
from tcbpf.tables import insns as bpf
from tcbpf.tables.helpers import HELPERS

VALUE_SIZE = 48
MAPS = (
    MapSpec("values", "array", 4, VALUE_SIZE, 4),
    MapSpec("table", "hash", 8, VALUE_SIZE, 16),
)
LIMITS = (0, 1, 2, 3, 4, 7, 8, 13, 14, 15, 16, 31, 32, 33, 40, 47, 48, 49, 63, 64, 127, 128, 255, 256, 511, 512, 0x7FFF, 0x8000,
          0xFFFF, 0x10000, 0x7FFFFFFF, -1, -2, -8, -16, -64, -128, -512, -0x8000, -0x80000000)
ALU_ROWS = [row for row in bpf.ALU if row.name != "MOV"]
SIZES = (1, 2, 4, 8)


@dataclass(slots=True)
class Model:
    """What is thought to be in each register: "scalar", "small" (below 64), "ctx", "fp", "pkt", "value", or "" for nothing."""

    regs: list[str] = field(default_factory=lambda: ["", "ctx", *[""] * 8, "fp"])
    stack: set[int] = field(default_factory=set)             # 8-byte slots thought written, by offset
    packet: int = 0                                          # bytes thought proved behind a "pkt" register

    def copy(self) -> Model:
        """Return one that changes on its own."""
        return Model(list(self.regs), set(self.stack), self.packet)

    def holding(self, *kinds: str) -> list[int]:
        """Return the registers that hold one of `kinds`."""
        return [reg for reg, kind in enumerate(self.regs) if kind in kinds]


class Generator:
    """Makes one program from one seed."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.model = Model()
        self.out: list[Insn] = []

    def program(self) -> Program:
        """Return the program of this seed."""
        rng = self.rng
        self.emit(Insn(bpf.ALU64 | 0xB0 | bpf.X, 6, 1))
        self.model.regs[6] = "ctx"
        for _ in range(rng.choice((1, 2, 3, 5, 8, 12, 20))):
            self.statement(depth=0)
        if self.model.regs[0] not in ("scalar", "small"):
            self.emit(Insn(bpf.ALU64 | 0xB0, 0, imm=rng.choice((0, 1, 2))))
        self.emit(Insn(bpf.JMP | 0x90))
        return Program("generated", "sched_cls", tuple(self.out), MAPS, "GPL")

    def emit(self, *insns: Insn) -> None:
        """Append instructions."""
        self.out += insns

    def statement(self, depth: int) -> None:
        """Append one statement of a random kind."""
        kinds: list[tuple[int, Callable[[int], None]]] = [
            (30, self.alu), (8, self.constant), (10, self.spill), (8, self.fill), (8, self.context), (8, self.lookup),
            (8, self.packet), (12, self.memory), (6, self.pointer), (14, self.branch), (3, self.loop), (4, self.call),
            (2, self.atomic), (1, self.dead_code), (2, self.bound),
        ]
        if depth > 2:
            kinds = [kind for kind in kinds if kind[1] not in (self.branch, self.loop)]
        weights, functions = zip(*kinds, strict=True)
        self.rng.choices(functions, weights)[0](depth)

    def number(self) -> int:
        """Return a 32-bit number, near a limit more often than not."""
        rng = self.rng
        value = rng.choice(LIMITS) + rng.choice((0, 0, 0, 1, -1)) if rng.random() < .8 else rng.randrange(-1 << 31, 1 << 31)
        return max(-1 << 31, min((1 << 31) - 1, value))

    def scalar(self) -> int:
        """Return a register that holds a number, making one when there is none."""
        found = self.model.holding("scalar", "small")
        if not found or self.rng.random() < .05:
            self.constant(0)
            found = self.model.holding("scalar", "small")
        return self.rng.choice(found)

    def free(self) -> int:
        """Return a register to overwrite."""
        return self.rng.choice((0, 1, 2, 3, 4, 5, 7, 8, 9))

    def constant(self, depth: int) -> None:
        """Set a register to a number."""
        reg = self.free()
        if self.rng.random() < .2:
            value = self.rng.choice((self.rng.getrandbits(64), 1 << 63, (1 << 32) - 1, 1 << 32, (1 << 63) - 1))
            low, high = value & 0xFFFFFFFF, value >> 32
            self.emit(Insn(0x18, reg, imm=_signed(low)), Insn(0, imm=_signed(high)))
        else:
            self.emit(Insn(self.rng.choice((bpf.ALU64, bpf.ALU32)) | 0xB0, reg, imm=self.number()))
        self.model.regs[reg] = "scalar"

    def alu(self, depth: int) -> None:
        """Compute with numbers."""
        rng, dst = self.rng, self.scalar()
        width = rng.choice((bpf.ALU64, bpf.ALU32))
        if rng.random() < .08:
            end = rng.choice(bpf.END.rows)
            self.emit(Insn(end.base, dst, imm=end.bits))
        elif rng.random() < .15:
            src, dst = dst, self.free()
            self.emit(Insn(width | 0xB0 | bpf.X, dst, src))
        else:
            row = rng.choice([row for row in ALU_ROWS if (64 if width == bpf.ALU64 else 32) in row.widths])
            by_register = row.reg_only or (not row.unary and rng.random() < .5)
            imm = self.number()
            if row.name in ("LSH", "RSH", "ARSH"):
                imm = rng.randrange(64 if width == bpf.ALU64 else 32)
            elif row.name in ("DIV", "MOD", "SDIV", "SMOD") and imm == 0:
                imm = 3
            src = self.scalar() if by_register else 0
            self.emit(Insn(width | row.code << 4 | (bpf.X if by_register else 0), dst, src, row.off,
                           0 if by_register or row.unary else imm))
        self.model.regs[dst] = "scalar"

    def bound(self, depth: int) -> None:
        """Make a number small, by one of the ways that programs use."""
        reg, limit = self.scalar(), self.rng.choice((1, 3, 7, 15, 31, 40, 47))
        if self.rng.random() < .6:
            self.emit(Insn(self.rng.choice((bpf.ALU64, bpf.ALU32)) | 0x50, reg, imm=limit))
        else:
            self.emit(Insn(self.rng.choice((bpf.JMP, bpf.JMP32)) | 0xB0, reg, imm=limit, off=2),
                      Insn(bpf.ALU64 | 0xB0, 0, imm=0), Insn(bpf.JMP | 0x90))
            self.model.regs[0] = "" if reg != 0 else "small"
        self.model.regs[reg] = "small"

    def spill(self, depth: int) -> None:
        """Store on the stack."""
        rng, size = self.rng, self.rng.choice((8, 8, 8, *SIZES))
        off = -8 * rng.randrange(1, 9) + (0 if size == 8 or rng.random() < .5 else rng.randrange(8 // size) * size)
        sources = self.model.holding("scalar", "small", *(("ctx", "pkt", "value") if size == 8 else ()))
        if sources and rng.random() < .8:
            self.emit(Insn(bpf.STX | bpf.MEM | bpf.SIZE_CODE[size], 10, rng.choice(sources), off))
        else:
            self.emit(Insn(bpf.ST | bpf.MEM | bpf.SIZE_CODE[size], 10, 0, off, self.number()))
        if size == 8:
            self.model.stack.add(off)

    def fill(self, depth: int) -> None:
        """Load from the stack."""
        rng = self.rng
        if not self.model.stack:
            return self.spill(depth)
        size, dst = rng.choice((8, 8, *SIZES)), self.free()
        off = rng.choice(sorted(self.model.stack)) + rng.choice((0, 0, 0, 8 - size))
        mode = bpf.MEMSX if size < 8 and rng.random() < .2 else bpf.MEM
        self.emit(Insn(bpf.LDX | mode | bpf.SIZE_CODE[size], dst, 10, off))
        self.model.regs[dst] = "scalar" if size < 8 else ""
        return None

    def context(self, depth: int) -> None:
        """Load a context field, or store to one."""
        dst, off = self.free(), self.rng.choice((*range(0, 76, 4), 84, 160, 164))
        if self.rng.random() < .15:
            self.emit(Insn(bpf.STX | bpf.MEM | bpf.W, 6, self.scalar(), self.rng.choice((8, 32, 44, 48, 64, 72, 0))))
            return
        size = self.rng.choice((4, 4, 4, 1, 2, 8))
        self.emit(Insn(bpf.LDX | bpf.MEM | bpf.SIZE_CODE[size], dst, 6, off))
        self.model.regs[dst] = "scalar"

    def lookup(self, depth: int) -> None:
        """Look a map up, and mostly check for null."""
        rng, index = self.rng, self.rng.randrange(len(MAPS))
        self.emit(Insn(bpf.ST | bpf.MEM | bpf.DW, 10, 0, -8, rng.randrange(6)),
                  Insn(0x18, 1, bpf.PSEUDO_MAP_IDX, imm=index), Insn(0),
                  Insn(bpf.ALU64 | 0xB0 | bpf.X, 2, 10), Insn(bpf.ALU64, 2, imm=-8),
                  Insn(bpf.JMP | 0x80, imm=HELPERS["map_lookup_elem"].id))
        self.clobber()
        self.model.stack.add(-8)
        keep = rng.choice((0, 7, 8, 9))
        if keep:
            self.emit(Insn(bpf.ALU64 | 0xB0 | bpf.X, keep, 0))
        if rng.random() < .9:
            checked = rng.choice((0, keep))
            self.emit(Insn(bpf.JMP | 0x50, checked, off=2), Insn(bpf.ALU64 | 0xB0, 0), Insn(bpf.JMP | 0x90))
            self.model.regs[0] = self.model.regs[keep] = "value"

    def packet(self, depth: int) -> None:
        """Load data and data_end and compare."""
        rng, size = self.rng, self.rng.choice((1, 8, 14, 20, 34, 64))
        data, end, edge = rng.sample((2, 3, 4, 5, 7, 8, 9), 3)
        self.emit(Insn(bpf.LDX | bpf.MEM | bpf.W, data, 6, 76), Insn(bpf.LDX | bpf.MEM | bpf.W, end, 6, 80),
                  Insn(bpf.ALU64 | 0xB0 | bpf.X, edge, data), Insn(bpf.ALU64, edge, imm=size))
        code, first, second = rng.choice(((0x20, edge, end), (0x30, edge, end), (0xA0, end, edge), (0xB0, end, edge)))
        self.emit(Insn(bpf.JMP | code | bpf.X, first, second, 2), Insn(bpf.ALU64 | 0xB0, 0), Insn(bpf.JMP | 0x90))
        if code in (0xA0, 0xB0) or rng.random() < .95:
            self.model.regs[data], self.model.packet = "pkt", size
        self.model.regs[end] = self.model.regs[edge] = ""

    def memory(self, depth: int) -> None:
        """Access the packet or a map value, near its limit."""
        pointers = self.model.holding("pkt", "value")
        if not pointers:
            return self.rng.choice((self.lookup, self.packet))(depth)
        reg, size = self.rng.choice(pointers), self.rng.choice(SIZES)
        limit = self.model.packet if self.model.regs[reg] == "pkt" else VALUE_SIZE
        off = self.rng.choice((0, limit - size, limit - size - 1, self.rng.randrange(limit), limit - size + 1))
        if self.rng.random() < .4:
            self.emit(Insn(bpf.STX | bpf.MEM | bpf.SIZE_CODE[size], reg, self.scalar(), off))
        else:
            dst = self.free()
            self.emit(Insn(bpf.LDX | bpf.MEM | bpf.SIZE_CODE[size], dst, reg, off))
            self.model.regs[dst] = "scalar"
        return None

    def pointer(self, depth: int) -> None:
        """Do arithmetic on a pointer."""
        pointers = self.model.holding("pkt", "value", "fp")
        reg, dst = self.rng.choice(pointers), self.rng.choice((2, 3, 7, 8, 9))
        small = self.model.holding("small") if self.rng.random() < .7 else self.model.holding("scalar", "small")
        kind = self.model.regs[reg]
        source = [other for other in small if other not in (reg, dst)]
        self.emit(Insn(bpf.ALU64 | 0xB0 | bpf.X, dst, reg))
        self.model.regs[dst] = kind if kind != "fp" else ""
        if source and self.rng.random() < .6:
            self.emit(Insn(bpf.ALU64 | bpf.X | self.rng.choice((0, 0, 0, 0x10)), dst, self.rng.choice(source)))
        else:
            self.emit(Insn(bpf.ALU64, dst, imm=self.rng.choice((1, 4, 8, -8, -16, 40, 44, 48, -1, -512))))
        if kind == "fp" and self.rng.random() < .5:
            size = bpf.SIZE_CODE[self.rng.choice(SIZES)]
            self.emit(Insn(bpf.STX | bpf.MEM | size, dst, self.scalar(), self.rng.choice((0, -8, -16))))

    def branch(self, depth: int) -> None:
        """Do a few statements on one side of a condition."""
        rng = self.rng
        row = rng.choice(bpf.JUMP.rows)
        dst = self.scalar()
        by_register = rng.random() < .4
        src = self.scalar() if by_register else 0
        at = len(self.out)
        self.emit(Insn(rng.choice((bpf.JMP, bpf.JMP32)) | row.code << 4 | (bpf.X if by_register else 0), dst, src, 0,
                       0 if by_register else self.number()))
        before = self.model.copy()
        for _ in range(rng.choice((1, 1, 2, 3))):
            self.statement(depth + 1)
        after = self.model
        if rng.random() < .3:
            middle = len(self.out)
            self.emit(Insn(bpf.JMP))
            self.out[at] = self.out[at]._replace(off=len(self.out) - at - 1)
            self.model = before
            before = before.copy()
            for _ in range(rng.choice((1, 2))):
                self.statement(depth + 1)
            self.out[middle] = self.out[middle]._replace(off=len(self.out) - middle - 1)
            before = self.model
        else:
            self.out[at] = self.out[at]._replace(off=len(self.out) - at - 1)
        self.model = _join(before, after)

    def loop(self, depth: int) -> None:
        """Count up to a bound."""
        rng = self.rng
        counter = rng.choice((7, 8, 9))
        self.emit(Insn(bpf.ALU64 | 0xB0, counter))
        self.model.regs[counter] = ""                        # statements of the body leave it alone, mostly
        start, entry = len(self.out), self.model.copy()
        for _ in range(rng.choice((1, 2))):
            self.statement(depth + 1)
        self.emit(Insn(bpf.ALU64, counter, imm=1))
        self.emit(Insn(bpf.JMP | 0xA0, counter, 0, start - len(self.out) - 1, rng.choice((2, 3, 8, 20))))
        self.model = _join(self.model, entry)
        self.model.regs[counter] = "scalar"

    def call(self, depth: int) -> None:
        """Call a helper that takes no memory."""
        name = self.rng.choice(("get_prandom_u32", "ktime_get_ns", "get_smp_processor_id", "skb_pull_data", "get_hash_recalc"))
        self.emit(Insn(bpf.ALU64 | 0xB0 | bpf.X, 1, 6), Insn(bpf.ALU64 | 0xB0, 2, imm=self.rng.choice((0, 14, 64))),
                  Insn(bpf.JMP | 0x80, imm=HELPERS[name].id))
        self.clobber()
        self.model.regs[0] = "scalar"
        if name == "skb_pull_data":
            self.model.regs = [kind if kind != "pkt" else "" for kind in self.model.regs]

    def dead_code(self, depth: int) -> None:
        """Sometimes jump over an instruction, which makes it unreachable."""
        self.emit(Insn(bpf.JMP, off=1) if self.rng.random() < .2 else Insn(bpf.ALU64 | 0xB0, 0, imm=1),
                  Insn(bpf.ALU64 | 0xB0, 0, imm=0))
        self.model.regs[0] = "scalar"

    def atomic(self, depth: int) -> None:
        """Do an atomic on a map value or the stack."""
        row, size = self.rng.choice([row for row in bpf.ATOMICS if len(row.sizes) == 2]), self.rng.choice((4, 8))
        src = self.scalar()
        values = self.model.holding("value")
        if values:
            base, off = self.rng.choice(values), self.rng.choice((0, 8, 40, 44))
        else:
            base, off = 10, -16
            self.emit(Insn(bpf.ST | bpf.MEM | bpf.DW, 10, 0, -16, 5))
            self.model.stack.add(-16)
        if row.name == "CMPXCHG":
            self.emit(Insn(bpf.ALU64 | 0xB0, 0, imm=1))
            self.model.regs[0] = "scalar"
        self.emit(Insn(bpf.STX | bpf.ATOMIC | bpf.SIZE_CODE[size], base, src, off, row.imm))
        self.model.regs[src] = "scalar"

    def clobber(self) -> None:
        """Forget what a call clobbers."""
        self.model.regs[0:6] = [""] * 6


def _signed(word: int) -> int:
    return word - (1 << 32) if word >> 31 else word


def _join(a: Model, b: Model) -> Model:
    """Return what both hold."""
    regs = [x if x == y else "scalar" if {x, y} == {"scalar", "small"} else "" for x, y in zip(a.regs, b.regs, strict=True)]
    return Model(regs, a.stack & b.stack, min(a.packet, b.packet))


def generate(seed: int) -> Program:
    """Return the program of a seed; the same one for ever."""
    return Generator(seed).program()


def minimise(program: Program, wrong: Callable[[Program], bool]) -> Program:
    """Return a program with as few instructions replaced by nothing as keep `wrong` true.

    An instruction is taken out by a jump over itself, so that no target moves; both slots of LD_IMM64 go together.
    """
    best = program
    nothing = Insn(bpf.JMP)                                  # goto +0
    changed = True
    while changed:
        changed = False
        pc = 0
        while pc < len(best.insns):
            size = 2 if best.insns[pc].code == 0x18 else 1
            if best.insns[pc] != nothing:
                trial = replace(best, insns=(*best.insns[:pc], *[nothing] * size, *best.insns[pc + size:]))
                if wrong(trial):
                    best, changed = trial, True
            pc += size
    return best

"""Random programs that are mostly valid: what the verifier and the live kernel are compared on.

A program is built from statements of which each needs registers of some kind and leaves others. The generator knows the kinds
only roughly, and now and then ignores them, so that about a third of the programs are refused, for reasons near the limits: an
offset one too large, a check of the wrong pointer, a bound that is just not enough.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from tcbpf.isa.insn import Insn
from tcbpf.obj.program import MapSpec, Program
from tcbpf.tables.insns import ALU, ALU32, ALU64, ATOMICS, JMP, JMP32, JUMP, SIZE_CODE

MAPS = (
    MapSpec("hash", "hash", 8, 64, 16), MapSpec("array", "array", 4, 48, 4), MapSpec("one", "array", 4, 256, 1),
    MapSpec("progs", "prog_array", 4, 4, 4), MapSpec("ring", "ringbuf", 0, 0, 4096),
)
FREE = (0, 2, 3, 4, 5, 7, 8)                   # r1 and r6 keep the context, r9 counts loops
TYPES = ("sched_cls", "sched_cls", "sched_act", "xdp", "socket_filter", "cgroup_skb")
SIZES = (1, 2, 4, 8)
NUMBERS = (0, 1, 2, 3, 4, 7, 8, 13, 14, 15, 16, 31, 32, 33, 47, 48, 63, 64, 65, 127, 255, 256, 4095, 65535,
           1 << 29, (1 << 31) - 1)


@dataclass
class Knowledge:
    """What the generator believes: the kind of each register, and which stack slots were written."""

    kinds: dict[int, str] = field(default_factory=dict)
    slots: set[int] = field(default_factory=set)

    def copy(self) -> Knowledge:
        return Knowledge(dict(self.kinds), set(self.slots))

    def join(self, other: Knowledge) -> None:
        """Keep what holds on both ways."""
        self.kinds = {r: k for r, k in self.kinds.items() if other.kinds.get(r) == k}
        self.slots &= other.slots


class Generator:
    """Writes one program from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.type = self.random.choice(TYPES)
        self.noise = self.random.choice((0.0, 0.01, 0.03, 0.08))
        self.know = Knowledge({1: "ctx", 6: "ctx", 10: "stack"})
        self.functions: list[list[Insn]] = []
        self.calls: list[tuple[list[Insn], int]] = []

    def program(self) -> Program:
        """Return the program."""
        code = [Insn(0xBF, 6, 1)]
        if self.type in ("sched_cls", "sched_act", "xdp", "cgroup_skb") and self.random.random() < 0.7:
            code += self._packet()
        code += self._block(self.random.randrange(4, 14), 0)
        code += self._exit()
        return Program("generated", self.type, tuple(code), MAPS, license="GPL")

    # --- choosing ------------------------------------------------------------------------------------------------------

    def _noisy(self) -> bool:
        return self.random.random() < self.noise

    def _reg(self, *kinds: str) -> int | None:
        """Return a register of one of the kinds, or with some luck any."""
        if self._noisy():
            return self.random.randrange(11)
        found = [r for r, k in self.know.kinds.items() if k in kinds]
        return self.random.choice(found) if found else None

    def _target(self) -> int:
        return self.random.choice(FREE) if not self._noisy() else self.random.randrange(10)

    def _number(self) -> int:
        value = self.random.choice(NUMBERS) if self.random.random() < 0.8 else self.random.getrandbits(31)
        return -value if self.random.random() < 0.2 else value

    def _set(self, reg: int, kind: str) -> None:
        self.know.kinds[reg] = kind

    def _clobber(self) -> None:
        for reg in range(6):
            self.know.kinds.pop(reg, None)

    # --- statements ----------------------------------------------------------------------------------------------------

    def _block(self, count: int, depth: int) -> list[Insn]:
        code: list[Insn] = []
        for _ in range(count):
            choices = [self._const, self._alu, self._alu, self._alu, self._store, self._load, self._load, self._move,
                       self._bound]
            choices += [self._lookup, self._helper, self._atomic, self._pointer, self._pointer]
            if depth < 3:
                choices += [self._branch, self._branch, self._branch]
            if depth < 2 and self.random.random() < 0.3:
                choices.append(self._loop)
            statement = self.random.choice(choices)
            code += statement(depth) if statement in (self._branch, self._loop) else statement()     # type: ignore[operator]
        return code

    def _const(self) -> list[Insn]:
        reg = self._target()
        self._set(reg, "number")
        if self.random.random() < 0.1:
            value = self.random.getrandbits(64)
            return [Insn(0x18, reg, 0, 0, _signed(value & 0xFFFFFFFF)), Insn(0, imm=_signed(value >> 32))]
        return [Insn(self.random.choice((0xB7, 0xB4)), reg, imm=self._number())]

    def _move(self) -> list[Insn]:
        src = self._reg("number", "stack", "value", "packet", "ctx", "meta", "maybe")
        if src is None:
            return []
        dst = self._target()
        kind = self.know.kinds.get(src, "number")
        if kind == "number" and self.random.random() < 0.4:
            self._set(dst, "number")
            off = self.random.choice((0, 8, 16))
            return [Insn(self.random.choice((0xBC, 0xBF)), dst, src, off)]
        self._set(dst, kind)
        return [Insn(0xBF, dst, src)]

    def _alu(self) -> list[Insn]:
        dst = self._reg("number")
        if dst is None or dst == 9:
            return self._const()
        row = self.random.choice([r for r in ALU if not r.name.startswith("MOV")])
        cls = self.random.choice((ALU32, ALU64))
        if row.unary:
            return [Insn(row.code << 4 | cls, dst)]
        src = self._reg("number")
        if src is not None and (self.random.random() < 0.5 or row.reg_only):
            return [Insn(row.code << 4 | 8 | cls, dst, src, row.off)]
        value = self._number()
        if row.name in ("LSH", "RSH", "ARSH") and not self._noisy():
            value = self.random.randrange(64 if cls == ALU64 else 32)
        if row.name in ("DIV", "MOD", "SDIV", "SMOD") and not self._noisy():
            value = value or 1
        return [Insn(row.code << 4 | cls, dst, 0, row.off, value)]

    def _bound(self) -> list[Insn]:
        """Bound a number so that it may serve as an offset."""
        reg = self._reg("number")
        if reg is None or reg == 9:
            return []
        if self.random.random() < 0.5:
            return [Insn(0x57, reg, imm=self.random.choice((1, 3, 7, 8, 15, 31, 63)))]
        limit = self.random.choice((1, 4, 8, 16, 32, 47, 48, 63, 64))
        return [Insn(self.random.choice((0xA5, 0xB5, 0xC5)), reg, off=1, imm=limit), Insn(0xB7, reg)]

    def _pointer(self) -> list[Insn]:
        """Make a pointer and move it."""
        dst = self._target()
        base = self._reg("stack", "value", "packet", "meta")
        if base is None:
            base = 10
        kind = self.know.kinds.get(base, "stack")
        self._set(dst, kind)
        code = [Insn(0xBF, dst, base)] if dst != base else []
        index = self._reg("number")
        if index is not None and index != dst and self.random.random() < 0.4:
            if kind == "stack":
                code.append(Insn(0x07, dst, imm=-64))
            if self.random.random() < 0.7:
                code.append(Insn(0x57, index, imm=self.random.choice((1, 3, 7, 15, 31))))
            return [*code, Insn(0x0F, dst, index)]
        step = -self.random.randrange(1, 65) if kind == "stack" else self.random.randrange(0, 50)
        if kind == "stack" and self.random.random() < 0.8:
            step &= ~7
        return [*code, Insn(0x07, dst, imm=step)]

    def _packet(self) -> list[Insn]:
        """Load the packet's pointers and compare them."""
        data, end = (0, 4) if self.type == "xdp" else (76, 80)
        packet, last, check = self.random.sample(FREE, 3)
        need = self.random.choice((1, 2, 8, 14, 20, 34, 42))
        code = [Insn(0x61, packet, 6, data), Insn(0x61, last, 6, end), Insn(0xBF, check, packet), Insn(0x07, check, imm=need)]
        self.know.kinds.update({packet: "packet", last: "end"})
        jump, swap = self.random.choice(((0x2D, False), (0x3D, False), (0xAD, True), (0xBD, True)))
        one, two = (last, check) if swap else (check, last)
        return [*code, Insn(jump, one, two, 1), Insn(0x05, off=2), *self._exit_code()]

    def _load(self) -> list[Insn]:
        base = self._reg("stack", "value", "packet", "ctx", "meta")
        if base is None:
            return []
        kind, size, dst = self.know.kinds.get(base, "stack"), self.random.choice(SIZES), self._target()
        if kind == "ctx":
            off, size = self.random.choice(range(0, 64, 4) if self.type != "xdp" else (12, 16)), 4
            if self._noisy():
                off, size = self.random.randrange(0, 200), self.random.choice(SIZES)
        elif kind == "stack":
            off = self.random.choice(sorted(self.know.slots) or [-8]) if base == 10 else self.random.choice((0, 0, -8))
            if size < 8 and self.random.random() < 0.3:
                off += self.random.randrange(8 // size) * size
        else:
            off = self.random.randrange(0, 56)
        self._set(dst, "number")
        mode = 0x80 if size < 8 and self.random.random() < 0.15 else 0x60
        return [Insn(mode | SIZE_CODE[size] | 1, dst, base, off)]

    def _store(self) -> list[Insn]:
        base = 10 if self.random.random() < 0.6 else self._reg("stack", "value", "packet") or 10
        kind, size = self.know.kinds.get(base, "stack"), self.random.choice((1, 2, 4, 8, 8, 8))
        if kind == "stack":
            off = -8 * self.random.randrange(1, 9) if base == 10 else self.random.choice((0, -8))
            if size < 8 and self.random.random() < 0.4:
                off += self.random.randrange(8 // size) * size
            if base == 10:
                self.know.slots.add(off)
        else:
            off = self.random.randrange(0, 56)
        src = self._reg("number", "number", "stack", "ctx", "value", "packet")
        if src is None or self.random.random() < 0.3:
            return [Insn(0x62 | SIZE_CODE[size], base, 0, off, self._number())]
        if self.know.kinds.get(src) != "number" and not self._noisy():
            size = 8
            off &= ~7
        return [Insn(0x63 | SIZE_CODE[size], base, src, off)]

    def _atomic(self) -> list[Insn]:
        base, src = self._reg("stack", "value"), self._reg("number")
        if base is None or src is None or self.random.random() < 0.6:
            return []
        row = self.random.choice([r for r in ATOMICS if r.since < (6, 15)])
        size = self.random.choice((4, 8))
        kind = self.know.kinds.get(base, "stack")
        if base == 10:
            off = self.random.choice(sorted(self.know.slots) or [-8])
        else:
            off = 0 if kind == "stack" else 8 * self.random.randrange(6)
        return [Insn(0xC3 | SIZE_CODE[size], base, src, off, row.imm)]

    def _lookup(self) -> list[Insn]:
        """Look a map up, and usually check the result."""
        index = self.random.choice((0, 1, 2))
        key = 8 if index == 0 else 4
        code = [Insn(0x7A if key == 8 else 0x62, 10, off=-8, imm=self.random.choice((0, 1, 3, 5)))]
        self.know.slots.add(-8)
        code += [Insn(0xBF, 2, 10), Insn(0x07, 2, imm=-8), *_map(1, index), Insn(0x85, imm=1)]
        self._clobber()
        self._set(0, "maybe")
        if self.random.random() < 0.85:
            code += [Insn(0x55, 0, off=2), Insn(0xB7), Insn(0x95)]
            self._set(0, "value")
            keep = self.random.choice((0, 7, 8))
            if keep:
                self._set(keep, "value")
                code.append(Insn(0xBF, keep, 0))
        return code

    def _helper(self) -> list[Insn]:
        choice = self.random.randrange(7)
        code: list[Insn]
        if choice == 0:
            code, kind = [Insn(0x85, imm=7)], "number"
        elif choice == 1:
            code, kind = [Insn(0x85, imm=5)], "number"
        elif choice == 2 and self.type in ("sched_cls", "sched_act", "socket_filter", "cgroup_skb"):
            size = self.random.choice((1, 2, 4, 8, 16))
            code = [Insn(0xBF, 1, 6), Insn(0xB7, 2, imm=self.random.randrange(40)), Insn(0xBF, 3, 10), Insn(0x07, 3, imm=-16),
                    Insn(0xB7, 4, imm=size), Insn(0x85, imm=26)]
            kind = "number"
            self.know.slots |= {-16} if size >= 8 else set()
        elif choice == 3:
            size = self._reg("number")
            code = [Insn(0xBF, 1, 10), Insn(0x07, 1, imm=-32)]
            if size is not None and size > 5 and self.random.random() < 0.5:
                code += [Insn(0xBF, 2, size), Insn(0x57, 2, imm=31)]
            else:
                code += [Insn(0xB7, 2, imm=self.random.choice((0, 4, 8, 16)))]
            code += [Insn(0xB7, 3), Insn(0xB7, 4), Insn(0xB7, 5), Insn(0x85, imm=28)]
            kind = "number"
        elif choice == 4:
            code = [Insn(0x7A, 10, off=-8, imm=1), Insn(0xBF, 2, 10), Insn(0x07, 2, imm=-8), Insn(0xBF, 3, 10),
                    Insn(0x07, 3, imm=-64), Insn(0xB7, 4), *_map(1, 0), Insn(0x85, imm=2)]
            kind = "number"
        elif choice == 5 and self.type in ("sched_cls", "sched_act"):
            code = [Insn(0xBF, 1, 6), Insn(0xB7, 2, imm=64), Insn(0xB7, 3), Insn(0x85, imm=38)]
            kind = "number"
            if not self._noisy():
                self.know.kinds = {r: k for r, k in self.know.kinds.items() if k not in ("packet", "end")}
        elif choice == 6:
            code = [*_map(1, 4), Insn(0xB7, 2, imm=self.random.choice((8, 16))), Insn(0xB7, 3), Insn(0x85, imm=131),
                    Insn(0x15, 0, off=4), Insn(0x7A, 0, off=self.random.choice((0, 0, 8, 16))), Insn(0xBF, 1, 0), Insn(0xB7, 2),
                    Insn(0x85, imm=132)]
            self._clobber()
            return code
        else:
            return []
        self._clobber()
        self._set(0, kind)
        return code

    def _branch(self, depth: int) -> list[Insn]:
        reg = self._reg("number", "number", "number", "maybe")
        if reg is None:
            return []
        other = self._reg("number")
        row = self.random.choice(list(JUMP))
        cls = self.random.choice((JMP, JMP32))
        if self.know.kinds.get(reg) == "maybe":
            row, cls, other = JUMP[self.random.choice(("JEQ", "JNE"))], JMP, None
        before = self.know.copy()
        body = self._block(self.random.randrange(1, 4), depth + 1)
        after = self.know
        self.know = before
        otherwise = self._block(self.random.randrange(0, 3), depth + 1) if self.random.random() < 0.4 else []
        if otherwise:
            body.append(Insn(0x05, off=len(otherwise)))
        self.know.join(after)
        if other is not None and self.random.random() < 0.3:
            return [Insn(row.code << 4 | 8 | cls, reg, other, len(body)), *body, *otherwise]
        value = 0 if self.know.kinds.get(reg) == "maybe" else self._number()
        return [Insn(row.code << 4 | cls, reg, 0, len(body), value), *body, *otherwise]

    def _loop(self, depth: int) -> list[Insn]:
        if 9 in self.know.kinds:
            return []
        self._set(9, "counter")
        body = self._block(self.random.randrange(1, 4), depth + 1)
        self.know.kinds.pop(9, None)
        body.append(Insn(0x07, 9, imm=1))
        jump = self.random.choice((0xA5, 0x55, 0xB5))
        return [Insn(0xB7, 9), *body, Insn(jump, 9, off=-len(body) - 1, imm=self.random.choice((2, 4, 8, 20)))]

    def _exit_code(self) -> list[Insn]:
        return [Insn(0xB7), Insn(0x95)]

    def _exit(self) -> list[Insn]:
        if self.know.kinds.get(0) == "number" and self.random.random() < 0.5:
            return [Insn(0x57, 0, imm=1), Insn(0x95)] if self.type == "cgroup_skb" else [Insn(0x95)]
        return self._exit_code()


def _map(reg: int, index: int) -> list[Insn]:
    return [Insn(0x18, reg, 5, 0, index), Insn(0)]


def _signed(word: int) -> int:
    return word - (1 << 32) if word >> 31 else word


def generate(seed: int) -> Program:
    """Return the program of a seed."""
    return Generator(seed).program()

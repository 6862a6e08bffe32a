"""What a program is written with: the instructions so far, and a light model of what registers and stack slots hold.

The model is only there to make programs interesting: it may be wrong, and now and then it is ignored on purpose. The verifiers
judge.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from generator.maps import MAPS
from tcbpf.isa.insn import Insn
from tcbpf.tables import opcodes as bpf
from tcbpf.tables.progs import PROG_TYPES, ProgType

FP, CTX = 10, 6
MOV64, MOV32, MOV64X, MOV32X, ADD64, ADD64X, SUB64, AND64 = 0xB7, 0xB4, 0xBF, 0xBC, 0x07, 0x0F, 0x17, 0x57
JA, EXIT, CALL, LD_IMM64, MAY_GOTO = 0x05, 0x95, 0x85, 0x18, 0xE5
JEQ, JNE, JGT, JLT = 0x15, 0x55, 0x25, 0xA5
LIMITS = (
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    13,
    14,
    15,
    16,
    31,
    32,
    33,
    40,
    47,
    48,
    49,
    63,
    64,
    127,
    128,
    255,
    256,
    511,
    512,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x10000,
    1 << 29,
    0x7FFFFFFE,
    0x7FFFFFFF,
)
SIZES = (1, 2, 4, 8)
GENERAL = (0, 1, 2, 3, 4, 5, 7, 8, 9)
STACK = 512


@dataclass(frozen=True, slots=True)
class Val:
    """What a register is thought to hold.

    Units:   `size`: a number's greatest value, -1 for unknown; the bytes that a "value" or "mem" has. `off` is where a pointer
             stands in what it points to (from the frame's end for "fp"), `var` how much may be added to that.
    """

    kind: str  # num ctx fp pkt meta end value mem map sock sockc tcp task dynptr key
    size: int = -1
    off: int = 0
    var: int = 0
    maybe: bool = False  # may be NULL
    name: str = ""  # of the map
    id: int = 0  # shared by copies: what is learned of one is learned of all


@dataclass(slots=True)
class Model:
    """What is thought of one point of a function."""

    regs: list[Val | None]
    slots: dict[int, Val | None] = field(default_factory=dict)  # 8-byte slots thought written; None for plain bytes
    proved: dict[int, int] = field(default_factory=dict)  # bytes of the packet behind pointers of an id

    def copy(self) -> Model:
        """Return one that changes on its own."""
        return Model(list(self.regs), dict(self.slots), dict(self.proved))

    def join(self, other: Model) -> None:
        """Keep what holds on both ways."""
        self.regs = [_both(a, b) for a, b in zip(self.regs, other.regs, strict=True)]
        self.slots = {off: _both(val, other.slots[off]) for off, val in self.slots.items() if off in other.slots}
        self.proved = {id: min(size, other.proved[id]) for id, size in self.proved.items() if id in other.proved}


def _both(a: Val | None, b: Val | None) -> Val | None:
    if a == b:
        return a
    if a and b and a.kind == b.kind == "num":
        return Val("num", -1 if a.size < 0 or b.size < 0 else max(a.size, b.size))
    return None


@dataclass(slots=True)
class Function:
    """One function of the program: its instructions, and where it calls others."""

    name: str = ""  # of its type; "" for none
    is_global: bool = False
    insns: list[Insn] = field(default_factory=list)
    calls: list[tuple[int, Function]] = field(default_factory=list)


class Shared:
    """What the functions of one program share."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.type: ProgType = self.rng.choice(_TYPES)
        self.noise = self.rng.choice((0, 0.02, 0.05, 0.1, 0.15, 0.2))
        self.budget = self.rng.choice((1, 2, 2, 3, 3, 4, 4, 6, 8, 12, 16, 32))  # statements left
        self.functions: list[Function] = []
        self.maps: list[str] = []
        self.kfuncs: list[str] = []
        self.ids = 0
        self.has_btf = self.rng.random() < 0.8
        self.license = "GPL" if self.rng.random() < 0.97 else "Proprietary"
        self.attach = self.rng.choice(tuple({section.attach_type for section in self.type.sections}))


_TYPES = [
    PROG_TYPES[name]
    for name in ("sched_cls", "sched_cls", "sched_cls", "sched_act", "xdp", "xdp", "socket_filter", "cgroup_skb", "cgroup_skb")
]


class Writer:
    """Writes one function."""

    def __init__(self, shared: Shared, function: Function, args: tuple[Val | None, ...], level: int = 0) -> None:
        self.shared, self.function, self.level = shared, function, level
        self.rng = shared.rng
        self.model = Model([None, *args, *[None] * (5 - len(args)), None, None, None, None, Val("fp")])
        self.pinned: set[int] = {CTX}  # registers that statements leave alone
        self.held = 0  # references and locks that forbid to leave
        self.locked = self.in_rcu = False
        self.depth = self.loops = 0
        self.ret = 1  # the greatest value to return, -1 for any

    # --- chance --------------------------------------------------------------------------------------------------------

    def chance(self, share: float) -> bool:
        """Tell whether something of that probability happens."""
        return self.rng.random() < share

    def noisy(self) -> bool:
        """Tell whether to do it wrong."""
        return self.shared.noise > 0 and self.rng.random() < self.shared.noise

    def limit(self) -> int:
        """Return a 32-bit number, near a limit more often than not."""
        rng = self.rng
        if rng.random() < 0.2:
            return rng.randrange(-1 << 31, 1 << 31)
        value = rng.choice(LIMITS) + rng.choice((0, 0, 0, 1, -1))
        return max(-1 << 31, min((1 << 31) - 1, -value if rng.random() < 0.2 else value))

    # --- writing -------------------------------------------------------------------------------------------------------

    def emit(self, code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> int:
        """Append an instruction and return its place."""
        insns = self.function.insns
        insns.append(Insn(code, dst, src, max(-32768, min(32767, off)), imm))
        return len(insns) - 1

    @property
    def here(self) -> int:
        """The place of the next instruction."""
        return len(self.function.insns)

    def patch(self, at: int, to: int | None = None) -> None:
        """Let the jump at `at` go to `to`, or here."""
        insns = self.function.insns
        off = (self.here if to is None else to) - at - 1
        insns[at] = insns[at]._replace(imm=off) if insns[at].code == bpf.JMP32 else insns[at]._replace(off=off)

    def call(self, function: Function) -> None:
        """Append a call of another function."""
        self.function.calls.append((self.emit(CALL, 0, bpf.PSEUDO_CALL), function))
        self.clobber()

    def address_of(self, reg: int, function: Function) -> None:
        """Append the load of a function's address."""
        self.function.calls.append((self.emit(LD_IMM64, reg, bpf.PSEUDO_FUNC), function))
        self.emit(0)

    def load_map(self, reg: int, name: str) -> None:
        """Append the load of a map's address."""
        self.emit(LD_IMM64, reg, bpf.PSEUDO_MAP_IDX, 0, self.map_index(name))
        self.emit(0)
        self.set(reg, Val("map", name=name))

    def map_index(self, name: str) -> int:
        """Return the map's index in the program."""
        maps = self.shared.maps
        if name not in maps:
            maps.append(name)
        return maps.index(name)

    def load64(self, reg: int, value: int, src: int = 0) -> None:
        """Append the load of 64 bits."""
        low, high = value & 0xFFFFFFFF, value >> 32 & 0xFFFFFFFF
        self.emit(LD_IMM64, reg, src, 0, _signed(low))
        self.emit(0, imm=_signed(high))

    def move(self, dst: int, src: int) -> None:
        """Append a copy."""
        if dst != src:
            self.emit(MOV64X, dst, src)
            self.set(dst, self.model.regs[src])

    def leave(self) -> None:
        """Append an exit with a value that is allowed."""
        known = self.model.regs[0]
        if not (known and known.kind == "num" and (self.ret < 0 or 0 <= known.size <= self.ret) and self.chance(0.7)):
            self.emit(MOV64, 0, imm=self.rng.choice((0, 1)) if not self.noisy() else self.limit())
        self.emit(EXIT)

    @property
    def has_context(self) -> bool:
        """Whether r6 holds the context."""
        known = self.model.regs[CTX]
        return known is not None and known.kind == "ctx"

    # --- the model -----------------------------------------------------------------------------------------------------

    def set(self, reg: int, val: Val | None) -> None:
        """Note what a register holds now."""
        self.model.regs[reg] = val

    def new_id(self) -> int:
        """Return an id that nothing has."""
        self.shared.ids += 1
        return self.shared.ids

    def clobber(self) -> None:
        """Forget what a call clobbers."""
        self.model.regs[:6] = [None] * 6

    def forget_packet(self) -> None:
        """Forget pointers into the packet."""
        model = self.model
        model.regs = [None if v and v.kind in ("pkt", "meta", "end") else v for v in model.regs]
        model.slots = {o: None if v and v.kind in ("pkt", "meta", "end") else v for o, v in model.slots.items()}

    def checked(self, id: int) -> None:
        """Note that what has this id is not NULL."""
        model = self.model
        model.regs = [replace(v, maybe=False) if v and v.id == id else v for v in model.regs]
        model.slots = {o: replace(v, maybe=False) if v and v.id == id else v for o, v in model.slots.items()}

    def find(self, *kinds: str, maybe: bool = False) -> int | None:
        """Return a register that holds one of `kinds`, or by bad luck any; None when there is none."""
        if self.noisy():
            return self.rng.randrange(11)
        found = [r for r, v in enumerate(self.model.regs) if v and v.kind in kinds and v.maybe is maybe]
        return self.rng.choice(found) if found else None

    def free(self) -> int:
        """Return a register to overwrite."""
        if self.noisy():
            return self.rng.randrange(11)
        while True:
            reg = self.rng.choice(GENERAL)
            if reg not in self.pinned:
                return reg

    def saved(self) -> int | None:
        """Return a register to overwrite that calls leave alone, None when all are in use."""
        found = [reg for reg in (7, 8, 9) if reg not in self.pinned]
        return self.rng.choice(found) if found else None

    def number(self) -> int:
        """Return a register that holds a number, making one when there is none."""
        found = self.find("num")
        if found is None or self.chance(0.05):
            found = self.free()
            self.constant(found)
        return found

    def scratch(self) -> int:
        """Return a register that holds a number and may be changed."""
        reg = self.number()
        if reg in self.pinned:
            to = self.free()
            self.move(to, reg)
            return to
        return reg

    def constant(self, reg: int) -> None:
        """Set a register to a number near a limit."""
        rng = self.rng
        if rng.random() < 0.12:
            self.load64(reg, rng.choice((rng.getrandbits(64), 1 << 63, (1 << 32) - 1, 1 << 32, (1 << 63) - 1)))
            self.set(reg, Val("num"))
        else:
            value = self.limit()
            self.emit(rng.choice((MOV64, MOV32)), reg, imm=value)
            self.set(reg, Val("num", value if value >= 0 else -1))

    def small(self, most: int, *, avoid: tuple[int, ...] = ()) -> int | None:
        """Return a register whose number is at most `most`, bounding one by a mask or a branch when need be."""
        regs = self.model.regs
        fits = [r for r, v in enumerate(regs) if v and v.kind == "num" and 0 <= v.size <= most and r not in avoid]
        if fits and self.chance(0.7):
            return self.rng.choice(fits)
        found = [r for r, v in enumerate(regs) if v and v.kind == "num" and r not in avoid and r not in self.pinned]
        if not found:
            return None
        reg = self.rng.choice(found)
        mask = (1 << (most + 1).bit_length() - 1) - 1 if most >= 0 else 0
        if self.chance(0.6) or self.held:
            self.emit(self.rng.choice((AND64, 0x54)), reg, imm=mask)
        else:
            code = self.rng.choice((JGT, 0x26, 0x25)) if self.chance(0.8) else 0x65
            if code == 0x65:
                self.emit(0x75, reg, 0, 1, 0)  # if r s>= 0 goto +1; r = 0
                self.emit(MOV64, reg)
            at = self.emit(code, reg, 0, 0, most)
            self.skip_out(at)
            mask = most
        self.set(reg, Val("num", mask))
        return reg

    def skip_out(self, at: int) -> None:
        """Let the jump at `at`, just written, leave the program; what follows runs when it is not taken."""
        over = self.emit(JA)
        self.patch(at)
        self.emit(MOV64, 0, imm=self.rng.choice((0, 1)))
        self.emit(EXIT)
        self.patch(over)

    @contextmanager
    def pin(self, *regs: int) -> Iterator[None]:
        """Leave registers alone meanwhile."""
        added = set(regs) - self.pinned
        self.pinned |= added
        yield
        self.pinned -= added


def _signed(word: int) -> int:
    return word - (1 << 32) if word >> 31 else word


def room(val: Val, model: Model) -> tuple[int, int]:
    """Return the offsets from a pointer, first and end, that may be accessed."""
    match val.kind:
        case "fp":
            return -STACK - val.off, -val.off - val.var
        case "pkt":
            return -val.off, model.proved.get(val.id, 0) - val.off
        case "meta":
            return -val.off, model.proved.get(val.id, 0) - val.off
        case "value" | "mem" | "key":
            return -val.off, val.size - val.off - val.var
    return 0, 0


def value_size(name: str) -> int:
    """Return the size of a map's value."""
    return MAPS[name].value_size

"""What the verifier knows at one point of one path: registers, stack slots, call frames.

Registers and slots are values: nothing changes one after it was made, so copying a state copies references only. What does
change (which register is where, which reference is held) lives in Frame and State.

Units:   pc counts 8-byte slots; offsets and sizes are bytes. A stack slot is 8 bytes; slot i of a frame covers the bytes
         fp-8i-8 to fp-8i-1, and its byte j is fp-8i-j-1, as in the kernel.
Source:  struct bpf_reg_state, bpf_func_state, bpf_verifier_state, include/linux/bpf_verifier.h (v6.18).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tcbpf.verifier.values.scalar import UNKNOWN, Scalar, const
from tcbpf.verifier.values.types import NOT_INIT, SCALAR, STACK

if TYPE_CHECKING:
    from tcbpf.verifier.state.map_info import MapInfo

ZERO: Final = const(0)

MAX_STACK: Final = 512
MAX_FRAMES: Final = 8
REG_FP: Final = 10
MAIN_CALLSITE: Final = -1  # a frame that nothing in the program called

AT_PKT_END: Final = -1  # a packet pointer's range once it is known to be at the end,
BEYOND_PKT_END: Final = -2  # or beyond: nothing can be read through it


class Delta(NamedTuple):
    """How far a scalar stands from the others of its id, by an addition of so many bits."""

    value: int
    width: int


class Reg:
    """What one register holds.

    `val` is a scalar's value, or the unknown part of a pointer's offset; `off` the known part. `id` links scalars that are
    equal, or pointers that become non-null together; `ref` is the reference the pointer stands for. `uid` tells inner maps
    apart. `extra` is a union, as in the kernel's struct: its members share one slot, and the type says which of them is
    there. Whoever reads a member has looked at the type; only copies and comparisons read `extra` itself.
    """

    __slots__ = ("extra", "id", "off", "ref", "type", "uid", "val")

    if TYPE_CHECKING:  # the union's members
        delta: Delta | None  # of a scalar: how far it stands from the others of its id
        range: int  # of a packet pointer: bytes proved to be there, or AT_PKT_END, BEYOND_PKT_END
        frame: int  # of a stack pointer: whose stack
        map: MapInfo  # of a map pointer, a map's value or key
        mem_size: int  # of memory of a known size
        subprog: int  # of a function pointer
        btf_type: Any  # of a kernel object: the name of its struct; of an allocated one its ProgramType
        dynptr: Dynptr
        iter: Iterator
        irq_class: str  # of a saved interrupt flag: the functions that saved it

    def __init__(
        self, type: int, val: Scalar = ZERO, off: int = 0, id: int = 0, ref: int = 0, extra: Any = None, uid: int = 0
    ) -> None:
        self.type = type
        self.val = val
        self.off = off
        self.id = id
        self.ref = ref
        self.extra = extra
        self.uid = uid

    def is_null(self) -> bool:
        """Tell whether it is the number 0."""
        return self.type == SCALAR and not self.val.mask and not self.val.value

    def with_type(self, type: int) -> Reg:
        """Return the same pointer under another type."""
        return Reg(type, self.val, self.off, self.id, self.ref, self.extra, self.uid)

    def with_id(self, id: int) -> Reg:
        """Return the same value under another id, its distance forgotten when it is a scalar."""
        return Reg(self.type, self.val, self.off, id, self.ref, None if self.type == SCALAR else self.extra, self.uid)

    def with_range(self, range: int) -> Reg:
        """Return the same packet pointer with another proven range."""
        return Reg(self.type, self.val, self.off, self.id, self.ref, range, self.uid)

    def same_as(self, other: Reg) -> bool:
        """Tell whether both are equal in all but id and reference."""
        return self is other or (
            self.type == other.type
            and self.off == other.off
            and self.extra == other.extra
            and self.uid == other.uid
            and (self.val is other.val or self.val == other.val)
        )


for _member in ("delta", "range", "frame", "map", "mem_size", "subprog", "btf_type", "dynptr", "iter", "irq_class"):
    setattr(Reg, _member, Reg.__dict__["extra"])  # the same slot: reading a member costs what reading the slot does

NO_REG: Final = Reg(NOT_INIT)
UNKNOWN_REG: Final = Reg(SCALAR, UNKNOWN)
ZERO_REG: Final = Reg(SCALAR, ZERO)


class Slot:
    """Eight bytes of stack: a letter for each (the kernel's log letters), and the register spilled there, if any.

    "?" never written, "r" spilled register, "m" some data, "0" zero, "d" dynptr, "i" iterator, "f" saved interrupt flag.
    For a dynptr `reg` has its type in `extra`; for an iterator `extra` is an Iterator.
    """

    __slots__ = ("kinds", "reg")

    def __init__(self, kinds: str, reg: Reg | None = None) -> None:
        self.kinds = kinds
        self.reg = reg

    @property
    def spilled(self) -> bool:
        """Tell whether a register, whole or its low part, is kept here."""
        return self.kinds[7] == "r"


NO_SLOT: Final = Slot("????????")
MISC_SLOT: Final = Slot("mmmmmmmm")
ZERO_SLOT: Final = Slot("00000000")


class Dynptr(NamedTuple):
    """What a dynptr slot holds: "local", "ringbuf", "skb", "xdp"; the first slot of the pair is the one at the lower index."""

    kind: str
    first: bool
    rdonly: bool = False


class Iterator(NamedTuple):
    """An open-coded iterator's state: its kind ("num"), whether it can still give elements, and how often it did."""

    kind: str
    active: bool
    depth: int


class Ref(NamedTuple):
    """A resource that must be given back: "ptr", "lock", "irq". `owner` is the pointer a lock was taken through."""

    id: int
    pc: int
    kind: str = "ptr"
    owner: Any = None


class Frame:
    """One call: its registers and its stack, and where it returns to.

    `precise` and `precise_slots` are bit masks; they matter in remembered states only: the scalars whose exact range the
    continuation relied on.
    """

    __slots__ = (
        "async_entry",
        "callback_depth",
        "callsite",
        "in_async_callback",
        "in_callback",
        "in_exception",
        "number",
        "precise",
        "precise_slots",
        "regs",
        "ret_range",
        "stack",
        "subprog",
    )

    def __init__(self, number: int, subprog: int, callsite: int) -> None:
        self.number = number
        self.subprog = subprog
        self.callsite = callsite
        self.regs: list[Reg] = [NO_REG] * REG_FP + [Reg(STACK, ZERO, extra=number)]
        self.stack: list[Slot] = []
        self.callback_depth = 0
        self.in_callback = False
        self.in_async_callback = False
        self.in_exception = False
        self.async_entry = 0
        self.ret_range: tuple[int, int] | None = None
        self.precise = 0
        self.precise_slots = 0

    def copy(self) -> Frame:
        """Return an independent copy; marks of precision are not inherited."""
        new = Frame.__new__(Frame)
        new.number = self.number
        new.subprog = self.subprog
        new.callsite = self.callsite
        new.regs = self.regs[:]
        new.stack = self.stack[:]
        new.callback_depth = self.callback_depth
        new.in_callback = self.in_callback
        new.in_async_callback = self.in_async_callback
        new.in_exception = self.in_exception
        new.async_entry = self.async_entry
        new.ret_range = self.ret_range
        new.precise = 0
        new.precise_slots = 0
        return new

    def grow(self, size: int) -> None:
        """Make the stack at least `size` bytes deep."""
        missing = (size + 7) // 8 - len(self.stack)
        if missing > 0:
            self.stack.extend([NO_SLOT] * missing)


class Step(NamedTuple):
    """One entry of a path's history, newest first: how `pc` was reached when that is not by falling through, and what
    the instruction did that precision tracking must know.

    flags: bit 0 a stack access, then 6 bits of slot and 3 of frame; bits 16 and 17 dst or src is a stack pointer.
    linked: (frame, is register, index) of the scalars that were refined together.
    """

    pc: int
    prev: int
    flags: int
    linked: tuple[tuple[int, bool, int], ...]
    older: Step | None
    length: int


STEP_STACK: Final = 1
STEP_DST_IS_STACK: Final = 1 << 16
STEP_SRC_IS_STACK: Final = 1 << 17


def stack_step(frame: int, spi: int) -> int:
    """Return the history flags of an access to slot `spi` of `frame`."""
    return STEP_STACK | spi << 1 | frame << 7


class Test(NamedTuple):
    """What must hold of a register or slot of another state: made by `alike`, for it to read."""

    kind: int
    frame: int
    place: int
    what: Any
    mark: int


class Visit:
    """One entry into a loop, under one chain of calls."""

    __slots__ = ("backedges", "chain", "entry")

    def __init__(self, chain: tuple[int, ...]) -> None:
        self.chain = chain
        self.entry: State | None = None
        self.backedges: list[State] = []


class State:
    """All frames, and what is held: one point of one path, or a remembered one that other paths are compared with.

    `branches` counts the paths that still have to be followed from a remembered state; `parent` is the remembered state
    before it on its path.
    """

    __slots__ = (
        "bare",
        "branches",
        "callback_unroll",
        "calls",
        "cleaned",
        "depth",
        "dropped",
        "equal",
        "first_pc",
        "frames",
        "hist",
        "hits",
        "irq_id",
        "last_pc",
        "lock_id",
        "lock_owner",
        "locks",
        "may_goto_depth",
        "misses",
        "parent",
        "pc",
        "preempt_locks",
        "rcu_locks",
        "refs",
        "sleepable",
        "tests",
        "visit",
    )

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.parent: State | None = None
        self.branches = 1
        self.depth = 0  # remembered states before it on its path
        self.pc = 0
        self.first_pc = 0
        self.last_pc = -1
        self.hist: Step | None = None
        self.refs: tuple[Ref, ...] = ()
        self.locks = 0
        self.lock_id = 0
        self.lock_owner: Any = None
        self.rcu_locks = 0
        self.preempt_locks = 0
        self.irq_id = 0
        self.sleepable = False
        self.may_goto_depth = 0
        self.callback_unroll = 0
        self.cleaned = False
        self.dropped = False  # remembered no longer, but not final yet
        self.equal: State | None = None
        self.hits = 0
        self.misses = 0
        self.calls: tuple[int, ...] = ()  # of a remembered one: where its frames were called from
        self.tests: list[Test] = []  # of a cleaned one: what another state must pass to be as safe,
        self.bare = False  # and whether it holds nothing
        self.visit: Visit | None = None  # of a remembered one: the loop that it lies in

    def copy(self) -> State:
        """Return an independent copy with one branch of its own."""
        new = State.__new__(State)
        new.frames = [frame.copy() for frame in self.frames]
        new.parent = self.parent
        new.branches = 1
        new.depth = self.depth
        new.pc = self.pc
        new.first_pc = self.first_pc
        new.last_pc = self.last_pc
        new.hist = self.hist
        new.refs = self.refs
        new.locks = self.locks
        new.lock_id = self.lock_id
        new.lock_owner = self.lock_owner
        new.rcu_locks = self.rcu_locks
        new.preempt_locks = self.preempt_locks
        new.irq_id = self.irq_id
        new.sleepable = self.sleepable
        new.may_goto_depth = self.may_goto_depth
        new.callback_unroll = self.callback_unroll
        new.cleaned = new.dropped = False
        new.equal = None
        new.hits = 0
        new.misses = 0
        new.calls = ()
        new.tests = []
        new.bare = False
        new.visit = None
        return new

    def is_bare(self) -> bool:
        """Tell whether nothing is held: no reference, no lock."""
        return not (
            self.refs
            or self.locks
            or self.rcu_locks
            or self.preempt_locks
            or self.irq_id
            or self.lock_id
            or self.lock_owner is not None
        )

    def pc_of(self, frame: int) -> int:
        """Return where frame number `frame` is: the state's pc, or the call it waits for."""
        return self.pc if frame == len(self.frames) - 1 else self.frames[frame + 1].callsite

    def callsites(self) -> tuple[int, ...]:
        """Return where each frame was called from."""
        return tuple([frame.callsite for frame in self.frames])

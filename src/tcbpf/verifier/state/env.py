"""One verification: the program, what is known of its instructions, the path being followed, and the way to refuse.

Source:  struct bpf_verifier_env, include/linux/bpf_verifier.h (v6.18).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn

from tcbpf.errors import VerifierError
from tcbpf.isa.insn import Insn
from tcbpf.obj.program import Program
from tcbpf.tables.progs import PROG_TYPES, ProgType
from tcbpf.tables.row import Release
from tcbpf.tables.rules import RULES, rules_of
from tcbpf.verifier.state.insn_aux import Aux
from tcbpf.verifier.state.insns import Ins
from tcbpf.verifier.state.log import Log
from tcbpf.verifier.state.map_info import MapInfo
from tcbpf.verifier.state.observers import Liveness, Tracer
from tcbpf.verifier.state.state import Frame, State, Step, Visit

if TYPE_CHECKING:
    from tcbpf.tables.kfuncs import Kfunc

MAX_VAR_OFF: Final = 1 << 29
MAX_VAR_SIZE: Final = 1 << 29
MAX_PACKET_OFF: Final = 0xFFFF
MAX_JUMPS: Final = 8192
MAX_STATES_UNPRIVILEGED: Final = 64


class Refused(Exception):
    """A check failed: the reason's name, the facts its words are made of, and the kernel's lines that follow those words."""

    def __init__(self, reason: str, facts: dict[str, Any], more: tuple[str, ...] = ()) -> None:
        super().__init__(reason)
        self.reason, self.facts, self.more = reason, facts, more


@dataclass(slots=True)
class SubInfo:
    """A function of the program while it is being checked.

    Units:   start and end are pcs, end exclusive; stack_depth in bytes.
    """

    start: int
    end: int
    name: str
    type_id: int = 0
    is_global: bool = False
    stack_depth: int = 0
    has_tail_call: bool = False
    has_ld_abs: bool = False
    changes_packet: bool = False
    might_sleep: bool = False
    is_callback: bool = False
    is_async: bool = False
    is_exception: bool = False
    called: bool = False
    checked: bool = False
    args: list[Any] | None = None


@dataclass(slots=True)
class Stats:
    """The counts in the last line of a log."""

    max_states_per_insn: int = 0
    total_states: int = 0
    states: int = 0
    peak_states: int = 0


class Env:
    """One verification of one program."""

    __slots__ = (
        "allow_leaks",
        "allow_uninit",
        "aux",
        "backedges",
        "buckets",
        "bypass_spec",
        "calls_callback",
        "capable",
        "counts",
        "cur",
        "dropped",
        "explored",
        "explored_count",
        "force_checkpoint",
        "frame",
        "gpl",
        "has_func_info",
        "helpers",
        "ids",
        "ins",
        "insns",
        "jmp_point",
        "jumps",
        "kernel",
        "kernel_only",
        "key_poisoned",
        "kfunc_at",
        "kfuncs",
        "live_regs",
        "liveness",
        "log",
        "loops",
        "map_poisoned",
        "maps",
        "masks",
        "max_insns",
        "pc",
        "pending",
        "prev_jumps",
        "prev_pc",
        "prev_processed",
        "processed",
        "program",
        "prune_point",
        "ptr_types",
        "rules",
        "scc",
        "stats",
        "step",
        "strict_alignment",
        "strict_scalars",
        "subprog_at",
        "subprogs",
        "trace",
        "type",
        "visits",
        "writes_packet",
    )

    def __init__(
        self,
        program: Program,
        *,
        log: Log,
        capable: bool,
        perfmon: bool,
        kernel: Release,
        max_insns: int,
        strict_alignment: bool = False,
    ) -> None:
        row = PROG_TYPES.get(program.type)
        if row is None:
            raise VerifierError(f"unrecognized program type {program.type}", reason="not_supported", errno=22)
        self.program = program
        self.type: ProgType = row
        self.insns: tuple[Insn, ...] = program.insns
        self.kernel = kernel
        self.rules = rules_of(kernel)
        self.max_insns = max_insns
        self.strict_alignment = strict_alignment
        self.log = log
        self.capable = capable
        self.allow_leaks = self.allow_uninit = self.bypass_spec = perfmon
        self.gpl = is_gpl(program.license)
        self.has_func_info = bool(program.raw_func_info) or any(f.type_id for f in program.funcs)
        count = len(program.insns)
        self.aux = [Aux() for _ in range(count)]
        self.ptr_types = [0] * count
        self.map_poisoned = bytearray(count)
        self.key_poisoned = bytearray(count)
        self.ins: list[Ins] = []
        self.maps: list[MapInfo] = []
        self.subprogs: list[SubInfo] = []
        self.subprog_at: dict[int, int] = {}
        self.prune_point = bytearray(count + 1)
        self.jmp_point = bytearray(count + 1)
        self.force_checkpoint = bytearray(count + 1)
        self.calls_callback = bytearray(count + 1)
        self.live_regs: list[int] = []
        self.scc: list[int] = []
        self.liveness: Liveness
        self.trace: Tracer | None = None
        self.helpers: set[str] = set()
        self.kfunc_at: dict[int, Kfunc] = {}
        self.loops: dict[int, int | Literal[False]] = {}
        self.writes_packet = False
        self.kernel_only: set[str] = set()
        self.masks: dict[int, tuple[int, int]] = {}  # of arithmetic without CAP_PERFMON, by pc
        self.strict_scalars = False  # such a mask depends on an unknown number: paths must not be cut off
        self.ids = 0
        self.processed = 0
        self.counts = [0] * count
        self.stats = Stats()
        self.jumps = self.prev_jumps = self.prev_processed = 0
        self.explored_count = self.dropped = self.backedges = 0
        self.reset_paths()

    def reset_paths(self) -> None:
        """Forget every path and remembered state: the next function is checked on its own."""
        self.cur: State
        self.frame: Frame
        self.pc = self.prev_pc = -1
        self.step: Step | None = None
        self.pending: list[tuple[State, int, int, int]] = []
        self.explored: dict[tuple[int, int], list[State]] = {}
        self.buckets = [0] * len(self.insns)
        self.visits: dict[tuple[int, ...], Visit] = {}

    def count_states(self) -> None:
        """Note how many states are kept, when they are more than ever."""
        self.stats.peak_states = max(self.stats.peak_states, self.explored_count + self.dropped + self.backedges)

    def has(self, rule: str) -> bool:
        """Tell whether the kernel release has a rule of tables.rules."""
        assert rule in RULES, rule
        return rule in self.rules

    def new_id(self) -> int:
        """Return an id that nothing has yet."""
        self.ids += 1
        return self.ids

    def refuse(self, reason: str, /, *, more: tuple[str, ...] = (), **facts: Any) -> NoReturn:
        """Refuse the program for a reason of the closed list; `more` are the kernel's further lines.

        Raises:  Refused.
        """
        raise Refused(reason, facts, more)


_GPL: Final = frozenset(("GPL", "GPL v2", "GPL and additional rights", "Dual BSD/GPL", "Dual MIT/GPL", "Dual MPL/GPL"))


def is_gpl(license: str) -> bool:
    """Tell whether a license string is one that the kernel takes as compatible with its own."""
    return license in _GPL

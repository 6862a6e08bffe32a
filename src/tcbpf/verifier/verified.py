"""The result of verify(): the proved program, with the facts that an engine needs."""

from __future__ import annotations

from dataclasses import dataclass, field

from tcbpf.obj.program import Program
from tcbpf.verifier.state.insn_aux import Aux, Region

__all__ = ["Aux", "Region", "Subprog", "Verified"]


@dataclass(frozen=True, slots=True)
class Subprog:
    """One function of the program.

    Units:   start and end are pcs, end exclusive; stack_depth in bytes.
    """

    start: int
    end: int
    name: str
    stack_depth: int
    args: int = 5
    callback: bool = False


@dataclass(frozen=True)
class Verified:
    """A program that verify() accepted: the only thing an engine takes. Only verify() makes one.

    Units:   insns_processed counts visits, as the kernel's "processed N insns".
    """

    program: Program
    aux: tuple[Aux, ...]  # one for each slot
    subprogs: tuple[Subprog, ...]  # in pc order; the first is the entry
    insns_processed: int
    visits: tuple[int, ...] = field(default=(), repr=False)  # how often each slot was processed
    states: int = 0
    peak_states: int = 0
    writes_packet: bool = True  # may change packet bytes or geometry: directly or through a helper
    helpers: frozenset[str] = frozenset()  # called, by tables.helpers name
    kernel_only: tuple[str, ...] = ()  # why only the live kernel can run it: "it reads the kernel's struct bpf_map"
    log: str = field(default="", repr=False)
    time_ns: int = 0

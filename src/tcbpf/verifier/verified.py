"""What verify() hands on: the program, proved, and what the proof learned that an engine needs."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from tcbpf.obj.program import Program
from tcbpf.tables.skb import Field


class Region(Enum):
    """What memory an access reaches, the same on every path: an instruction that mixes ctx with others is refused."""

    NONE = "none"
    CTX = "ctx"
    STACK = "stack"
    PACKET = "packet"
    MAP_VALUE = "map_value"  # in the map's own memory: a callback's key is not
    MEM = "mem"
    OTHER = "other"  # several of the above but not ctx


@dataclass(slots=True)
class Aux:
    """What is known of one instruction."""

    seen: bool = False  # reached on some path; the rest is dead code
    region: Region = Region.NONE
    field: Field | None = None  # ctx access: the row, whose `native` place the engine uses
    map: int = -1  # helper call: index in program.maps of its map argument, -1 for not constant
    key: int = -1  # tail_call: the constant index, -1 for none
    kfunc: str = ""  # kernel function called, by tables.kfuncs name
    inlined: bool = False  # bpf_loop: the kernel writes the loop in place of the call, and reads 64 bits of nr_loops


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

"""The facts of one instruction that outlive the proof: an engine reads them.

Source:  struct bpf_insn_aux_data, include/linux/bpf_verifier.h (v6.18).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

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

"""The TC_ACT opcodes and what direct action makes of each, one row each.

Source:  include/uapi/linux/pkt_cls.h; cls_bpf_exec_opcode(), net/sched/cls_bpf.c (v6.12). Paper, "Working Modes".
"""

from __future__ import annotations

from dataclasses import dataclass

from tcbpf.tables.row import Table

VALUE_MASK = 0x0FFFFFFF                                # the argument of JUMP and GOTO_CHAIN
JUMP, GOTO_CHAIN = 0x10000000, 0x20000000


@dataclass(frozen=True, slots=True)
class Action:
    """One opcode. `direct` tells whether direct action keeps it; the others become UNSPEC there."""

    name: str                                          # "shot"
    number: int
    direct: bool = False
    passes: bool = False                               # the packet goes on
    tc: str = ""                                       # tc(8)'s word: "drop"
    source: str = "linux/pkt_cls.h"


ACTIONS = Table(
    Action("unspec", -1, direct=True, passes=True, tc="continue"),
    Action("ok", 0, direct=True, passes=True, tc="pass"),
    Action("reclassify", 1, passes=True, tc="reclassify"),
    Action("shot", 2, direct=True, tc="drop"),
    Action("pipe", 3, passes=True, tc="pipe"),
    Action("stolen", 4, direct=True, tc="stolen"),
    Action("queued", 5, tc="queued"),
    Action("repeat", 6, passes=True, tc="repeat"),
    Action("redirect", 7, direct=True, tc="redirect"),
    Action("trap", 8, direct=True, tc="trap"),
    name=lambda row: row.name,
    number=lambda row: row.number,
)

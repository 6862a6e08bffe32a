"""The TC_ACT codes and the effect of each in direct-action mode, one row each.

Source:  include/uapi/linux/pkt_cls.h; cls_bpf_exec_opcode(), net/sched/cls_bpf.c (v6.12). Paper, "Working Modes".
"""

from __future__ import annotations

from tcbpf.tables.row import Table

VALUE_MASK = 0x0FFFFFFF                                # the argument of JUMP and GOTO_CHAIN
JUMP, GOTO_CHAIN = 0x10000000, 0x20000000


class Action:
    """One opcode. `direct` tells whether direct action keeps it; the others become UNSPEC there.

    `passes` tells whether the packet goes on; `tc` is tc(8)'s word.
    """

    __slots__ = ("direct", "name", "number", "passes", "source", "tc")

    def __init__(
        self, name: str, number: int, *, tc: str, direct: bool = False, passes: bool = False, source: str = "linux/pkt_cls.h"
    ) -> None:
        self.name, self.number, self.direct, self.passes, self.tc, self.source = name, number, direct, passes, tc, source


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

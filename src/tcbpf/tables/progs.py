"""The program types: their context, their returns and the ELF sections that name them, one row each.

Source:  include/uapi/linux/bpf.h; section names of iproute2 and libbpf.
"""

from __future__ import annotations

from dataclasses import dataclass

from tcbpf.tables.row import Release, Table


@dataclass(frozen=True, slots=True)
class Section:
    """An ELF section name (exact, or a prefix when it ends in "/") that gives a program its type and attach type."""

    name: str
    attach_type: int = 0


@dataclass(frozen=True, slots=True)
class ProgType:
    """One program type. `returns` is the inclusive range r0 must lie in at exit, or None when any value may be returned."""

    name: str                                          # the UAPI's, lower case: "sched_cls"
    number: int
    context: str                                       # "skb" (struct __sk_buff) or "xdp" (struct xdp_md)
    sections: tuple[Section, ...] = ()
    returns: tuple[int, int] | None = None
    direct_read: bool = False                          # may read the packet through data/data_end
    direct_write: bool = False
    ld_abs: bool = False
    unprivileged: bool = False
    since: Release = (99, 0)
    source: str = ""


PROG_TYPES: Table[ProgType] = Table(name=lambda row: row.name, number=lambda row: row.number)

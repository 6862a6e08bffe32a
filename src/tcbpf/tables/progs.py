"""The program types: their context, their returns and the ELF sections that name them, one row each.

A section of another form names no type of its own: tc takes it for the command at hand (sched_cls for a filter, sched_act
for an action), and "ID/KEY" is a slot of a tail-call map.

Source:  include/uapi/linux/bpf.h; check_return_code(), may_access_direct_pkt_data(), may_access_skb(),
         kernel/bpf/verifier.c (v6.18); section names of iproute2 6.1 and libbpf 1.5.
"""

from __future__ import annotations

from dataclasses import dataclass

from tcbpf.tables.actions import ACTIONS
from tcbpf.tables.row import Release, Table


@dataclass(frozen=True, slots=True)
class Section:
    """An ELF section name (exact, or a prefix when it ends in "/") that gives a program its type and attach type."""

    name: str
    attach_type: int = 0
    flags: int = 0                                     # prog_flags of the load: BPF_F_XDP_HAS_FRAGS


@dataclass(frozen=True, slots=True)
class ProgType:
    """One program type. `returns` is the inclusive range r0 must lie in at exit, or None when any value may be returned."""

    name: str                                          # the UAPI's, lower case: "sched_cls"
    number: int
    context: str                                       # "skb" (struct __sk_buff) or "xdp" (struct xdp_md)
    sections: tuple[Section, ...] = ()
    returns: tuple[int, int] | None = None
    returns_at: tuple[tuple[int, tuple[int, int]], ...] = ()   # another range for (attach type, range)
    direct_read: bool = False                          # may read the packet through data/data_end
    direct_write: bool = False
    ld_abs: bool = False
    unprivileged: bool = False
    since: Release = (99, 0)
    source: str = ""


CGROUP_INET_INGRESS, CGROUP_INET_EGRESS = 0, 1         # attach types, enum bpf_attach_type
XDP_DEVMAP, XDP_CPUMAP, XDP = 33, 35, 37
TCX_INGRESS, TCX_EGRESS, NETKIT_PRIMARY, NETKIT_PEER = 46, 47, 54, 55
XDP_HAS_FRAGS = 1 << 5                                 # BPF_F_XDP_HAS_FRAGS

PROG_TYPES: Table[ProgType] = Table(
    ProgType(
        "socket_filter", 1, "skb", (Section("socket"),),
        ld_abs=True, unprivileged=True, since=(3, 19), source="sk_filter_prog_ops, net/core/filter.c",
    ),
    ProgType(
        "sched_cls", 3, "skb",
        (
            Section("tc"), Section("classifier"),
            Section("tc/ingress", TCX_INGRESS), Section("tc/egress", TCX_EGRESS),
            Section("tcx/ingress", TCX_INGRESS), Section("tcx/egress", TCX_EGRESS),
            Section("netkit/primary", NETKIT_PRIMARY), Section("netkit/peer", NETKIT_PEER),
        ),
        direct_read=True, direct_write=True, ld_abs=True, since=(4, 1), source="tc_cls_act_prog_ops, net/core/filter.c",
    ),
    ProgType(
        "sched_act", 4, "skb", (Section("action"),),
        direct_read=True, direct_write=True, ld_abs=True, since=(4, 1), source="tc_cls_act_prog_ops, net/core/filter.c",
    ),
    ProgType(
        "xdp", 6, "xdp",
        (
            Section("xdp", XDP), Section("xdp.frags", XDP, XDP_HAS_FRAGS),
            Section("xdp/devmap", XDP_DEVMAP), Section("xdp.frags/devmap", XDP_DEVMAP, XDP_HAS_FRAGS),
            Section("xdp/cpumap", XDP_CPUMAP), Section("xdp.frags/cpumap", XDP_CPUMAP, XDP_HAS_FRAGS),
        ),
        direct_read=True, direct_write=True, since=(4, 8), source="xdp_prog_ops, net/core/filter.c",
    ),
    ProgType(
        "cgroup_skb", 8, "skb",
        (
            Section("cgroup_skb/ingress", CGROUP_INET_INGRESS), Section("cgroup_skb/egress", CGROUP_INET_EGRESS),
            Section("cgroup/skb"),
        ),
        returns=(0, 1), returns_at=((CGROUP_INET_EGRESS, (0, 3)),),
        direct_read=True, unprivileged=True, since=(4, 10), source="cg_skb_prog_ops, net/core/filter.c",
    ),
    name=lambda row: row.name,
    number=lambda row: row.number,
)


def by_section(name: str) -> tuple[ProgType, Section] | None:
    """Return the program type and the section row that an ELF section name stands for, or None when it names none."""
    return _SECTIONS.get(name)


_SECTIONS = {section.name: (row, section) for row in PROG_TYPES for section in row.sections}

_ELSEWHERE = frozenset((
    "cgroup", "fentry", "fexit", "flow_dissector", "fmod_ret", "freplace", "iter", "kprobe", "kretprobe", "kretsyscall",
    "ksyscall", "lirc_mode2", "lsm", "lsm_cgroup", "lwt_in", "lwt_out", "lwt_seg6local", "lwt_xmit", "netfilter",
    "perf_event", "raw_tp", "raw_tracepoint", "sk_lookup", "sk_msg", "sk_reuseport", "sk_skb", "sockops", "struct_ops",
    "syscall", "tp", "tp_btf", "tracepoint", "uprobe", "uretprobe", "usdt",
))
"""How sections begin that give a program a type without a row here: section_defs of libbpf 1.5, before "." and "/"."""


def of_unknown_type(section: str) -> bool:
    """Tell whether libbpf gives the programs of a section a type that has no row here."""
    return section not in _SECTIONS and section.partition("/")[0].partition(".")[0] in _ELSEWHERE


def misspelt(section: str) -> str:
    """Return the section name that one which gives no type is almost, or an empty string."""
    from difflib import get_close_matches  # here, for the start of `tcbpf run`

    if section in _SECTIONS or of_unknown_type(section):
        return ""
    return next(iter(get_close_matches(section, (*_SECTIONS, *_ELSEWHERE), n=1, cutoff=0.85)), "")


def passes(type: str, verdict: int, *, classic: bool = False) -> bool:
    """Tell whether a packet goes on when a program of that type returns `verdict` (32 bits): under direct action for tc.

    A number that is no TC_ACT is a classid, which passes. A classic filter passes what it returns no 0 for.
    """
    if not classic and type in ("sched_cls", "sched_act"):
        row = ACTIONS.at(verdict - (1 << 32) if verdict >> 31 and verdict > 0 else verdict)
        return row is None or row.passes
    return verdict in (2, 3, 4) if type == "xdp" and not classic else verdict != 0      # XDP_PASS, XDP_TX, XDP_REDIRECT

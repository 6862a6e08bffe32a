"""The values that the command line and both datapaths exchange: devices, qdiscs, classes, filters, actions.

They are rtnetlink's, decoded: a handle is 32 bits (major << 16 | minor), a protocol is a host-order
ethertype.

Source:  include/uapi/linux/{rtnetlink,pkt_sched,pkt_cls}.h.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tcbpf.uapi.packet import ETH_P_ALL as ETH_P_ALL
from tcbpf.uapi.tc import TC_H_CLSACT as TC_H_CLSACT
from tcbpf.uapi.tc import TC_H_ROOT as TC_H_ROOT

TX_QUEUE_LEN = 1000  # packets, of most devices
SKIP_HW, SKIP_SW, IN_HW, NOT_IN_HW = 1, 2, 4, 8
NO_PERCPU, ACT_SKIP_HW, ACT_SKIP_SW = 1, 2, 4  # of an action (TCA_ACT_FLAGS_*)


def handle_of(major: int, minor: int) -> int:
    """Return the 32-bit handle major:minor (TC_H_MAKE)."""
    return (major & 0xFFFF) << 16 | (minor & 0xFFFF)


@dataclass(frozen=True, slots=True)
class Stats:
    """Counters of a qdisc, class or action."""

    bytes: int = 0
    packets: int = 0
    drops: int = 0
    overlimits: int = 0
    requeues: int = 0
    backlog: int = 0
    qlen: int = 0


@dataclass(frozen=True, slots=True)
class Link:
    """A network device. With CHANGE, `up` is set as it stands, mtu when not 0, address when not empty, and
    options["name"], the new name, when there is one.

    Units:   mtu in bytes, 0 lets the datapath choose; address as aa:bb:cc:dd:ee:ff.
    """

    name: str
    index: int = 0
    kind: str = "dummy"  # "dummy", "veth", "ifb", "vxlan", "lo", ...
    address: str = ""
    mtu: int = 0
    up: bool = False
    peer: str = ""  # veth
    peer_index: int = 0
    qdisc: str = "noop"
    options: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Qdisc:
    """A queueing discipline; handle 0 lets the datapath choose. Its kind's file, in tc/kinds/qdisc, lists its options."""

    dev: str
    kind: str
    handle: int = 0
    parent: int = TC_H_ROOT
    options: dict[str, object] = field(default_factory=dict)
    stats: Stats = Stats()
    refcnt: int = 0  # as dumped; tc prints it for the root qdisc
    ingress_block: int = 0  # the block of filters that it shares with others, 0 for one of its own
    egress_block: int = 0


@dataclass(frozen=True, slots=True)
class TcClass:
    """A class of a classful qdisc. `leaf` is the handle of the qdisc grafted to it, 0 for none.

    SHOW with a parent takes all classes of that parent's qdisc.
    """

    dev: str
    kind: str
    classid: int
    parent: int = TC_H_ROOT
    leaf: int = 0
    options: dict[str, object] = field(default_factory=dict)
    stats: Stats = Stats()


@dataclass(frozen=True, slots=True)
class Action:
    """An action. Its kind's file, in tc/kinds/action, lists its options.

    Units:   installed, used and first_used in seconds before the dump.
    """

    kind: str
    index: int = 0
    control: str = "pipe"  # a name of tables.actions in tc's words, "goto chain N", "jump N"
    options: dict[str, object] = field(default_factory=dict)
    stats: Stats = Stats()
    ref: int = 0  # dumped: holders of the action
    bind: int = 0  # dumped: filters among them
    installed: int = -1  # -1: just now, or not told
    used: int = -1
    first_used: int = -1  # -1: never
    hw_stats: str = ""  # dumped: "disabled" for one that was made alone, not with a filter
    cookie: bytes = b""  # at most 16, for the user's own use
    flags: int = 0  # NO_PERCPU, ACT_SKIP_HW, ACT_SKIP_SW
    hw_stats_asked: str = ""  # "immediate", "delayed", "disabled"


@dataclass(frozen=True, slots=True)
class Actions:
    """The actions of one request, which applies to all of them or none."""

    rows: tuple[Action, ...]


@dataclass(frozen=True, slots=True)
class Bpf:
    """Options of a bpf filter: classic bytecode, or a program by the name and id that a dump shows.

    `prog` is the loaded program of the same datapath (an object with fileno()) when the filter is being made.
    """

    prog: object | None = None
    bytecode: tuple[tuple[int, int, int, int], ...] = ()  # (code, jt, jf, k)
    name: str = ""  # "foo.o:[p1]", "FILE:[*fsobj]"
    classid: int = 0  # flowid
    direct_action: bool = False
    gen_flags: int = 0  # SKIP_HW, SKIP_SW, IN_HW, NOT_IN_HW
    id: int = 0
    tag: bytes = b""
    jited: bool = False
    prog_name: str = ""
    load_time: int = 0
    uid: int = 0
    btf_id: int = 0


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter of a qdisc, or of a shared block, which goes by its number alone. `options` is Bpf for kind "bpf";
    tc/kinds/filter lists those of other kinds.

    SHOW selects by dev, parent (0: the root qdisc's filters), chain (0 does not select), pref, protocol (0 does not
    select) and kind ("" does not select). A dump starts every (chain, pref, protocol) with a row of handle 0, as the
    kernel's does. DELETE with pref 0 removes all filters of the parent; with handle 0 all of that pref.
    """

    dev: str
    parent: int
    kind: str = ""
    protocol: int = ETH_P_ALL
    pref: int = 0  # 0 lets the datapath choose
    chain: int = 0
    handle: int = 0
    options: Bpf | dict[str, object] = field(default_factory=dict)
    actions: tuple[Action, ...] = ()
    block: int = 0  # with it, dev and parent say nothing


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain of filters. It is there while it has filters, or until it is removed when it was made by itself.

    SHOW takes all chains of the place, or the one of `number`.
    """

    dev: str
    parent: int = 0
    number: int | None = None  # None: 0, and for SHOW every one
    block: int = 0


TcObject = Link | Qdisc | TcClass | Filter | Chain | Action | Actions

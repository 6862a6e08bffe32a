"""Qdiscs and classes on rtnetlink's wire; tc/kinds/qdisc packs and reads their options.

Source:  include/uapi/linux/pkt_sched.h.
"""

from __future__ import annotations

import struct

from tcbpf.control.attributes import (
    TCA_EGRESS_BLOCK,
    TCA_INGRESS_BLOCK,
    TCA_KIND,
    TCA_OPTIONS,
    TCA_STATS2,
    TCA_XSTATS,
    attrs,
    number,
    string,
    text,
    u32,
)
from tcbpf.control.objects import Qdisc, Stats, TcClass
from tcbpf.datapath.kernel.names import Names
from tcbpf.errors import InputError
from tcbpf.tc.kinds.qdisc import QDISCS
from tcbpf.uapi import tc as uapi

HEAD = struct.Struct("=BxxxiIII")  # struct tcmsg: family, ifindex, handle, parent, info


def qdisc_attrs(qdisc: Qdisc) -> bytes:
    """Return the attributes of a new qdisc; a kind that is not known has no options."""
    if not qdisc.kind:
        return b""
    kind = QDISCS.get(qdisc.kind)
    blocks = ((TCA_INGRESS_BLOCK, qdisc.ingress_block), (TCA_EGRESS_BLOCK, qdisc.egress_block))
    options = kind.pack(qdisc) if kind else b""
    return text(TCA_KIND, qdisc.kind) + options + b"".join(u32(place, number) for place, number in blocks if number)


def class_attrs(made: TcClass) -> bytes:
    """Return the attributes of a new class.

    Raises:  InputError for a kind whose classes cannot be made, or options without what the kind requires.
    """
    if not made.kind or not made.options:
        return text(TCA_KIND, made.kind) if made.kind else b""
    kind = QDISCS.get(made.kind)
    if kind is None or kind.classes is None or kind.classes.pack is None:
        able = ", ".join(row.name for row in QDISCS.values() if row.classes and row.classes.pack)
        raise InputError(f"classes of {made.kind} cannot be made", hint=f"{able} has classes here")
    return text(TCA_KIND, made.kind) + kind.classes.pack(made)


def read_qdisc(raw: bytes, names: Names) -> Qdisc:
    """Return the qdisc of one message."""
    _, index, handle, parent, info = HEAD.unpack_from(raw)
    found = attrs(raw[HEAD.size :])
    name, options = string(found.get(TCA_KIND)), found.get(TCA_OPTIONS)
    kind, values = QDISCS.get(name), dict[str, object]()
    if options:
        values = kind.read(options) if kind and kind.read else {"unread": len(options)}
    return Qdisc(
        dev=names.name(index),
        kind=name,
        handle=handle,
        parent=parent,
        options=values,
        stats=read_stats(found),
        refcnt=info,
        ingress_block=number(found.get(TCA_INGRESS_BLOCK)),
        egress_block=number(found.get(TCA_EGRESS_BLOCK)),
    )


def read_class(raw: bytes, names: Names) -> TcClass:
    """Return the class of one message."""
    _, index, handle, parent, info = HEAD.unpack_from(raw)
    found = attrs(raw[HEAD.size :])
    name = string(found.get(TCA_KIND))
    kind, values = QDISCS.get(name), dict[str, object]()
    if kind and kind.classes and kind.classes.read:
        xstats = attrs(found.get(TCA_STATS2, b"")).get(uapi.TCA_STATS_APP) or found.get(TCA_XSTATS)
        values = kind.classes.read(attrs(found.get(TCA_OPTIONS, b"")), xstats)
    return TcClass(
        dev=names.name(index), kind=name, classid=handle, parent=parent, leaf=info, options=values, stats=read_stats(found)
    )


def read_stats(found: dict[int, bytes], kind: int = TCA_STATS2) -> Stats:
    """Return the counters of a message's TCA_STATS2 (or an action's statistics)."""
    rows = attrs(found.get(kind, b""))
    basic, queue = rows.get(uapi.TCA_STATS_BASIC), rows.get(uapi.TCA_STATS_QUEUE)
    size, packets = struct.unpack_from("=QI", basic) if basic else (0, 0)
    qlen, backlog, drops, requeues, over = struct.unpack_from("=5I", queue) if queue else (0,) * 5
    return Stats(size, number(rows.get(uapi.TCA_STATS_PKT64), packets), drops, over, requeues, backlog, qlen)

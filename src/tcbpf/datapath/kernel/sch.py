"""Qdiscs and classes on rtnetlink's wire.

Source:  include/uapi/linux/pkt_sched.h; net/sched/sch_htb.c, sch_fifo.c.
"""

from __future__ import annotations

import errno
import struct
from functools import lru_cache
from typing import Any

from tcbpf.control.attributes import attr, attrs, nest, number, string, text, u32
from tcbpf.control.objects import PRIOMAP, Qdisc, Stats, TcClass
from tcbpf.control.psched import xmit_size, xmit_time
from tcbpf.datapath.kernel.names import Names
from tcbpf.errors import InputError, TcError
from tcbpf.uapi import tc as uapi

TCA_KIND, TCA_OPTIONS, TCA_XSTATS, TCA_STATS2, TCA_CHAIN = 1, 2, 4, 7, 11  # linux/rtnetlink.h, which gives them no BTF name
TCA_INGRESS_BLOCK, TCA_EGRESS_BLOCK = 13, 14
HEAD = struct.Struct("=BxxxiIII")  # struct tcmsg
_GLOB = struct.Struct("=5I")  # tc_htb_glob: version, rate2quantum, defcls, debug, direct_pkts
_RATE = struct.Struct("=BBHhHI")  # tc_ratespec: cell_log, linklayer, overhead, cell_align, mpu, rate
_OPT = struct.Struct("=5I")  # rest of struct tc_htb_opt: buffer, cbuffer, quantum, level, prio
_HTB_XSTATS = struct.Struct("=IIIii")  # lends, borrows, giants, tokens, ctokens
_FIFO = ("pfifo", "bfifo", "pfifo_head_drop")
DEFAULT_BURST = 1600  # bytes: one frame, as tc computes with a high-resolution clock


def qdisc_attrs(qdisc: Qdisc) -> bytes:
    """Return the attributes of a new qdisc."""
    if not qdisc.kind:
        return b""
    options = b""
    if qdisc.kind == "htb":
        glob = _GLOB.pack(3, _int(qdisc.options, "r2q", 10), _int(qdisc.options, "default"), 0, 0)
        rows = [attr(uapi.TCA_HTB_INIT, glob)]
        if "direct_qlen" in qdisc.options:
            rows.append(u32(uapi.TCA_HTB_DIRECT_QLEN, _int(qdisc.options, "direct_qlen")))
        options = nest(TCA_OPTIONS, *rows)
    elif qdisc.kind == "prio" and qdisc.options:
        bands: Any = qdisc.options.get("priomap", PRIOMAP)
        options = attr(TCA_OPTIONS, struct.pack("=i16B", _int(qdisc.options, "bands", 3), *bands))
    elif qdisc.kind in _FIFO and "limit" in qdisc.options:
        options = u32(TCA_OPTIONS, _int(qdisc.options, "limit"))
    blocks = ((TCA_INGRESS_BLOCK, qdisc.ingress_block), (TCA_EGRESS_BLOCK, qdisc.egress_block))
    return text(TCA_KIND, qdisc.kind) + options + b"".join(u32(kind, number) for kind, number in blocks if number)


def class_attrs(made: TcClass) -> bytes:
    """Return the attributes of a new class.

    Raises:  InputError when an htb class has no rate.
    """
    if not made.kind or not made.options:
        return text(TCA_KIND, made.kind) if made.kind else b""
    if made.kind != "htb":
        raise InputError(f"classes of {made.kind} cannot be made", hint="htb has classes here")
    options = made.options
    rate = _int(options, "rate")
    if not rate:
        raise InputError('"rate" is required.', where="class htb")
    ceil = _int(options, "ceil") or rate
    burst, cburst = (_int(options, name) or DEFAULT_BURST for name in ("burst", "cburst"))
    clock = ticks_per_us()
    times = _OPT.pack(
        xmit_time(rate, burst, clock), xmit_time(ceil, cburst, clock), _int(options, "quantum"), 0, _int(options, "prio")
    )
    rows = [attr(uapi.TCA_HTB_PARMS, _ratespec(rate, options) + _ratespec(ceil, options) + times)]
    for kind, value in ((uapi.TCA_HTB_RATE64, rate), (uapi.TCA_HTB_CEIL64, ceil)):
        if value >> 32:
            rows.append(attr(kind, struct.pack("=Q", value)))
    return text(TCA_KIND, "htb") + nest(TCA_OPTIONS, *rows)


def _ratespec(rate: int, options: dict[str, Any]) -> bytes:
    layer = uapi.TC_LINKLAYER_ATM if options.get("linklayer") == "atm" else uapi.TC_LINKLAYER_ETHERNET
    return _RATE.pack(0, layer, _int(options, "overhead"), 0, _int(options, "mpu"), min(rate, 0xFFFFFFFF))


def read_qdisc(raw: bytes, names: Names) -> Qdisc:
    """Return the qdisc of one message."""
    _, index, handle, parent, info = HEAD.unpack_from(raw)
    found = attrs(raw[HEAD.size :])
    kind, options = string(found.get(TCA_KIND)), found.get(TCA_OPTIONS)
    values: dict[str, object] = {}
    if options and kind == "htb":
        rows = attrs(options)
        if uapi.TCA_HTB_INIT in rows:
            version, r2q, default, _, direct = _GLOB.unpack_from(rows[uapi.TCA_HTB_INIT])
            values = {
                "r2q": r2q,
                "default": default,
                "direct_packets_stat": direct,
                "ver": f"{version >> 16}.{version & 0xFFFF}",
            }
        if uapi.TCA_HTB_DIRECT_QLEN in rows:
            values["direct_qlen"] = number(rows[uapi.TCA_HTB_DIRECT_QLEN])
    elif options and kind in ("prio", "pfifo_fast"):
        bands, *priomap = struct.unpack_from("=i16B", options)
        values = {"bands": bands, "priomap": tuple(priomap)}
    elif options and kind in _FIFO:
        values = {"limit": number(options[:4])}
    elif options:
        values = {"unread": len(options)}
    return Qdisc(
        dev=names.name(index),
        kind=kind,
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
    kind, rows = string(found.get(TCA_KIND)), attrs(found.get(TCA_OPTIONS, b""))
    values: dict[str, object] = {}
    if kind == "htb" and uapi.TCA_HTB_PARMS in rows:
        raw_opt = rows[uapi.TCA_HTB_PARMS]
        first, second = (_RATE.unpack_from(raw_opt, at) for at in (0, _RATE.size))
        buffer, cbuffer, quantum, level, prio = _OPT.unpack_from(raw_opt, 2 * _RATE.size)
        rate, ceil = number(rows.get(uapi.TCA_HTB_RATE64), first[5]), number(rows.get(uapi.TCA_HTB_CEIL64), second[5])
        values = {
            "rate": rate,
            "ceil": ceil,
            "burst": xmit_size(rate, buffer, ticks_per_us()),
            "cburst": xmit_size(ceil, cbuffer, ticks_per_us()),
            "prio": prio,
            "quantum": quantum,
            "level": level,
            "mpu": first[4],
            "overhead": first[2],
            "linklayer": "atm" if first[1] & uapi.TC_LINKLAYER_MASK == uapi.TC_LINKLAYER_ATM else "ethernet",
        }
        extra = attrs(found.get(TCA_STATS2, b"")).get(uapi.TCA_STATS_APP) or found.get(TCA_XSTATS)
        if extra:
            words = ("lended", "borrowed", "giants", "tokens", "ctokens")
            values |= dict(zip(words, _HTB_XSTATS.unpack_from(extra), strict=True))
    return TcClass(
        dev=names.name(index), kind=kind, classid=handle, parent=parent, leaf=info, options=values, stats=read_stats(found)
    )


def read_stats(found: dict[int, bytes], kind: int = TCA_STATS2) -> Stats:
    """Return the counters of a message's TCA_STATS2 (or an action's statistics)."""
    rows = attrs(found.get(kind, b""))
    basic, queue = rows.get(uapi.TCA_STATS_BASIC), rows.get(uapi.TCA_STATS_QUEUE)
    size, packets = struct.unpack_from("=QI", basic) if basic else (0, 0)
    qlen, backlog, drops, requeues, over = struct.unpack_from("=5I", queue) if queue else (0,) * 5
    return Stats(size, number(rows.get(uapi.TCA_STATS_PKT64), packets), drops, over, requeues, backlog, qlen)


@lru_cache(maxsize=1)
def ticks_per_us() -> float:
    """Return the packet scheduler's clock, in ticks per microsecond."""
    try:
        with open("/proc/net/psched", encoding="ascii") as file:
            t2us, us2t, resolution = (int(word, 16) for word in file.read().split()[:3])
    except OSError as error:
        raise TcError(error.errno or errno.ENOENT, "read /proc/net/psched") from None
    if resolution == 1000000000:
        t2us = us2t
    return t2us / us2t * resolution / 1e6


def _int(options: dict[str, Any], name: str, default: int = 0) -> int:
    return int(options.get(name, default))

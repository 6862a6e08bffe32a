"""pfifo, bfifo and pfifo_head_drop: one queue with a limit, in packets or (bfifo) in bytes.

Options: limit.

Source:  net/sched/sch_fifo.c (v6.18); tc/q_fifo.c of iproute2 6.1.
"""

from __future__ import annotations

from functools import partial

from tcbpf.control.args import LOCAL, Options, Quit, Words
from tcbpf.control.attributes import TCA_OPTIONS, number, u32
from tcbpf.control.objects import TX_QUEUE_LEN, Link, Qdisc
from tcbpf.control.sheet import Sheet
from tcbpf.control.units import format_size, read_size
from tcbpf.tc.kinds.qdisc.kind import QdiscKind, Values, integer

ETHERNET_HEADER = 14


def parse(name: str, words: Words) -> Values:
    """Take `limit N`."""
    values: Values = {}
    usage = f"Usage: ... {name} [ limit NUMBER ]"
    while words:
        word = words.take()
        if word == "help":
            raise Quit(LOCAL, usage)
        if word != "limit":
            raise Quit(LOCAL, f'{name}: unknown parameter "{word}"', usage)
        word = words.take()
        values["limit"] = read_size(word)
        if values["limit"] is None:
            raise Quit(LOCAL, f'{name}: Illegal value for "limit": "{word}"')
    return values


def show_packets(sheet: Sheet, row: Qdisc, options: Options) -> None:
    """Put a limit in packets."""
    if "limit" in row.options:
        sheet.put("limit", row.options["limit"], "limit {}p")


def show_bytes(sheet: Sheet, row: Qdisc, options: Options) -> None:
    """Put a limit in bytes."""
    if "limit" in row.options:
        sheet.put("limit", row.options["limit"], "limit {}", shown=format_size(integer(row.options, "limit")))


def pack(qdisc: Qdisc) -> bytes:
    """Return struct tc_fifo_qopt."""
    return u32(TCA_OPTIONS, integer(qdisc.options, "limit")) if "limit" in qdisc.options else b""


def read(raw: bytes) -> Values:
    """Return the options of struct tc_fifo_qopt."""
    return {"limit": number(raw[:4])}


def limit_in_packets(link: Link) -> Values:
    """Return the limit of a new queue of packets."""
    return {"limit": TX_QUEUE_LEN}


def limit_in_bytes(link: Link) -> Values:
    """Return the limit of a new queue of bytes: as many full frames."""
    return {"limit": TX_QUEUE_LEN * (link.mtu + ETHERNET_HEADER)}


_OF_PACKETS = partial(QdiscKind, show=show_packets, pack=pack, read=read, defaults=limit_in_packets, changes=True)
PFIFO = _OF_PACKETS("pfifo", parse=partial(parse, "pfifo"))
PFIFO_HEAD_DROP = _OF_PACKETS("pfifo_head_drop", parse=partial(parse, "pfifo_head_drop"))
BFIFO = QdiscKind(
    "bfifo", parse=partial(parse, "bfifo"), show=show_bytes, pack=pack, read=read, defaults=limit_in_bytes, changes=True
)

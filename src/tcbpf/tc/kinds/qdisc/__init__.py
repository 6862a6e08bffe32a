"""Every kind of qdisc, one row each, in its own file."""

from __future__ import annotations

from tcbpf.tc.kinds.qdisc import clsact, fifo, htb, noqueue, prio

QDISCS = {
    kind.name: kind
    for kind in (
        clsact.CLSACT,
        clsact.INGRESS,
        noqueue.NOQUEUE,
        fifo.PFIFO,
        fifo.BFIFO,
        fifo.PFIFO_HEAD_DROP,
        prio.PRIO,
        prio.PFIFO_FAST,
        htb.HTB,
    )
}

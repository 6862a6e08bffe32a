"""Random requests to both datapaths: the same answers, errnos and words, and the same dumps after every one.

What the kernel does not keep apart by namespace, or keeps of a request that it refused, is made alike before the
comparison: automatic handles (and the order that goes by them), the minor number of an ingress qdisc's block, the
order of its class table after deletions.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from netns import netns
from tcbpf.control.objects import ETH_P_ALL, Bpf, Filter, Link, Qdisc, TcClass, TcObject
from tcbpf.control.request import Op, Request
from tcbpf.datapath.user import User
from tcbpf.errors import TcError
from tcbpf.uapi.tc import TC_H_CLSACT, TC_H_ROOT

pytestmark = pytest.mark.kernel

INGRESS, EGRESS = 0xFFFFFFF2, 0xFFFFFFF3
WRITES = (Op.ADD, Op.ADD, Op.REPLACE, Op.CHANGE, Op.DELETE)
SHOWN = {"limit", "default", "r2q", "direct_qlen", "rate", "ceil", "burst", "cburst", "prio", "level", "quantum"}
DEVS = ("em1", "em2")


def a_qdisc(rng: random.Random, op: Op, dev: str) -> Qdisc:
    kind = rng.choice(["clsact", "clsact", "ingress", "htb", "htb", "pfifo", "bfifo", "nonsense"])
    if kind in ("clsact", "ingress"):
        handle, parent = 0xFFFF0000, TC_H_CLSACT
    else:
        handle = rng.choice([0, 0x10000, 0x10000, 0x20000, 0x30000])
        parent = rng.choice([TC_H_ROOT, TC_H_ROOT, TC_H_ROOT, 0x10001, 0x10002, 0x20001, 0x50001])
    options: dict[str, object] = {}
    if op is Op.DELETE:
        return Qdisc(dev, rng.choice([kind, ""]), handle, parent)
    if kind == "htb":
        options = rng.choice([{}, {"default": 2}])
    elif kind in ("pfifo", "bfifo"):
        options = rng.choice([{}, {"limit": 7}])
    return Qdisc(dev, kind, handle, parent, options)


def a_class(rng: random.Random, op: Op, dev: str) -> TcClass:
    classid = rng.choice([0x10001, 0x10002, 0x10003, 0x10010, 0x20001])
    if op is Op.DELETE:
        return TcClass(dev, "", classid, 0)
    parent = rng.choice([0x10000, 0x10000, 0x10001, 0x10002, TC_H_ROOT, 0x20000, 0x40000])
    return TcClass(dev, "htb", classid, parent, 0, {"rate": rng.choice([125000, 1000000])})


def a_filter(rng: random.Random, op: Op, dev: str) -> Filter:
    parent = rng.choice([INGRESS, INGRESS, EGRESS, TC_H_CLSACT, 0xFFFF0000, 0xFFFF0005, 0x10000, 0x10001, 0x20000, 0])
    pref, handle = rng.choice([0, 1, 2, 49152, 49151, 0x8000]), rng.choice([0, 0, 1, 2, 9])
    chain, protocol = rng.choice([0, 0, 0, 1, 7]), rng.choice([ETH_P_ALL, ETH_P_ALL, 0x0800])
    if op is Op.DELETE:
        kind = "bpf" if handle else rng.choice(["", "bpf", "matchall"])
        return Filter(dev, parent, kind, rng.choice([0, protocol]), pref, chain, handle)
    if op is Op.GET:
        return Filter(dev, parent, "bpf", protocol, pref, chain, handle)
    options = Bpf(
        bytecode=((6, 0, 0, rng.randrange(3)),),
        classid=0 if parent == 0x10001 else rng.choice([0, 0, 0x10001, 0x10002]),
        direct_action=rng.random() < 0.5,
        gen_flags=rng.choice([0, 0, 0, 1]),
    )
    return Filter(dev, parent, "bpf", 0 if op is Op.CHANGE else protocol, pref, chain, handle, options)


def a_request(rng: random.Random) -> Request:
    """Return a request that often makes sense."""
    dev, roll = rng.choice((*DEVS, *DEVS, *DEVS, "em3")), rng.random()
    if roll < 0.03:
        return Request(rng.choice([Op.ADD, Op.DELETE]), Link("em3", kind="veth", peer="em4"))
    op = rng.choice(WRITES)
    if roll < 0.25:
        return Request(op, a_qdisc(rng, op, dev))
    if roll < 0.45:
        return Request(op, a_class(rng, op, dev))
    op = rng.choice((*WRITES, Op.ADD, Op.GET))
    return Request(op, a_filter(rng, op, dev))


def answer(dp: Any, request: Request) -> tuple[Any, ...]:
    """Return what a datapath says to a request."""
    try:
        dp.apply(request)
    except TcError as error:
        # A refused request may have left the kernel an ingress queue, which a later one then finds.
        if error.extack in ("Invalid handle", "Cannot find specified qdisc on specified device"):
            return ("gone",)
        return error.errno, error.extack
    return ("done",)


def same(handle: int) -> int:
    """Return a handle without what the two need not agree on."""
    if handle == TC_H_ROOT:
        return handle
    return 0xFFFF0000 if handle >= 0xFFFF0000 else 0x80000000 if handle >= 0x80010000 else handle


def row(one: TcObject) -> tuple[Any, ...]:
    """Return what is compared of an object."""
    if isinstance(one, Qdisc):
        return one.kind, same(one.handle), same(one.parent), one.refcnt, shown(one.options)
    if isinstance(one, TcClass):
        return one.classid, one.parent, same(one.leaf), shown(one.options)
    if isinstance(one, Filter):
        options = replace(one.options, prog=None) if isinstance(one.options, Bpf) else None
        return same(one.parent), one.pref, one.chain, one.protocol, one.handle, options
    assert isinstance(one, Link)
    return one.name, one.qdisc, one.up


def shown(options: dict[str, object]) -> tuple[Any, ...]:
    return tuple(sorted((name, value) for name, value in options.items() if name in SHOWN))


def dump(dp: Any) -> list[Any]:
    """Return everything that a datapath shows of the two devices."""
    found: list[Any] = []
    for dev in DEVS:
        asked: list[TcObject] = [Qdisc(dev, "", 0, 0), Link(dev)]
        asked += [Filter(dev, parent, "", protocol=0) for parent in (INGRESS, EGRESS, 0x10000, 0x10001, 0x20000, 0)]
        for what in asked:
            try:
                rows = [row(one) for one in dp.apply(Request(Op.SHOW, what))]
                found.append(sorted(rows, key=repr) if isinstance(what, Qdisc) else rows)
            except TcError as error:
                found.append((error.errno, error.extack))
        found.append(sorted(row(one) for one in dp.apply(Request(Op.SHOW, TcClass(dev, "", 0, 0)))))
    return found


def walk(seed: int, steps: int) -> None:
    """Give both datapaths the same random requests and compare all they say."""
    from tcbpf.datapath.kernel import Kernel

    rng = random.Random(seed)
    with netns() as path, Kernel(netns=path) as kernel, User() as user:
        for dp in kernel, user:
            dp.apply(Request(Op.ADD, Link("em1", kind="veth", peer="em2")))
            dp.apply(Request(Op.CHANGE, Link("em1", up=True)))
        for step in range(steps):
            request = a_request(rng)
            place = f"seed {seed}, step {step}: {request.op.value} {request.object}"
            assert answer(user, request) == answer(kernel, request), place
            assert dump(user) == dump(kernel), place


@pytest.mark.parametrize("seed", range(4))
def test_the_kernel_says_the_same(seed: int) -> None:
    walk(seed, 200)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 300))
def test_the_kernel_says_the_same_for_long(seed: int) -> None:
    walk(seed, 1000)

"""A packet's way through filters, actions and devices, on both datapaths: who is run how often, what arrives, what is counted.

em1 and em2 are a pair, and em3 and em4. On the kernel one frame is sent with a packet socket, on the user datapath replayed.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from netns import netns, within
from tcbpf.control.handles import HOOKS
from tcbpf.control.objects import Action, Bpf, Filter, Link, Qdisc
from tcbpf.control.request import Op, Request
from tcbpf.datapath.kernel import Kernel
from tcbpf.datapath.user import User
from tcbpf.errors import TcError
from tcbpf.lang import compile
from tcbpf.net.pcap import Writer, read
from tcbpf.obj.program import Object
from tcbpf.uapi.tc import TC_H_CLSACT

ETHERTYPE, OTHER, ALL = 0x88B5, 0x0800, 3
FRAME = bytes.fromhex("020000000002 020000000001 88b5") + b"x" * 46
PEERS = {"em1": "em2", "em2": "em1", "em3": "em4", "em4": "em3"}
SOL_PACKET, PACKET_IGNORE_OUTGOING = 263, 23
UNSPEC = 0xFFFFFFFF


@pytest.fixture(scope="module")
def source() -> Object:
    return compile(Path(__file__).parent / "ways.c")


class Bed:
    """Two pairs of devices with clsact on each, and the programs."""

    def __init__(self, dp: Any, source: Object) -> None:
        self.dp, self.source = dp, source
        for near, far in ("em1", "em2"), ("em3", "em4"):
            dp.apply(Request(Op.ADD, Link(near, kind="veth", peer=far, address=f"02:00:00:00:00:0{near[-1]}")))
        for dev in PEERS:
            dp.apply(Request(Op.CHANGE, Link(dev, mtu=9100, up=True)))
            dp.apply(Request(Op.ADD, Qdisc(dev, "clsact", 0xFFFF0000, TC_H_CLSACT)))

    def index(self, dev: str) -> int:
        return int(self.dp.apply(Request(Op.GET, Link(dev)))[0].index)

    def give(self, *numbers: int) -> None:
        for place, number in enumerate(numbers):
            self.dp.maps["given"][place] = number

    def filter(self, program: str, dev: str = "em1", hook: str = "ingress", **more: Any) -> None:
        prog, direct = self.dp.load(self.source, program=program), not more.get("actions")
        more = {"pref": 1, "protocol": ALL, **more}
        options = Bpf(prog=prog, name=program, direct_action=direct)
        self.dp.apply(Request(Op.ADD, Filter(dev, HOOKS[hook], "bpf", options=options, **more)))

    def actions(self) -> list[tuple[int, int, int, int]]:
        found = self.dp.apply(Request(Op.SHOW, Action("mirred")))
        return [(a.stats.packets, a.stats.bytes, a.stats.drops, a.stats.overlimits) for a in found]

    def seen(self) -> list[int]:
        return [self.dp.maps["seen"][i] for i in range(4)]


def mirred(kind: str, dev: str, control: str, direction: str = "egress") -> Action:
    return Action("mirred", control=control, options={"dev": dev, "direction": direction, "action": kind})


def user(source: Object, build: Callable[[Bed], None], hook: str, path: Path) -> Any:
    with User() as dp:
        bed = Bed(dp, source)
        build(bed)
        with Writer(path / "in.pcap", format="pcap") as writer:
            writer.write(FRAME, 0)
        dp.replay(str(path / "in.pcap"), "em1", ingress=hook == "ingress", out=str(path / "out"))
        arrived = {dev: path / "out" / f"{dev}-ingress.pcapng" for dev in PEERS}
        counts = {dev: len(list(read(str(file)))) for dev, file in arrived.items() if file.exists()}
        return bed.seen(), {dev: count for dev, count in counts.items() if count}, bed.actions()


def kernel(source: Object, build: Callable[[Bed], None], hook: str) -> Any:
    with netns() as path, Kernel(netns=path) as dp:
        bed = Bed(dp, source)
        build(bed)
        arrived = within(path, lambda: sent("em1" if hook == "egress" else "em2"))
        return bed.seen(), arrived, bed.actions()


def sent(dev: str) -> dict[str, int]:
    """Send the frame through a device; return how many each device's stack got."""
    with contextlib.ExitStack() as stack:
        taps = {name: stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)) for name in PEERS}
        for name, tap in taps.items():
            tap.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
            tap.bind((name, ETHERTYPE))
            tap.setblocking(False)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as out, contextlib.suppress(OSError):
            out.bind((dev, 0))
            out.send(FRAME)
        time.sleep(0.05)
        counts = {name: sum(1 for _ in taken(tap)) for name, tap in taps.items()}
    return {name: count for name, count in counts.items() if count}


def taken(tap: socket.socket) -> Iterator[bytes]:
    with contextlib.suppress(OSError):
        while True:
            yield tap.recv(65536)


def two_of_one_pref(bed: Bed) -> None:
    for handle, program in (1, "verdict"), (2, "second"):
        bed.filter(program, protocol=OTHER, handle=handle)
    bed.filter("third", pref=2)
    bed.give(UNSPEC)


def mirred_loop(bed: Bed) -> None:
    bed.filter("verdict", actions=(mirred("redirect", "em1", "stolen", "ingress"),))
    bed.give(UNSPEC)


def mirred_egress_loop(bed: Bed) -> None:
    bed.filter("verdict", hook="egress", actions=(mirred("mirror", "em1", "pipe"),))
    bed.give(UNSPEC)


def mirred_once(kind: str, control: str, direction: str, hook: str) -> Callable[[Bed], None]:
    def build(bed: Bed) -> None:
        bed.filter("verdict", hook=hook, actions=(mirred(kind, "em3", control, direction),))
        bed.filter("third", hook=hook, pref=2)
        bed.give(UNSPEC)

    return build


def mirred_down(kind: str) -> Callable[[Bed], None]:
    def build(bed: Bed) -> None:
        bed.filter("verdict", actions=(mirred(kind, "em3", "pipe" if kind == "mirror" else "stolen"),))
        bed.dp.apply(Request(Op.CHANGE, Link("em3", up=False)))
        bed.give(UNSPEC)

    return build


def program_loop(program: str) -> Callable[[Bed], None]:
    def build(bed: Bed) -> None:
        bed.filter(program, hook="egress")
        bed.give(bed.index("em1"), 0)

    return build


def neighbour(bed: Bed) -> None:
    bed.filter("neighbour")
    bed.give(bed.index("em3"))


def over_a_pair(bed: Bed) -> None:
    bed.filter("set", hook="egress")
    bed.filter("read", dev="em2")


def clone_over_a_pair(bed: Bed) -> None:
    bed.filter("clone")
    bed.filter("read", dev="em4")
    bed.give(bed.index("em3"), 0)


def clone_inward(bed: Bed) -> None:
    bed.filter("clone")
    bed.filter("read", dev="em3")
    bed.give(bed.index("em3"), 1)


WAYS = {
    "two of one pref": (two_of_one_pref, "ingress"),
    "mirred ingress to itself": (mirred_loop, "ingress"),
    "mirred egress to itself": (mirred_egress_loop, "egress"),
    "redirect to itself": (program_loop("redirect"), "egress"),
    "clone to itself": (program_loop("clone"), "egress"),
    "a neighbour of no IP packet": (neighbour, "ingress"),
    "cb over a pair": (over_a_pair, "egress"),
    "a clone over a pair": (clone_over_a_pair, "ingress"),
    "a clone inward": (clone_inward, "ingress"),
    "mirror, device down": (mirred_down("mirror"), "ingress"),
    "redirect, device down": (mirred_down("redirect"), "ingress"),
    **{
        f"{kind} {direction} {control}, at {hook}": (mirred_once(kind, control, direction, hook), hook)
        for kind in ("mirror", "redirect")
        for direction in ("egress", "ingress")
        for control in ("pipe", "drop", "stolen", "continue")
        for hook in ("ingress", "egress")
    },
}


@pytest.mark.kernel
@pytest.mark.parametrize("name", WAYS)
def test_both_datapaths(name: str, source: Object, tmp_path: Path) -> None:
    build, hook = WAYS[name]
    mine, theirs = user(source, build, hook, tmp_path), kernel(source, build, hook)
    assert mine == theirs
    assert any(theirs[0])


def test_an_action_of_no_filter_goes_to_no_chain(datapath: Any) -> None:
    datapath.apply(Request(Op.ADD, Link("em3", kind="veth", peer="em4")))
    with pytest.raises(TcError, match="can't goto NULL proto/chain") as refused:
        datapath.apply(Request(Op.ADD, mirred("mirror", "em3", "goto chain 3")))
    assert refused.value.errno == errno.EINVAL


ENDS = {3: [1, 1, 1], 0: [1, 0, 0], 7: [1, 0, 0], 2: [1, 0, 0], -1: [1, 0, 1]}
"""Who is run when the first action of two says so: itself, the second action, the next filter."""


@pytest.mark.parametrize("control", ["pipe", "drop", "pass"])
@pytest.mark.parametrize("said", [*range(-3, 1), *range(2, 11), 100, 0x10000001, 0x20000001])
def test_what_an_action_of_bpf_returns(said: int, control: str, source: Object, tmp_path: Path) -> None:
    """By tcf_bpf_act(), net/sched/act_bpf.c (v6.18): the kernels that tests run on need not have this action."""
    configured = {"pipe": 3, "pass": 0, "drop": 2}[control]
    decided = said if said in (3, 0, 7, 2) else configured if said == -1 else -1

    def build(bed: Bed) -> None:
        first, second = (bed.dp.load(source, program=name) for name in ("act", "act_second"))
        actions = (
            Action("bpf", control=control, options={"prog": first, "name": "a"}),
            Action("bpf", control="pipe", options={"prog": second, "name": "b"}),
        )
        bed.dp.apply(
            Request(Op.ADD, Filter("em1", HOOKS["ingress"], "matchall", pref=1, protocol=ALL, options={}, actions=actions))
        )
        bed.filter("third", pref=2)
        bed.give(said & UNSPEC)

    seen, arrived, _ = user(source, build, "ingress", tmp_path)
    assert seen[:3] == ([1, 1, 0] if decided == 3 else ENDS[decided])
    assert arrived == ({"em1": 1} if decided in (3, 0, -1) else {})

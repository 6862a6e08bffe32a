"""Real captures through the hooks of both datapaths: what a classifier sees there, and what the qdisc counts, is the
same.

On the kernel the frames are sent with a packet socket over a veth pair; on the user datapath they are replayed.
"""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import pytest

import tcbpf
from netns import netns, within
from tcbpf.control.objects import TC_H_CLSACT, Bpf, Filter, Link, Qdisc
from tcbpf.control.request import Op, Request
from tcbpf.control.words import HOOKS
from tcbpf.datapath.user import User
from tcbpf.datapath.user.replay import replay
from tcbpf.net.pcap import read

pytestmark = pytest.mark.kernel

CAPTURES = Path(__file__).parents[2] / "examples" / "captures"
ADDRESS = "02:00:00:00:00:05"
MTU = 9100


def prepared(dp: Any, hook: str) -> Any:
    """Make a veth pair, attach the note-taker to a hook of em1, and return its program."""
    dp.apply(Request(Op.ADD, Link("em1", kind="veth", peer="em2", address=ADDRESS)))
    for dev in "em1", "em2":
        dp.apply(Request(Op.CHANGE, Link(dev, mtu=MTU, up=True)))
    dp.apply(Request(Op.ADD, Qdisc("em1", "clsact", 0xFFFF0000, TC_H_CLSACT)))
    prog = dp.load(tcbpf.compile(str(Path(__file__).parent / "note_context.c")), section="tc")
    dp.apply(Request(Op.ADD, Filter("em1", HOOKS[hook], "bpf", options=Bpf(prog=prog, name="note", direct_action=True))))
    return prog


def taken(dp: Any, prog: Any) -> tuple[list[Any], tuple[int, int]]:
    """Return the notes, and the packets and bytes that the qdisc counted."""
    maps = {m.spec.name: m for m in prog.maps}
    notes = [maps["notes"][at] for at in range(maps["count"][0])]
    stats = next(q.stats for q in dp.apply(Request(Op.SHOW, Qdisc("em1", ""))) if q.kind == "clsact")
    return notes, (stats.packets, stats.bytes)


def on_the_kernel(frames: list[bytes], hook: str) -> Any:
    from tcbpf.datapath.kernel import Kernel

    with netns() as path, Kernel(netns=path) as dp:
        prog = prepared(dp, hook)

        def send() -> None:
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
                sock.bind(("em2" if hook == "ingress" else "em1", 0))
                for frame in frames:
                    sock.send(frame)

        within(path, send)
        count = next(m for m in prog.maps if m.spec.name == "count")
        for _ in range(100):
            if count[0] >= len(frames):
                break
            time.sleep(0.02)
        return taken(dp, prog)


def in_this_process(capture: str, hook: str) -> Any:
    with User() as dp:
        prog = prepared(dp, hook)
        replay(dp, capture, "em1", ingress=hook == "ingress")
        return taken(dp, prog)


@pytest.mark.parametrize("hook", ["ingress", "egress"])
@pytest.mark.parametrize("capture", ["dns", "fragments", "icmp", "ipv6_ext", "vlan", "vxlan"])
def test_a_classifier_sees_the_same(capture: str, hook: str) -> None:
    from tcbpf.datapath.kernel import probe

    if why := probe.missing():
        pytest.skip(why)
    path = str(CAPTURES / f"{capture}.pcapng")
    frames = [packet.data for packet in read(path)]
    theirs, their_counts = on_the_kernel(frames, hook)
    ours, our_counts = in_this_process(path, hook)
    assert len(ours) == len(frames) and their_counts == our_counts
    for number, (mine, kernels) in enumerate(zip(ours, theirs, strict=True), 1):
        assert mine == kernels, f"packet {number}"

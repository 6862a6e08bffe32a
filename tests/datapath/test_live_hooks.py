"""Real captures through the hooks of both datapaths: what a classifier sees there, and what the qdisc counts, is the
same.

On the kernel the frames are sent with a packet socket over a veth pair; on the user datapath they are replayed.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from pathlib import Path
from typing import Any

import pytest

import tcbpf
from netns import netns, within
from tcbpf.control.handles import HOOKS
from tcbpf.control.objects import Bpf, Filter, Link, Qdisc
from tcbpf.control.request import Op, Request
from tcbpf.datapath.user import User
from tcbpf.isa import assemble, encode
from tcbpf.net.pcap import read
from tcbpf.obj.program import Program
from tcbpf.uapi.tc import TC_H_CLSACT

pytestmark = pytest.mark.kernel

CAPTURES = Path(__file__).parents[2] / "examples" / "captures"
ADDRESS = "02:00:00:00:00:05"
MTU = 9100
ETH_P_ALL, SOL_PACKET, PACKET_AUXDATA, PACKET_IGNORE_OUTGOING, TP_STATUS_VLAN_VALID = 3, 263, 8, 23, 0x10


REDIRECTS = {
    "out of em3": ("r1 = {em3}\nr2 = 0\ncall bpf_redirect\nexit", "em4"),
    "into em3": ("r1 = {em3}\nr2 = 1\ncall bpf_redirect\nexit", "em3"),
    "a copy out of em3": ("r2 = {em3}\nr3 = 0\ncall bpf_clone_redirect\nr0 = 2\nexit", "em4"),
    "a tag, out of em3": (
        "r6 = r1\nr2 = 0xa888\nr3 = 100\ncall bpf_skb_vlan_push\nr1 = {em3}\nr2 = 0\ncall bpf_redirect\nexit",
        "em4",
    ),
    "no tag, out of em3": ("r6 = r1\ncall bpf_skb_vlan_pop\nr1 = {em3}\nr2 = 0\ncall bpf_redirect\nexit", "em4"),
    "longer, out of em3": (
        "r2 = *(u32 *)(r1 +0)\nr2 += 6\nr3 = 0\ncall bpf_skb_change_tail\nr1 = {em3}\nr2 = 0\ncall bpf_redirect\nexit",
        "em4",
    ),
}
"""Programs for em1's ingress, and the device whose stack the packets reach."""


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
        dp.replay(capture, "em1", ingress=hook == "ingress")
        return taken(dp, prog)


@pytest.mark.parametrize("hook", ["ingress", "egress"])
@pytest.mark.parametrize("capture", ["dns", "fragments", "icmp", "ipv6_ext", "vlan", "vxlan"])
def test_a_classifier_sees_the_same(capture: str, hook: str) -> None:
    path = str(CAPTURES / f"{capture}.pcapng")
    frames = [packet.data for packet in read(path)]
    theirs, their_counts = on_the_kernel(frames, hook)
    ours, our_counts = in_this_process(path, hook)
    assert len(ours) == len(frames) and their_counts == our_counts
    for number, (mine, kernels) in enumerate(zip(ours, theirs, strict=True), 1):
        assert mine == kernels, f"packet {number}"


def sent_on(dp: Any, text: str) -> None:
    """Make two veth pairs and attach a program of assembly to em1's ingress."""
    for near, far in ("em1", "em2"), ("em3", "em4"):
        dp.apply(Request(Op.ADD, Link(near, kind="veth", peer=far, address=ADDRESS[:-1] + near[-1])))
        for dev in near, far:
            dp.apply(Request(Op.CHANGE, Link(dev, mtu=MTU, up=True)))
    dp.apply(Request(Op.ADD, Qdisc("em1", "clsact", 0xFFFF0000, TC_H_CLSACT)))
    em3 = dp.apply(Request(Op.GET, Link("em3")))[0].index
    prog = dp.prog_load(Program.from_bytes(encode(assemble(text.format(em3=em3))), license="GPL"))
    dp.apply(Request(Op.ADD, Filter("em1", HOOKS["ingress"], "bpf", options=Bpf(prog=prog, name="go", direct_action=True))))


def received_on_the_kernel(frames: list[bytes], text: str, at: str) -> list[bytes]:
    from tcbpf.datapath.kernel import Kernel

    with netns() as path, Kernel(netns=path) as dp:
        sent_on(dp, text)

        def pass_through() -> list[bytes]:
            tap, sock = (socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) for _ in range(2))
            with tap, sock:
                tap.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
                tap.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
                tap.bind((at, ETH_P_ALL))
                sock.bind(("em2", 0))
                for frame in frames:
                    sock.send(frame)
                tap.settimeout(0.2)
                found = []
                with contextlib.suppress(TimeoutError):
                    while True:
                        data, extra, _, _ = tap.recvmsg(65536, 256)
                        found.append(with_tag(data, extra))
                return found

        return within(path, pass_through)


def with_tag(data: bytes, extra: list[tuple[int, int, bytes]]) -> bytes:
    """Return a frame with the tag that the kernel keeps beside it put back."""
    for level, kind, raw in extra:
        if level == SOL_PACKET and kind == PACKET_AUXDATA:
            status, _, _, _, _, tci, tpid = struct.unpack_from("IIIHHHH", raw)
            if status & TP_STATUS_VLAN_VALID:
                return data[:12] + struct.pack("!HH", tpid, tci) + data[12:]
    return data


@pytest.mark.parametrize("how", REDIRECTS)
@pytest.mark.parametrize("capture", ["icmp", "vlan"])
def test_packets_are_sent_on_alike(capture: str, how: str, tmp_path: Path) -> None:
    (text, at), path = REDIRECTS[how], CAPTURES / f"{capture}.pcapng"
    theirs = received_on_the_kernel([packet.data for packet in read(path)], text, at)
    with User() as dp:
        sent_on(dp, text)
        dp.replay(str(path), "em1", ingress=True, out=str(tmp_path))
    ours = [packet.data for packet in read(tmp_path / f"{at}-ingress.pcapng")]
    assert len(theirs) > 10 and ours == theirs

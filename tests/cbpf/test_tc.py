"""cls_bpf with classic bytecode on both datapaths: the same packets match, on the way in and on the way out."""

from __future__ import annotations

import socket
from contextlib import suppress

import pytest

from cbpf.filters import CAPTURES
from netns import netns, within
from tcbpf.cbpf import assemble
from tcbpf.control.handles import HOOKS
from tcbpf.control.objects import Bpf, Filter, Link, Qdisc
from tcbpf.control.request import Op, Request
from tcbpf.datapath.kernel import Kernel
from tcbpf.datapath.user import User
from tcbpf.net.pcap import Writer, read
from tcbpf.uapi.tc import TC_H_CLSACT

pytestmark = pytest.mark.kernel

ADDRESS = "02:00:00:00:00:0c"
TESTS = {
    "ip": "ldh [12]; jeq #0x800, hit, miss",
    "proto": "ld #proto; jeq #0x800, hit, miss",
    "proto, with the tag off": "ld #proto; jeq #0x86dd, hit, miss",
    "type": "ld #type; jeq #0, hit, miss",
    "poff": "ld #poff; jgt #54, hit, miss",
    "a byte of the payload": "ld #poff; tax; ldb [x + 0]; jset #1, hit, miss",
    "from the network header": "ldb [0xfff00009]; jeq #17, hit, miss",
    "from the link header": "ldb [0xffe00005]; jeq #12, hit, miss",
    "vlan_avail": "ld #vlan_avail; jeq #1, hit, miss",
    "vlan_tci": "ld #vlan_tci; and #0xfff; jgt #9, hit, miss",
    "vlan_tpid": "ld #vlan_tpid; jeq #0x8100, hit, miss",
    "hatype": "ld #hatype; jeq #1, hit, miss",
    "len": "ld len; jgt #100, hit, miss",
    "mark": "ld #mark; jeq #0, hit, miss",
    "out of range": "ldb [1000]; jmp hit",
    "division by zero": "ldx #0; ldi 1; div x; jmp hit",
}


def bytecode(text, hit):
    source = (
        text.replace("; jmp hit", "") + f"\nja hit_ hit_: ret #{hit}"
        if "jmp hit" in text
        else text.replace("hit,", "hit_,").replace("miss", "miss_") + f"\nhit_: ret #{hit}\nmiss_: ret #0"
    )
    return tuple(tuple(insn) for insn in assemble(source.replace(";", "\n")))


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    path = tmp_path_factory.mktemp("captures") / "some.pcapng"
    with Writer(path) as writer:
        for recorded in CAPTURES:
            for packet in list(read(recorded))[:25]:
                if 20 <= len(packet.data) <= 1500:
                    writer.write(packet.data)
    return path


def drops(dp, hook, sends):
    """Return, for each test, how many packets a filter with direct action dropped."""
    dp.apply(Request(Op.ADD, Link("em1", kind="veth", peer="em2", address=ADDRESS)))
    for dev in "em1", "em2":
        dp.apply(Request(Op.CHANGE, Link(dev, up=True)))
    dp.apply(Request(Op.ADD, Qdisc("em1", "clsact", 0xFFFF0000, TC_H_CLSACT)))
    counted, before = {}, 0
    for name, text in TESTS.items():
        options = Bpf(bytecode=bytecode(text, 2), direct_action=True)
        dp.apply(Request(Op.ADD, Filter("em1", HOOKS[hook], "bpf", pref=1, handle=1, options=options)))
        sends()
        now = next(q.stats.drops for q in dp.apply(Request(Op.SHOW, Qdisc("em1", ""))) if q.kind == "clsact")
        counted[name], before = now - before, now
        dp.apply(Request(Op.DELETE, Filter("em1", HOOKS[hook], "bpf", pref=1, handle=1)))
    return counted


@pytest.mark.parametrize("hook", ["ingress", "egress"])
def test_both_datapaths_drop_the_same(capture, hook):
    frames = [packet.data for packet in read(capture)]

    def send():
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
            sock.bind(("em2" if hook == "ingress" else "em1", 0))
            for frame in frames:
                with suppress(OSError):  # ENOBUFS: dropped on the way out
                    sock.send(frame)

    with netns() as path, Kernel(netns=path) as kernel:
        theirs = drops(kernel, hook, lambda: within(path, send))
    with User() as user:
        ours = drops(user, hook, lambda: user.replay(str(capture), "em1", ingress=hook == "ingress"))
    assert ours == theirs
    assert theirs["out of range"] < len(frames) and theirs["division by zero"] == 0
    assert sum(0 < count < len(frames) for count in theirs.values()) >= 8

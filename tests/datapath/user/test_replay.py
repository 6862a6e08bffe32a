"""A capture through devices: hooks, veth pairs, redirects, classes, and what lands where."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import pytest

from tcbpf.control.objects import Action, Bpf, Filter, Link, Qdisc, TcClass
from tcbpf.control.request import Op, Request
from tcbpf.datapath.base import Replayed
from tcbpf.datapath.user import User
from tcbpf.errors import TcError
from tcbpf.isa import assemble, encode
from tcbpf.net import build
from tcbpf.net.pcap import Writer, read
from tcbpf.obj.program import Program
from tcbpf.uapi.tc import TC_H_CLSACT, TC_H_ROOT

INGRESS, EGRESS = 0xFFFFFFF2, 0xFFFFFFF3
SIZES = [60, 61, 62, 63, 64]


class Box:
    """A datapath with a veth pair em1 - em2 and a dummy em3, all up, all with clsact; and a capture of five packets."""

    def __init__(self, dp: User, directory: Path) -> None:
        self.dp, self.directory = dp, directory
        self(Op.ADD, Link("em1", kind="veth", peer="em2", up=True))
        self(Op.CHANGE, Link("em2", up=True))
        self(Op.ADD, Link("em3", up=True))
        self.index = {link.name: link.index for link in dp.state().links.values()}
        for dev in "em1", "em2", "em3":
            self(Op.ADD, Qdisc(dev, "clsact", parent=TC_H_CLSACT))
        self.capture = str(directory / "in.pcapng")
        with Writer(self.capture) as out:
            for size in SIZES:
                out.write(build.ether(build.ipv4(build.udp(b"")), pad=size), size)

    def __call__(self, op: Op, thing: Link | Qdisc | Filter | TcClass) -> None:
        self.dp.apply(Request(op, thing))

    def attach(
        self,
        dev: str,
        parent: int,
        text: str,
        *,
        direct: bool = True,
        classid: int = 0,
        actions: tuple[Action, ...] = (),
        chain: int = 0,
        pref: int = 0,
    ) -> None:
        """Attach a program of assembly."""
        with self.dp.prog_load(Program.from_bytes(encode(assemble(text)), license="GPL")) as prog:
            options = Bpf(prog=prog, name="asm", direct_action=direct, classid=classid)
            self(Op.ADD, Filter(dev, parent, "bpf", options=options, actions=actions, chain=chain, pref=pref))

    def run(self, dev: str = "em1", *, ingress: bool = True) -> Replayed:
        """Replay the capture."""
        return self.dp.replay(self.capture, dev, ingress=ingress, out=str(self.directory / "out"))

    def landed(self) -> dict[str, list[int]]:
        """Return the sizes of the packets in each capture written."""
        return {path.stem: [len(p.data) for p in read(path)] for path in sorted((self.directory / "out").iterdir())}


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(User(str(tmp_path / "home")), tmp_path)


def odd(verdict: str) -> str:
    """Return a program that gives packets of odd length a verdict of their own."""
    return f"r6 = r1\nr0 = *(u32 *)(r1 +0)\nr0 &= 1\nif r0 == 0 goto out\n{verdict}\nout: exit"


def test_without_filters_everything_arrives(box: Box) -> None:
    done = box.run()
    assert (done.packets, done.bytes, dict(done.verdicts), done.lost) == (5, 310, {-1: 5}, {})
    assert box.landed() == {"em1-ingress": SIZES}
    assert done.devices == {
        "em1": {"rx_packets": 5, "rx_bytes": 310, "rx_dropped": 0, "tx_packets": 0, "tx_bytes": 0, "tx_dropped": 0}
    }


def test_dropped_packets_do_not(box: Box) -> None:
    box.attach("em1", INGRESS, odd("r0 = 2"))
    done = box.run()
    assert done.verdicts == {0: 3, 2: 2} and done.devices["em1"]["rx_dropped"] == 2
    assert box.landed() == {"em1-ingress": [60, 62, 64]}
    qdisc = next(q for q in box.dp.apply(Request(Op.SHOW, Qdisc("em1", ""))) if isinstance(q, Qdisc) and q.kind == "clsact")
    # An ingress qdisc counts what follows the link header.
    assert (qdisc.stats.packets, qdisc.stats.bytes, qdisc.stats.drops) == (5, 310 - 5 * 14, 2)


def test_across_a_pair_of_veth(box: Box) -> None:
    box.attach("em1", EGRESS, odd("r0 = 2"))
    box.attach("em2", INGRESS, "r0 = 0\nexit")
    assert box.run(ingress=False).verdicts == {0: 3, 2: 2}
    assert box.landed() == {"em1-egress": [60, 62, 64], "em2-ingress": [60, 62, 64]}


def test_a_peer_that_is_down_takes_nothing(box: Box) -> None:
    box(Op.CHANGE, Link("em2", up=False))
    done = box.run(ingress=False)
    assert box.landed() == {"em1-egress": SIZES} and done.devices["em2"]["rx_dropped"] == 5


def redirect(box: Box, dev: str, flags: int) -> str:
    return f"r1 = {box.index[dev]}\nr2 = {flags}\ncall bpf_redirect"


def test_redirects_leave_or_arrive(box: Box) -> None:
    box.attach("em1", INGRESS, odd(redirect(box, "em3", 0)))
    box.attach("em3", EGRESS, "r0 = 0\nexit")
    assert box.run().verdicts == {0: 3, 7: 2}
    assert box.landed() == {"em1-ingress": [60, 62, 64], "em3-egress": [61, 63]}
    box(Op.DELETE, Filter("em1", INGRESS, "", protocol=0))
    box.attach("em1", INGRESS, odd(redirect(box, "em2", 1)))
    box.run()
    assert box.landed()["em2-ingress"] == [61, 63]


def test_a_redirect_to_nowhere_is_counted(box: Box) -> None:
    box.attach("em1", INGRESS, "r1 = 77\nr2 = 0\ncall bpf_redirect\nexit")
    assert box.run().lost == {"no device": 5} and box.landed() == {"em1-ingress": []}


def test_a_clone_goes_and_the_packet_stays(box: Box) -> None:
    box.attach("em1", INGRESS, f"r2 = {box.index['em3']}\nr3 = 0\ncall bpf_clone_redirect\nr0 = 0\nexit")
    box.run()
    assert box.landed() == {"em1-ingress": SIZES, "em3-egress": SIZES}


def test_a_loop_of_redirects_ends(box: Box) -> None:
    box.attach("em1", INGRESS, redirect(box, "em2", 0) + "\nexit")
    done = box.run()
    assert done.lost == {"recursion": 5} or done.devices["em1"]["rx_packets"] > 5


def test_what_a_program_writes_arrives(box: Box) -> None:
    box.attach(
        "em1",
        INGRESS,
        """
        r2 = *(u32 *)(r1 +76)
        r3 = *(u32 *)(r1 +80)
        r4 = r2
        r4 += 6
        if r4 > r3 goto out
        r5 = 0x5a
        *(u8 *)(r2 +5) = r5
    out: r0 = 0
        exit
    """,
    )
    box.run()
    assert {p.data[:6].hex() for p in read(box.directory / "out" / "em1-ingress.pcapng")} == {"02000000005a"}
    assert {p.data[:6].hex() for p in read(box.capture)} == {"020000000002"}


def test_actions_follow_filters_that_are_not_direct(box: Box) -> None:
    mirror = Action("mirred", control="pipe", options={"direction": "egress", "action": "mirror", "dev": "em3"})
    box.attach("em1", INGRESS, odd("r0 = -1"), direct=False, actions=(mirror, Action("gact", control="drop")))
    assert box.run().verdicts == {-1: 3, 2: 2}
    assert box.landed() == {"em1-ingress": [60, 62, 64], "em3-egress": [61, 63]}
    shown = box.dp.apply(Request(Op.SHOW, Action("gact")))
    assert [(a.stats.packets, a.stats.drops) for a in shown if isinstance(a, Action)] == [(2, 2)]


@pytest.mark.parametrize(
    ("action", "seen"),
    [
        (
            Action("vlan", control="pipe", options={"action": "push", "id": 7, "protocol": 0x8100, "priority": 3}),
            "8100 6007 0800",
        ),
        (Action("skbedit", control="pipe", options={"mark": 5, "priority": 9}), "0800"),
    ],
)
def test_actions_change_the_packet(box: Box, action: Action, seen: str) -> None:
    box.attach("em1", INGRESS, "r0 = -1\nexit", direct=False, actions=(action, Action("gact", control="pass")))
    box.run()
    raw = seen.replace(" ", "")
    landed = [p.data[12:].hex() for p in read(box.directory / "out" / "em1-ingress.pcapng")]
    assert all(data.startswith(raw) for data in landed)


def test_what_an_action_sets_the_next_filter_sees(box: Box) -> None:
    box.attach(
        "em1",
        INGRESS,
        "r0 = -1\nexit",
        direct=False,
        actions=(Action("skbedit", control="continue", options={"mark": 2}),),
        pref=1,
    )
    box.attach("em1", INGRESS, "r0 = *(u32 *)(r1 +8)\nexit", pref=2)
    assert box.run().verdicts == {2: 5}


def test_a_program_as_an_action(box: Box) -> None:
    with box.dp.prog_load(Program.from_bytes(encode(assemble(odd("r0 = 2"))), type="sched_act", license="GPL")) as prog:
        act = Action("bpf", control="pass", options={"prog": prog, "name": "act"})
        box.attach("em1", INGRESS, "r0 = -1\nexit", direct=False, actions=(act,))
    assert box.run().verdicts == {0: 3, 2: 2}
    shown = box.dp.apply(Request(Op.SHOW, Action("bpf")))[0]
    assert isinstance(shown, Action) and shown.options["name"] == "act" and "prog" not in shown.options


def test_a_chain_is_reached_by_its_number(box: Box) -> None:
    box.attach("em1", INGRESS, "r0 = -1\nexit", direct=False, actions=(Action("gact", control="goto chain 5"),))
    box.attach("em1", INGRESS, odd("r0 = 2"), chain=5)
    assert box.run().verdicts == {0: 3, 2: 2}


def test_classes_count(box: Box) -> None:
    box(Op.ADD, Qdisc("em3", "htb", 0x10000, TC_H_ROOT, {"default": 0x20}))
    for classid in 0x10010, 0x10020:
        box(Op.ADD, TcClass("em3", "htb", classid, 0x10000, options={"rate": 1000}))
    box.attach("em3", 0x10000, odd("r0 = -1"), direct=False, classid=0x10010)
    box.run("em3", ingress=False)
    shown = box.dp.apply(Request(Op.SHOW, TcClass("em3", "", 0, 0)))
    assert {c.classid: c.stats.packets for c in shown if isinstance(c, TcClass)} == {0x10010: 2, 0x10020: 3}
    root = box.dp.apply(Request(Op.SHOW, Qdisc("em3", "")))[0]
    assert isinstance(root, Qdisc) and (root.kind, root.stats.packets) == ("htb", 5)


def test_a_device_that_is_not_there(box: Box) -> None:
    with pytest.raises(TcError):
        box.run("em9")
    assert not (box.directory / "out").exists()


def test_a_full_disk_leaves_no_captures(box: Box) -> None:
    with Writer(box.capture) as out:
        for _ in range(3000):
            out.write(bytes(1000))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(OSError, match="em1-ingress"):
            box.run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert list((box.directory / "out").iterdir()) == []


def test_many_packets_to_many_devices_lose_none(box: Box) -> None:
    with Writer(box.capture) as out:
        for _ in range(30_000):
            out.write(bytes(64))
    for dev, flags in ("em2", 1), ("em3", 0):
        box.attach("em1", INGRESS, f"r2 = {box.index[dev]}\nr3 = {flags}\ncall bpf_clone_redirect\nr0 = -1\nexit")
    assert box.run().lost == {}
    assert {name: len(sizes) for name, sizes in box.landed().items()} == {
        "em1-ingress": 30_000,
        "em2-ingress": 30_000,
        "em3-egress": 30_000,
    }


def test_a_shared_block_classifies_for_every_device_in_it(box: Box) -> None:
    for dev in "em1", "em2":
        box(Op.DELETE, Qdisc(dev, "clsact", parent=TC_H_CLSACT))
        box(Op.ADD, Qdisc(dev, "clsact", parent=TC_H_CLSACT, ingress_block=7))
    drop = Bpf(bytecode=((6, 0, 0, 2),), direct_action=True)
    box(Op.ADD, Filter("", 0, "bpf", options=drop, block=7))
    assert [box.run(dev).verdicts for dev in ("em1", "em2", "em3")] == [{2: 5}, {2: 5}, {-1: 5}]
    box(Op.DELETE, Qdisc("em1", "clsact", parent=TC_H_CLSACT))
    assert (0, 7) in box.dp.state().filters
    box(Op.DELETE, Qdisc("em2", "clsact", parent=TC_H_CLSACT))
    assert (0, 7) not in box.dp.state().filters

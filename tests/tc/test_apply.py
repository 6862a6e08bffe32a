"""Requests to the user datapath's net/sched: what they leave, and the errno and words of what is refused.

The expected words were read off tc 6.1 on Linux 6.18.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest

from tcbpf.control.objects import Action, Bpf, Filter, Link, Qdisc, TcClass, TcObject
from tcbpf.control.request import Op, Request
from tcbpf.errors import TcError
from tcbpf.tc import link
from tcbpf.tc.apply import apply
from tcbpf.uapi.tc import TC_H_CLSACT, TC_H_ROOT

INGRESS, EGRESS = 0xFFFFFFF2, 0xFFFFFFF3
OK = ((6, 0, 0, 0),)


class Tc:
    """A State and the verbs that change it."""

    def __init__(self) -> None:
        self.state = link.initial()

    def __call__(self, op: Op, thing: TcObject) -> tuple[Any, ...]:
        self.state, answer = apply(self.state, Request(op, thing))
        return answer

    def refused(self, op: Op, thing: TcObject, code: int, words: str = "") -> None:
        """Check that a request is refused, with these words, and changes nothing."""
        before = self.state
        with pytest.raises(TcError) as caught:
            self(op, thing)
        assert (caught.value.errno, caught.value.extack) == (code, words)
        assert self.state == before

    def prefs(self, parent: int = INGRESS) -> list[tuple[int, int]]:
        """Return (pref, handle) of the filters in the order they are asked."""
        return [(f.pref, f.handle) for f in self(Op.SHOW, Filter("em1", parent, "")) if f.handle]


@pytest.fixture
def tc() -> Tc:
    made = Tc()
    made(Op.ADD, Link("em1", kind="veth", peer="em2"))
    made(Op.CHANGE, Link("em1", up=True))
    return made


@pytest.fixture
def clsact(tc: Tc) -> Tc:
    tc(Op.ADD, CLSACT)
    return tc


CLSACT = Qdisc("em1", "clsact", 0xFFFF0000, TC_H_CLSACT)
HTB = Qdisc("em1", "htb", 0x10000, TC_H_ROOT, {"default": 16})


def bpf(pref: int = 0, handle: int = 0, parent: int = INGRESS, **more: Any) -> Filter:
    return Filter("em1", parent, "bpf", pref=pref, handle=handle, options=Bpf(bytecode=OK, direct_action=True), **more)


def test_a_pair_of_veth_has_two_ends(tc: Tc) -> None:
    lo, far, near = tc(Op.SHOW, Link(""))
    assert (lo.name, far.name, near.name) == ("lo", "em2", "em1") and (lo.index, far.index, near.index) == (1, 2, 3)
    assert (near.peer, near.peer_index, far.peer) == ("em2", 2, "em1")
    assert (near.up, near.qdisc, far.up, far.qdisc) == (True, "noqueue", False, "noop")
    tc(Op.DELETE, Link("em2"))
    assert [one.name for one in tc(Op.SHOW, Link(""))] == ["lo"]


@pytest.mark.parametrize(
    ("made", "code", "words"),
    [
        (Link("em1"), errno.EEXIST, ""),
        (Link("em3", kind="veth", peer="em1"), errno.EEXIST, ""),
        (Link("em3", kind="veth", peer="em3"), errno.EEXIST, ""),
        (Link("em3", kind="foo"), errno.EOPNOTSUPP, "Unknown device type"),
        (Link("a-name-longer-than-15"), errno.EINVAL, "Attribute failed policy validation"),
        (Link("em3", kind="veth", mtu=10), errno.EINVAL, "mtu less than device minimum"),
        (Link("a/b"), errno.EINVAL, ""),
    ],
)
def test_devices_that_cannot_be_made(tc: Tc, made: Link, code: int, words: str) -> None:
    tc.refused(Op.ADD, made, code, words)


def test_a_renamed_device_keeps_what_hangs_on_it(clsact: Tc) -> None:
    clsact(Op.ADD, bpf())
    clsact(Op.CHANGE, Link("em1", up=True, options={"name": "eth7"}))
    assert clsact(Op.SHOW, Link("em2"))[0].peer == "eth7"
    assert [q.dev for q in clsact(Op.SHOW, Qdisc("eth7", ""))] == ["eth7", "eth7"]
    assert {f.dev for f in clsact(Op.SHOW, Filter("eth7", INGRESS, ""))} == {"eth7"}


def test_clsact_once(tc: Tc) -> None:
    tc.refused(Op.DELETE, CLSACT, errno.ENOENT, "Cannot find specified qdisc on specified device")
    tc(Op.ADD, CLSACT)
    assert [(q.kind, q.handle, q.parent) for q in tc(Op.SHOW, Qdisc("em1", ""))] == [
        ("noqueue", 0, TC_H_ROOT),
        ("clsact", 0xFFFF0000, TC_H_CLSACT),
    ]
    tc.refused(Op.ADD, CLSACT, errno.EEXIST, "Exclusivity flag on, cannot modify")
    tc(Op.REPLACE, CLSACT)
    ingress = Qdisc("em1", "ingress", 0xFFFF0000, TC_H_CLSACT)
    tc.refused(Op.REPLACE, ingress, errno.EINVAL, "Invalid qdisc name: must match existing qdisc")
    tc(Op.DELETE, CLSACT)
    tc.refused(Op.DELETE, CLSACT, errno.EINVAL, "Invalid handle")


def test_a_root_qdisc_comes_and_goes(tc: Tc) -> None:
    root = Qdisc("em1", "", 0, TC_H_ROOT)
    tc.refused(Op.DELETE, root, errno.ENOENT, "Cannot delete qdisc with handle of zero")
    tc(Op.ADD, HTB)
    tc.refused(Op.ADD, HTB, errno.EEXIST, "Exclusivity flag on, cannot modify")
    tc.refused(Op.ADD, Qdisc("em1", "htb", 0x20000), errno.EEXIST, "NLM_F_REPLACE needed to override")
    tc.refused(Op.ADD, Qdisc("em1", "foo", 0), errno.ENOENT, "Specified qdisc kind is unknown")
    tc(Op.REPLACE, Qdisc("em1", "pfifo", 0x20000, options={"limit": 5}))
    assert [(q.kind, q.handle, q.options) for q in tc(Op.SHOW, Qdisc("em1", ""))] == [("pfifo", 0x20000, {"limit": 5})]
    tc(Op.DELETE, root)
    tc.refused(Op.ADD, Qdisc("em1", "foo"), errno.ENOENT, "Specified qdisc kind is unknown")
    tc(Op.ADD, Qdisc("em1", "pfifo_fast"))
    assert tc(Op.SHOW, Qdisc("em1", ""))[0].handle == 0x80010000
    assert tc(Op.SHOW, Link("em1"))[0].qdisc == "pfifo_fast"


def test_automatic_preferences_go_down_and_handles_up(clsact: Tc) -> None:
    for _ in range(2):
        clsact(Op.ADD, bpf())
    for _ in range(2):
        clsact(Op.ADD, bpf(49151))
    clsact(Op.ADD, bpf(49151, 7))
    clsact(Op.ADD, bpf(10))
    clsact(Op.ADD, bpf())
    assert clsact.prefs() == [(10, 1), (49150, 1), (49151, 7), (49151, 3), (49151, 2), (49151, 1), (49152, 1)]


@pytest.mark.parametrize(
    ("op", "asked", "code", "words"),
    [
        (Op.ADD, bpf(5, 7), errno.EEXIST, "Filter already exists"),
        (Op.ADD, bpf(5, protocol=0x800), errno.EINVAL, "Protocol mismatch for filter with specified priority"),
        (Op.CHANGE, bpf(6, protocol=0), errno.EINVAL, "Filter kind and protocol must be specified"),
        (Op.CHANGE, bpf(5, 99), errno.ENOENT, "Need both RTM_NEWTFILTER and NLM_F_CREATE to create a new filter"),
        (Op.CHANGE, bpf(), errno.ENOENT, "Invalid filter command with priority of zero"),
        (
            Op.ADD,
            Filter("em1", INGRESS, "matchall", pref=5),
            errno.EINVAL,
            "Specified filter kind does not match existing one",
        ),
        (Op.ADD, Filter("em1", INGRESS, "foo"), errno.ENOENT, "TC classifier not found"),
        (Op.ADD, bpf(parent=TC_H_CLSACT), errno.ENOENT, "Specified class doesn't exist"),
        (Op.ADD, bpf(parent=0xFFFF0000), errno.EINVAL, ""),
        (Op.ADD, bpf(parent=0x10000), errno.EINVAL, "Parent Qdisc doesn't exists"),
        (Op.ADD, bpf(parent=0), errno.EINVAL, "Qdisc not classful"),
        (Op.ADD, Filter("em1", INGRESS, "bpf", options=Bpf(bytecode=OK, gen_flags=2)), errno.EOPNOTSUPP, ""),
        (Op.ADD, Filter("em1", INGRESS, "bpf", options=Bpf()), errno.EINVAL, ""),
        (Op.ADD, Filter("nosuch", INGRESS, "bpf", options=Bpf(bytecode=OK)), errno.ENODEV, 'Cannot find device "nosuch"'),
        (Op.DELETE, bpf(6), errno.ENOENT, "Filter with specified priority/protocol not found"),
        (Op.DELETE, bpf(5, 70), errno.ENOENT, "Specified filter handle not found"),
        (Op.DELETE, bpf(5, chain=3), errno.ENOENT, "Cannot find specified filter chain"),
        (Op.DELETE, bpf(), errno.ENOENT, "Cannot flush filters with protocol, handle or kind set"),
    ],
)
def test_filters_that_are_refused(clsact: Tc, op: Op, asked: Filter, code: int, words: str) -> None:
    clsact(Op.ADD, bpf(5, 7))
    clsact.refused(op, asked, code, words)


def test_replace_keeps_the_place(clsact: Tc) -> None:
    for handle in 1, 2, 3:
        clsact(Op.ADD, bpf(5, handle))
    clsact(Op.REPLACE, Filter("em1", INGRESS, "bpf", pref=5, handle=2, options=Bpf(bytecode=OK, classid=0x10002)))
    shown = [f for f in clsact(Op.SHOW, Filter("em1", INGRESS, "")) if f.handle]
    assert [(f.handle, f.options.classid) for f in shown] == [(3, 0), (2, 0x10002), (1, 0)]
    clsact(Op.DELETE, Filter("em1", INGRESS, "bpf", pref=5, handle=3))
    assert clsact.prefs() == [(5, 2), (5, 1)]
    clsact(Op.DELETE, Filter("em1", INGRESS, "", pref=5))
    assert clsact.prefs() == []


def test_ingress_and_egress_are_two_blocks_of_clsact_and_one_of_ingress(tc: Tc) -> None:
    for kind, seen in ("clsact", [(49152, 1)]), ("ingress", [(49151, 1), (49152, 1)]):
        qdisc = Qdisc("em1", kind, 0xFFFF0000, TC_H_CLSACT)
        tc(Op.ADD, qdisc)
        tc(Op.ADD, bpf())
        tc(Op.ADD, bpf(parent=EGRESS))
        assert tc.prefs() == tc.prefs(EGRESS) == seen
        tc(Op.DELETE, qdisc)
        assert tc.prefs() == []


def test_a_dump_leads_every_preference_with_a_bare_row(clsact: Tc) -> None:
    clsact(Op.ADD, bpf(1))
    clsact(Op.ADD, bpf(1))
    clsact(Op.ADD, bpf(2, chain=4))
    rows = [(f.chain, f.pref, f.handle, f.protocol) for f in clsact(Op.SHOW, Filter("em1", INGRESS, ""))]
    assert rows == [(0, 1, 0, 3), (0, 1, 2, 3), (0, 1, 1, 3), (4, 2, 0, 3), (4, 2, 1, 3)]
    assert len(clsact(Op.SHOW, Filter("em1", INGRESS, "", chain=4))) == 2


@pytest.fixture
def htb(tc: Tc) -> Tc:
    tc(Op.ADD, HTB)
    for parent, classid in (0x10000, 1), (0x10001, 0x10), (0x10007, 0x11), (0x10001, 0x12):
        tc(Op.ADD, TcClass("em1", "htb", 0x10000 | classid, parent, options={"rate": 125000, "burst": 1600}))
    return tc


def test_classes_in_the_kernels_order(htb: Tc) -> None:
    shown = htb(Op.SHOW, TcClass("em1", "", 0))
    assert [(c.classid, c.parent) for c in shown] == [
        (0x10011, TC_H_ROOT),
        (0x10001, TC_H_ROOT),
        (0x10010, 0x10001),
        (0x10012, 0x10001),
    ]
    assert [c.options["level"] for c in shown] == [0, 7, 0, 0] and shown[0].options["tokens"] == 200000


@pytest.mark.parametrize(
    ("op", "asked", "code", "words"),
    [
        (Op.ADD, TcClass("em1", "htb", 0x10001, 0x10000), errno.EEXIST, ""),
        (Op.ADD, TcClass("em1", "htb", 0x30011, 0x30000), errno.ENOENT, ""),
        (Op.ADD, TcClass("em1", "htb", 0x20011, 0x10001), errno.EINVAL, ""),
        (Op.CHANGE, TcClass("em1", "htb", 0x10055, 0x10001), errno.ENOENT, ""),
        (Op.DELETE, TcClass("em1", "htb", 0x10010), errno.EBUSY, "HTB class in use"),
        (Op.DELETE, TcClass("em1", "htb", 0x10001), errno.EBUSY, "HTB class in use"),
        (Op.DELETE, TcClass("em1", "htb", 0x10077), errno.ENOENT, ""),
        (Op.ADD, Qdisc("em1", "pfifo", 0x210000, 0x10099), errno.ENOENT, "Specified class not found"),
        (Op.ADD, Qdisc("em1", "pfifo", 0x200000, 0x10012), errno.EEXIST, "Exclusivity flag on, cannot modify"),
        (
            Op.ADD,
            Filter("em1", 0x10099, "bpf", options=Bpf(bytecode=OK)),
            errno.ENOENT,
            "Specified class doesn't exist",
        ),
    ],
)
def test_classes_that_are_refused(htb: Tc, op: Op, asked: TcObject, code: int, words: str) -> None:
    htb(Op.ADD, Filter("em1", 0x10000, "bpf", options=Bpf(bytecode=OK, classid=0x10010)))
    htb(Op.ADD, Qdisc("em1", "pfifo", 0x200000, 0x10012))
    htb.refused(op, asked, code, words)


def test_a_class_takes_its_qdisc_with_it(htb: Tc) -> None:
    htb(Op.ADD, Qdisc("em1", "pfifo", 0x200000, 0x10012, {"limit": 10}))
    assert htb(Op.SHOW, TcClass("em1", "", 0x10012))[0].leaf == 0x200000
    htb(Op.DELETE, TcClass("em1", "htb", 0x10012))
    assert [q.kind for q in htb(Op.SHOW, Qdisc("em1", ""))] == ["htb"]
    htb.refused(Op.DELETE, Qdisc("em1", "", 0, 0x10012), errno.ENOENT, "Specified class not found")


def test_prio_has_a_class_for_each_band(tc: Tc) -> None:
    tc(Op.ADD, Qdisc("em1", "prio", 0x10000))
    assert [c.classid for c in tc(Op.SHOW, TcClass("em1", "", 0))] == [0x10001, 0x10002, 0x10003]


def test_actions_live_as_long_as_their_filters(clsact: Tc) -> None:
    drop = Action("gact", control="drop")
    clsact(
        Op.ADD,
        bpf(1, actions=(drop, Action("mirred", options={"dev": "em2", "action": "mirror", "direction": "egress"}))),
    )
    clsact(Op.ADD, bpf(2, actions=(drop,)))
    shown = [f for f in clsact(Op.SHOW, Filter("em1", INGRESS, "")) if f.handle]
    assert [[(a.kind, a.index, a.bind) for a in f.actions] for f in shown] == [
        [("gact", 1, 1), ("mirred", 1, 1)],
        [("gact", 2, 1)],
    ]
    assert len(clsact(Op.SHOW, Action("gact"))) == 2
    clsact(Op.DELETE, bpf(1, handle=1))
    assert [a.index for a in clsact(Op.SHOW, Action("gact"))] == [2] and clsact(Op.SHOW, Action("mirred")) == ()
    clsact.refused(Op.DELETE, Action("gact", 2), errno.EPERM)


def test_a_device_that_mirred_lacks(clsact: Tc) -> None:
    clsact.refused(Op.ADD, bpf(actions=(Action("mirred", options={"dev": "gone"}),)), errno.ENODEV)
    for code in (
        (255, 0, 0, 0),
        (5, 0, 0, 0xFFFFFFFF),
        (0, 0, 0, 0),
    ):  # what no kernel loads
        clsact.refused(Op.ADD, bpf(actions=(Action("bpf", options={"bytecode": (code,)}),)), errno.EINVAL)
        clsact.refused(Op.ADD, Filter("em1", INGRESS, "bpf", options=Bpf(bytecode=(code,))), errno.EINVAL)
    clsact.refused(Op.ADD, bpf(actions=(Action("nonsense"),)), errno.ENOENT, "Failed to load TC action module")


def test_every_verb_leaves_the_old_state_alone(tc: Tc) -> None:
    steps: list[Callable[[], object]] = [
        lambda: tc(Op.ADD, CLSACT),
        lambda: tc(Op.ADD, bpf()),
        lambda: tc(Op.ADD, HTB),
        lambda: tc(Op.DELETE, Link("em1")),
    ]
    for step in steps:
        before, copy = tc.state, repr(tc.state)
        step()
        assert tc.state is not before and repr(before) == copy

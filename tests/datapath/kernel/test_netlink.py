"""rtnetlink's wire: attributes, and what an acknowledgement says."""

from __future__ import annotations

import errno
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcbpf.control.attributes import attr, attrs, nest, number, pairs, string, text, u16, u32
from tcbpf.control.objects import Action
from tcbpf.datapath.kernel import act
from tcbpf.datapath.kernel.netlink import Rtnetlink
from tcbpf.errors import TcError

ROWS = st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=20)), max_size=6)


@given(ROWS)
def test_attributes_both_ways(rows: list[tuple[int, bytes]]) -> None:
    assert list(pairs(b"".join(attr(kind, payload) for kind, payload in rows))) == rows


@given(st.binary(max_size=64))
def test_damaged_attributes_end_the_list(raw: bytes) -> None:
    assert all(len(payload) <= len(raw) for _, payload in pairs(raw))


def test_widths_and_nesting() -> None:
    raw = nest(2, text(1, "bpf"), u16(4, 7), u32(6, 1 << 20))
    inner = attrs(attrs(raw)[2])
    assert (string(inner[1]), number(inner[4]), number(inner[6]), len(inner[4])) == ("bpf", 7, 1 << 20, 2)
    assert number(None, 5) == 5 and string(None) == ""


class Wire(Rtnetlink):
    """A socket whose other end is the test."""

    def __init__(self) -> None:
        self.socket, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.warnings, self._sequence = [], 0

    def answer(self, kind: int, payload: bytes, flags: int = 0, sequence: int = 1) -> None:
        self.far.send(struct.pack("=IHHII", 16 + len(payload), kind, flags, sequence, 0) + payload)


def sentence(words: str) -> bytes:
    return bytes(16) + attr(1, words.encode() + b"\0")


@pytest.mark.parametrize(
    ("flags", "payload", "code", "words"),
    [
        (0x300, struct.pack("=i", -errno.EEXIST) + sentence("Exclusivity flag on"), errno.EEXIST, "Exclusivity flag on"),
        (0, struct.pack("=i", -errno.EPERM) + bytes(16), errno.EPERM, ""),
    ],
)
def test_a_refusal_carries_the_kernels_sentence(flags: int, payload: bytes, code: int, words: str) -> None:
    wire = Wire()
    wire.answer(2, payload, flags)
    with pytest.raises(TcError) as caught:
        wire.ask(36, 0, b"", asked="add qdisc")
    assert (caught.value.errno, caught.value.extack, caught.value.asked) == (code, words, "add qdisc")


def test_answers_to_others_are_passed_over_and_remarks_kept() -> None:
    wire = Wire()
    wire.answer(36, b"old", sequence=9)
    wire.answer(36, b"new")
    wire.answer(2, struct.pack("=i", 0) + sentence("quantum is big"), 0x300)
    assert wire.ask(38, 0, b"", asked="x") == [(36, b"new")] and wire.warnings == ["quantum is big"]


def test_a_dump_that_ends_badly() -> None:
    wire = Wire()
    wire.answer(36, b"row")
    wire.answer(3, struct.pack("=i", -errno.ENODEV))
    with pytest.raises(TcError) as caught:
        wire.ask(38, 0x300, b"", asked="x")
    assert caught.value.errno == errno.ENODEV


@pytest.mark.parametrize(
    "action",
    [
        Action("vlan", 3, "pipe", {"action": "push", "id": 5, "protocol": 0x88A8, "priority": 3}),
        Action("vlan", 4, "drop", {"action": "pop"}),
        Action(
            "skbedit",
            9,
            "goto chain 7",
            {"priority": 0x10002, "queue_mapping": 3, "mark": 7, "mask": 0xFF, "ptype": 2},
            cookie=b"\1\2",
            flags=1,
            hw_stats_asked="delayed",
        ),
    ],
    ids=lambda action: f"{action.kind}-{action.index}",
)
def test_actions_of_numbers_are_written_and_read(action: Action) -> None:
    """What this kernel may not have: the numbers are linux/tc_act/*.h's."""
    written = act.actions_attr(act.TCA_ACT_TAB, (action,), None)  # type: ignore[arg-type]
    (read,) = act.read_actions(written[4:], None)  # type: ignore[arg-type]
    assert (read.kind, read.index, read.control, read.options) == (action.kind, action.index, action.control, action.options)
    assert (read.cookie, read.flags, read.hw_stats_asked) == (action.cookie, action.flags, action.hw_stats_asked)


def test_a_vlan_push_is_as_the_header_says() -> None:
    push = Action("vlan", 3, "pipe", {"action": "push", "id": 5, "protocol": 0x8100})
    written = act.actions_attr(1, (push,), None)  # type: ignore[arg-type]
    assert struct.pack("=IIiii", 3, 0, 3, 0, 0) + struct.pack("=i", 2) in written
    assert struct.pack("=HHHxx", 6, 3, 5) + struct.pack("=HH", 6, 4) + b"\x81\x00" in written

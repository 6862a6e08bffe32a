"""Each kind of qdisc, class, filter and action: words become options, attributes bring them back, a listing says them.

A new kind adds a row of words here.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from tcbpf.control.args import Options, Quit, Words
from tcbpf.control.attributes import TCA_OPTIONS, attrs
from tcbpf.control.objects import Action, Filter, Link, Qdisc, TcClass
from tcbpf.control.sheet import Sheet
from tcbpf.native.library import constant
from tcbpf.tc.kinds import action, filter, qdisc
from tcbpf.tc.kinds.action import ACTIONS
from tcbpf.tc.kinds.action.kind import ActionKind
from tcbpf.tc.kinds.command import Ready
from tcbpf.tc.kinds.device import DEVICES
from tcbpf.tc.kinds.filter import FILTERS
from tcbpf.tc.kinds.filter.kind import FilterKind
from tcbpf.tc.kinds.qdisc import QDISCS
from tcbpf.tc.kinds.qdisc.kind import QdiscKind

QDISC_WORDS = {
    "clsact": ("", ""),
    "ingress": ("", "---------------- "),
    "pfifo": ("limit 10", "limit 10p"),
    "bfifo": ("limit 2k", "limit 2Kb"),
    "pfifo_head_drop": ("limit 5", "limit 5p"),
    "prio": ("bands 4 priomap 3 2", "bands 4 priomap 3 2 2 2 1 2 0 0 1 1 1 1 1 1 1 1"),
    "htb": ("default 1f r2q 5 direct_qlen 7", "r2q 5 default 0x1f direct_packets_stat 0 direct_qlen 7"),
}
CLASS_WORDS = {"htb": ("rate 1mbit ceil 2mbit prio 3", "prio 3 rate 1Mbit ceil 2Mbit burst 1600b cburst 1600b ")}
FILTER_WORDS = {
    "bpf": ("bytecode x classid 1:5 da", "handle 0x1 flowid 1:5 direct-action bytecode '1,6 0 0 1'"),
    "matchall": ("classid 1:5", "handle 0x1 flowid 1:5 "),
    "u32": ("match u8 6 ff at 9 classid 1:5", "fh 0::1 order 1 key ht 0 bkt 0 *flowid 1:5 \n  match 00060000/00ff0000 at 8"),
}
ACTION_WORDS = {
    "gact": ("drop index 4", "action drop\n\t random type none pass val 0\n\t index 4"),
    "mirred": ("egress mirror dev em1 pipe", "(Egress Mirror to device em1) pipe\n\tindex 0"),
    "vlan": ("push id 5 priority 3", " push id 5 protocol 802.1Q priority 3 pipe\n\t index 0"),
    "skbedit": ("mark 7/0xf ptype host", " mark 7/0xf ptype host pipe\n\t index 0"),
    "bpf": ("bytecode x drop", "bytecode '1,6 0 0 1' default-action drop\n\t index 0"),
}
CODE = ((6, 0, 0, 1),)


class Place:
    """A command, a namespace with the one device em1, and a runtime, for kinds to ask."""

    def program(self, words: Words, type: str = "sched_cls") -> Callable[[], Ready]:
        assert (words.take(), words.take()) == ("bytecode", "x")
        return lambda: Ready(bytecode=CODE)

    def actions(self, words: Words) -> tuple[Action, ...]:
        raise AssertionError

    def require_device(self, name: str) -> None:
        assert name == "em1"

    def index(self, name: str) -> int:
        return {"em1": 7}[name]

    def name(self, index: int) -> str:
        return {7: "em1"}[index]


def words(text: str) -> Words:
    return Words(text.split())


def shown(put: Any, row: object) -> str:
    sheet = Sheet()
    with sheet.object():
        put(sheet, row, Options())
    return sheet.text()


def test_every_kind_that_can_be_made_has_its_words_here() -> None:
    assert set(QDISC_WORDS) == {kind.name for kind in QDISCS.values() if kind.parse}
    assert set(CLASS_WORDS) == {kind.name for kind in QDISCS.values() if kind.classes and kind.classes.parse}
    assert set(FILTER_WORDS) == set(FILTERS) and set(ACTION_WORDS) == set(ACTIONS)


@pytest.mark.parametrize(
    ("folder", "row", "table"),
    [(qdisc, QdiscKind, QDISCS), (filter, FilterKind, FILTERS), (action, ActionKind, ACTIONS)],
    ids=["qdisc", "filter", "action"],
)
def test_every_row_is_in_its_table(folder: ModuleType, row: type, table: dict[str, Any]) -> None:
    files = [importlib.import_module(f"{folder.__name__}.{found.name}") for found in pkgutil.iter_modules(folder.__path__)]
    rows = [value for file in files for value in vars(file).values() if isinstance(value, row)]
    assert {one.name for one in rows} == set(table) and len(rows) == len(table)


def test_every_kind_of_the_user_datapath_has_a_number_in_the_runtime() -> None:
    rows = [f"ACT_{name.upper()}" for name in ACTIONS]
    rows += [f"CLS_{kind.name.upper()}" for kind in FILTERS.values() if kind.build]
    rows += [f"DEV_{kind.name.upper()}" for kind in DEVICES.values() if kind.user or kind.fixed]
    numbers = [constant(row) for row in rows]  # raises for one that C has not
    assert len(set(zip((row[:3] for row in rows), numbers, strict=True))) == len(rows)


@pytest.mark.parametrize("name", QDISC_WORDS)
def test_a_qdisc_there_and_back(name: str) -> None:
    kind, (text, listing) = QDISCS[name], QDISC_WORDS[name]
    assert kind.parse is not None
    made = Qdisc("em1", name, options=kind.parse(words(text)))
    raw = kind.pack(made)
    assert bool(raw) == bool(text)
    if raw:
        assert kind.read is not None
        back = kind.read(attrs(raw)[TCA_OPTIONS])
        assert back.items() >= made.options.items()
        assert kind.defaults(Link("em1")).keys() >= made.options.keys()
        made = Qdisc("em1", name, options=back)
    assert (shown(kind.show, made) if kind.show else "") == listing


@pytest.mark.parametrize("name", CLASS_WORDS)
def test_a_class_there_and_back(name: str) -> None:
    kind, (text, listing) = QDISCS[name].classes, CLASS_WORDS[name]
    assert kind and kind.parse and kind.pack and kind.read and kind.options and kind.show
    made = TcClass("em1", name, 1, options=kind.parse(words(text)))
    back = kind.read(attrs(attrs(kind.pack(made))[TCA_OPTIONS]), None)
    here = kind.options(made, Qdisc("em1", name))
    assert back.items() >= made.options.items() and here.items() >= made.options.items()
    assert shown(kind.show, TcClass("em1", name, 1, options=back)) == listing
    assert shown(kind.show, TcClass("em1", name, 1, options=here)) == listing


@pytest.mark.parametrize("name", FILTER_WORDS)
def test_a_filter_there_and_back(name: str) -> None:
    kind, (text, listing) = FILTERS[name], FILTER_WORDS[name]
    options, actions = kind.parse(words(text), Place())
    assert not actions
    made = Filter("em1", 1, name, handle=1, options=options)
    back = kind.read(attrs(b"".join(kind.pack(made))))
    assert back == options or (isinstance(back, dict) and isinstance(options, dict) and back.items() >= options.items())
    assert shown(kind.show, Filter("em1", 1, name, handle=1, options=back)) == listing


@pytest.mark.parametrize("name", ACTION_WORDS)
def test_an_action_there_and_back(name: str) -> None:
    kind, (text, listing) = ACTIONS[name], ACTION_WORDS[name]
    made = kind.parse(words(text), Place())
    assert made.kind == name
    rows = attrs(b"".join(kind.pack(made, b"", Place())))
    back = kind.read(rows, rows.get(2, b""), Place())
    assert back.items() >= made.options.items()
    assert kind.check(made, ["em1"], "what").items() >= made.options.items()
    assert shown(kind.show, made) == listing


@pytest.mark.parametrize("name", QDISC_WORDS)
def test_a_qdisc_refuses_a_word_that_it_has_not(name: str) -> None:
    kind = QDISCS[name]
    assert kind.parse is not None
    with pytest.raises(Quit) as caught:
        kind.parse(words("dorp"))
    assert name in caught.value.lines[-1]

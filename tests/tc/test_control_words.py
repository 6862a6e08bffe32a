"""The words that end an action: one table, on both datapaths, and no word that silently passes."""

from __future__ import annotations

from typing import Any

import pytest

from tcbpf.control.codes import control_code, control_word
from tcbpf.control.objects import Action, Actions, Bpf, Filter, Link, Qdisc, TcObject
from tcbpf.control.request import Op, Request
from tcbpf.datapath.base import Datapath
from tcbpf.errors import InputError
from tcbpf.uapi.tc import TC_H_CLSACT

INGRESS = 0xFFFFFFF2
WRONG = ("dorp", "", "jump x", "jump", "jump -1", "jump ²", "goto chain", "goto chain 0x1", f"jump {1 << 28}", "pass 3")


def accept(*actions: Action, handle: int = 1) -> Filter:
    return Filter("em1", INGRESS, "bpf", pref=1, handle=handle, options=Bpf(bytecode=((6, 0, 0, 1),)), actions=actions)


@pytest.mark.parametrize(
    ("word", "code", "shown"),
    [
        ("pass", 0, "pass"),
        ("ok", 0, "pass"),
        ("shot", 2, "drop"),
        ("drop", 2, "drop"),
        ("continue", -1, "continue"),
        ("goto chain 0", 0x20000000, "goto chain 0"),
        (f"goto chain {0x0FFFFFFF}", 0x2FFFFFFF, f"goto chain {0x0FFFFFFF}"),
        ("jump 2", 0x10000002, "jump 2"),
    ],
)
def test_a_word_has_a_code(word: str, code: int, shown: str) -> None:
    assert control_code(word) == code and control_word(code) == shown


def test_a_code_without_a_word_is_shown_as_its_number() -> None:
    assert control_word(77) == "[77]"


@pytest.mark.parametrize("word", WRONG)
def test_any_other_word_is_refused_with_the_words_that_are_right(word: str) -> None:
    with pytest.raises(InputError) as caught:
        control_code(word)
    assert caught.value.hint.startswith(("continue, pass, ", "a number up to 268435455"))


@pytest.mark.parametrize("word", ["dorp", "jump x", "goto chain"])
@pytest.mark.parametrize(
    ("op", "alone"), [(Op.ADD, False), (Op.REPLACE, False), (Op.CHANGE, False), (Op.ADD, True), (Op.REPLACE, True)]
)
def test_no_datapath_takes_a_wrong_word(datapath: Datapath, op: Op, alone: bool, word: str) -> None:
    """A typing error must not let traffic through."""
    datapath.apply(Request(Op.ADD, Link("em1", kind="veth", peer="em2")))
    datapath.apply(Request(Op.ADD, Qdisc("em1", "clsact", 0xFFFF0000, TC_H_CLSACT)))
    mirror = {"direction": "egress", "action": "mirror", "dev": "em2"}
    drop, wrong = (Action("mirred", index=7, control=control, options=mirror) for control in ("drop", word))
    datapath.apply(Request(Op.ADD, accept(drop)))
    thing: TcObject = Actions((wrong,)) if alone else accept(wrong, handle=2 if op is Op.ADD else 1)
    with pytest.raises(InputError):
        datapath.apply(Request(op, thing))
    rows = [row for row in datapath.apply(Request(Op.SHOW, Filter("em1", INGRESS))) if isinstance(row, Filter) and row.handle]
    assert [one.control for row in rows for one in row.actions] == ["drop"]


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("mirred", {"options": {"direction": "dorp", "dev": "em2"}}),
        ("mirred", {"options": {"action": "dorp", "dev": "em2"}}),
        ("vlan", {"options": {"action": "dorp"}}),
        ("gact", {"hw_stats_asked": "dorp"}),
    ],
)
def test_no_datapath_takes_another_wrong_word(datapath: Datapath, kind: str, more: dict[str, Any]) -> None:
    datapath.apply(Request(Op.ADD, Link("em1", kind="veth", peer="em2")))
    with pytest.raises(InputError, match="dorp"):
        datapath.apply(Request(Op.ADD, Action(kind, control="pipe", **more)))


def test_a_filter_takes_the_options_of_its_own_kind(datapath: Datapath) -> None:
    datapath.apply(Request(Op.ADD, Link("em1", kind="veth", peer="em2")))
    datapath.apply(Request(Op.ADD, Qdisc("em1", "clsact", 0xFFFF0000, TC_H_CLSACT)))
    for kind, options in ("bpf", {}), ("matchall", Bpf(bytecode=((6, 0, 0, 1),))):
        with pytest.raises(InputError, match=f"a {kind} filter takes"):
            datapath.apply(Request(Op.ADD, Filter("em1", INGRESS, kind, pref=1, options=options)))

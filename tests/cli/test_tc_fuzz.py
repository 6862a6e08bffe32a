"""Any words at all end in a status or in an error of ours, never in a traceback; and JSON is JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.tc_transcript import ours
from conftest import open_for_test
from tcbpf.control.handles import format_handle, parse_classid
from tcbpf.control.objects import Link
from tcbpf.control.request import Op, Request
from tcbpf.control.sheet import _write
from tcbpf.errors import TcbpfError

WORDS = (
    (
        "qdisc filter class actions add del replace change show get ls flush dev em1 lo nosuch root ingress egress clsact "
        "parent handle 1: ffff: 1:10 :1 ffff:fff2 pref 49152 7 protocol ip all 0x86dd chain 0 3 bpf matchall u32 da bytecode "
        "1,6\\ 0\\ 0\\ 1 x obj nosuch.o sec tc flowid classid action drop pass mirred redirect mirror index gact goto jump "
        "vlan push pop id skbedit mark htb prio pfifo default rate ceil 1mbit burst 15k limit bands priomap skip_sw skip_hw "
        "-j -p -s -d"
    )
    .replace("\\ ", "\0")
    .split()
)
COMMAND = st.lists(st.sampled_from(WORDS), max_size=14).map(lambda words: [word.replace("\0", " ") for word in words])
STARTS = st.sampled_from(
    [
        [],
        ["qdisc", "add", "dev", "em1"],
        ["filter", "add", "dev", "em1", "ingress", "bpf"],
        ["filter", "replace", "dev", "em1"],
        ["class", "add", "dev", "em1", "parent", "1:", "classid"],
        ["-j", "-s", "filter", "show", "dev", "em1"],
        ["actions", "add"],
        ["filter", "add", "dev", "em1", "egress", "bpf", "bytecode", "1,6 0 0 1", "action"],
    ]
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("home")
    with open_for_test("user", "", directory) as dp:
        dp.apply(Request(Op.ADD, Link("em1", kind="veth", peer="em2")))
    return directory


@settings(max_examples=250)
@given(start=STARTS, rest=COMMAND)
def test_any_words(home: Path, start: list[str], rest: list[str]) -> None:
    try:
        said = ours([*start, *rest], ["--datapath", "user", "--home", str(home)], home)
    except TcbpfError:
        return
    assert 0 <= said.status <= 255
    assert said.status == 0 or said.err
    if "-j" in start and said.out:
        json.loads(said.out.replace("#", "0"))


@given(st.integers(0, 0xFFFFFFFF))
def test_handles_both_ways(handle: int) -> None:
    assert parse_classid(format_handle(handle)) == handle


VALUES: Any = st.recursive(
    st.text(max_size=8) | st.integers() | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


@given(st.lists(VALUES, max_size=4), st.booleans())
def test_what_is_written_is_json(value: list[Any], pretty: bool) -> None:
    assert json.loads(_write(value, 0, pretty)) == value

"""Handles and protocols, in tc(8)'s words."""

import pytest

from tcbpf.control.handles import (
    PROTOCOLS,
    format_handle,
    format_protocol,
    hook_of,
    parse_classid,
    parse_protocol,
    parse_qdisc_handle,
)
from tcbpf.errors import InputError


@pytest.mark.parametrize(
    ("word", "handle"),
    [("root", 0xFFFFFFFF), ("none", 0), ("1:", 0x10000), ("1:10", 0x10010), (":1", 1), ("ffff:fff1", 0xFFFFFFF1)],
)
def test_classid_both_ways(word: str, handle: int) -> None:
    assert parse_classid(word) == handle
    assert format_handle(handle) == word


@pytest.mark.parametrize(("word", "handle"), [("ffff:", 0xFFFF0000), ("1", 0x10000), ("none", 0)])
def test_qdisc_handle(word: str, handle: int) -> None:
    assert parse_qdisc_handle(word) == handle


@pytest.mark.parametrize("word", ["", "g:", "10000:", "1:1"])
def test_qdisc_handle_refused(word: str) -> None:
    with pytest.raises(InputError, match="qdisc ID"):
        parse_qdisc_handle(word)


@pytest.mark.parametrize("word", ["", "x", "1:x", "1:10000", "-1", "1:2:3"])
def test_classid_refused(word: str) -> None:
    with pytest.raises(InputError, match="class ID"):
        parse_classid(word)


def test_bare_number_is_a_whole_handle() -> None:
    assert parse_classid("10010") == 0x10010


@pytest.mark.parametrize("name", PROTOCOLS)
def test_protocol_names_both_ways(name: str) -> None:
    assert format_protocol(parse_protocol(name.upper())) == name


@pytest.mark.parametrize(("word", "number"), [("0x86dd", 0x86DD), ("2048", 0x800), ("0", 0), ("ipv4", 0x800)])
def test_protocol_numbers(word: str, number: int) -> None:
    assert parse_protocol(word) == number


def test_unnamed_protocol_is_printed_in_brackets() -> None:
    assert format_protocol(0x1234) == "[4660]"
    with pytest.raises(InputError, match="protocol"):
        parse_protocol("ipv5")


def test_hooks() -> None:
    assert [hook_of(h) for h in (0xFFFFFFF2, 0xFFFFFFF3, 0xFFFF0000, 0x10000)] == ["ingress", "egress", "ingress", ""]

"""The words of a tc command: options, batches, rates and sizes, and what is said of words that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.tc_transcript import Said, ours
from tcbpf.cli.tc.load import read_bytecode
from tcbpf.control.args import Quit, Words, c_number
from tcbpf.control.units import format_rate, format_size, read_rate, read_size


def tc(home: Path, *words: str) -> Said:
    return ours(list(words), ["--datapath", "user", "--home", str(home)], home)


@pytest.mark.parametrize(
    ("word", "rate"),
    [
        ("1mbit", 125000),
        ("512kbit", 64000),
        ("100kbps", 100000),
        ("1gibit", (1 << 30) // 8),
        ("8000", 1000),
        ("1.5mbit", 187500),
    ],
)
def test_rates(word: str, rate: int) -> None:
    assert read_rate(word) == rate


@pytest.mark.parametrize(("word", "size"), [("1600", 1600), ("15k", 15360), ("1mb", 1 << 20), ("8kbit", 1024), ("3b", 3)])
def test_sizes(word: str, size: int) -> None:
    assert read_size(word) == size


@pytest.mark.parametrize("word", ["", "x", "-1", "1 mbit", "1furlong", "0x10"])
def test_what_is_no_rate(word: str) -> None:
    assert read_rate(word) is None and read_size(word) is None


@pytest.mark.parametrize(
    ("rate", "text"),
    [(125000, "1Mbit"), (64000, "512Kbit"), (125, "1Kbit"), (187500, "1500Kbit"), (1, "8bit"), (10**9, "8Gbit")],
)
def test_rates_are_printed(rate: int, text: str) -> None:
    assert format_rate(rate) == text


@pytest.mark.parametrize(("size", "text"), [(1600, "1600b"), (15360, "15Kb"), (1 << 20, "1Mb"), (1025, "1Kb"), (0, "0b")])
def test_sizes_are_printed(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("word", "number"), [("10", 10), ("0x1f", 31), ("010", 8), ("0", 0), ("08", None), ("x", None), ("", None)]
)
def test_numbers_are_cs(word: str, number: int | None) -> None:
    assert c_number(word) == number


def test_words_end() -> None:
    words = Words(["a"])
    assert words.take() == "a" and not words and words.next == ""
    with pytest.raises(Quit, match="Command line is not complete"):
        words.take()


@pytest.mark.parametrize("text", ["", "0,", "4097," + "6 0 0 0," * 4097, "1,6 0 0 4294967296", "1,6 256 0 0", "x,6 0 0 0"])
def test_what_is_no_bytecode(text: str) -> None:
    with pytest.raises(Quit) as caught:
        read_bytecode(text)
    assert caught.value.status == 1 and "Unable to parse bpf command line" in caught.value.lines


def test_bytecode_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "code").write_text("2,\n40 0 0 12\n6 0 0 4294967295\n")
    assert tc(tmp_path, "qdisc", "add", "dev", "lo", "clsact").status == 0
    assert tc(tmp_path, "filter", "add", "dev", "lo", "ingress", "bpf", "bytecode-file", "code", "flowid", "1:1").status == 0
    assert "bytecode '2,40 0 0 12,6 0 0 4294967295'" in tc(tmp_path, "filter", "show", "dev", "lo", "ingress").out


def test_a_batch_stops_at_the_first_failure_unless_forced(tmp_path: Path) -> None:
    (tmp_path / "batch").write_text(
        "# a comment\nqdisc add dev lo clsact\n\nqdisc add dev lo \\\n  clsact\nqdisc del dev lo clsact # last\n"
    )
    said = tc(tmp_path, "-batch", "batch")
    assert said.status == 1
    assert said.err == "Error: Exclusivity flag on, cannot modify.\nCommand failed batch:5\n"
    assert "clsact" in tc(tmp_path, "qdisc", "show", "dev", "lo").out
    said = tc(tmp_path, "-force", "-b", "batch")
    assert said.status == 1 and "clsact" not in tc(tmp_path, "qdisc", "show", "dev", "lo").out
    (tmp_path / "batch").write_text('qdisc show\nqdisc add dev "lo clsact\n')
    said = tc(tmp_path, "-b", "batch")
    assert said.status == 1 and said.err == "Unterminated quoted string\n"
    assert tc(tmp_path, "-b", "nosuch").err == 'Cannot open file "nosuch" for reading: No such file or directory\n'


@pytest.mark.parametrize("words", [(), ("help",), ("-h",), ("qdisc", "help"), ("filter", "help"), ("exec", "help")])
def test_help(tmp_path: Path, words: tuple[str, ...]) -> None:
    said = tc(tmp_path, *words)
    assert (said.status, said.out) == (0, "") and "Usage" in said.err


@pytest.mark.parametrize(
    ("words", "status", "err"),
    [
        (("filter", "add", "dev", "lo", "ingress", "bpf", "what", "x"), 1, 'What mode is "what"?'),
        (("filter", "add", "dev", "lo", "ingress", "bpf", "bytecode", "1,6 0 0 0", "extra"), 1, 'What is "extra"?'),
        (("filter", "add", "dev", "lo", "dev", "lo"), 255, 'duplicate "dev"'),
        (("filter", "add", "dev", "lo", "ingress", "egress"), 255, '"egress" is duplicate parent ID'),
        (("class", "add", "dev", "lo", "classid", "1:1", "htb", "ceil", "1mbit"), 1, '"rate" is required.'),
        (("class", "add", "dev", "lo", "classid", "1:1", "htb", "rate", "fast"), 1, 'Illegal "rate"\nUsage'),
        (
            ("filter", "add", "dev", "lo", "ingress", "bpf", "bytecode", "1,6 0 0 0", "action", "nosuch"),
            255,
            "Bad action type nosuch",
        ),
        (
            ("filter", "add", "dev", "lo", "ingress", "bpf", "bytecode", "1,6 0 0 0", "action"),
            255,
            "Command line is not complete",
        ),
        (
            ("filter", "add", "dev", "lo", "ingress", "bpf", "bytecode", "1,6 0 0 0", "action", "mirred", "foo"),
            1,
            "mirred option not supported foo",
        ),
        (("exec", "bpf", "graft", "x"), 255, "Command line is not complete"),
        (("exec", "elf"), 255, 'Executing "elf" is not known'),
        (("-n", "ns", "qdisc", "show"), 1, "only the kernel datapath has them"),
        (
            ("--datapath", "kernel", "-n", "nosuch-namespace", "qdisc", "show"),
            255,
            'Cannot open network namespace "nosuch-namespace": No such file or directory',
        ),
        (("--datapath", "moon", "qdisc", "show"), 1, "no datapath 'moon'"),
    ],
    ids=lambda value: "-".join(value)[-40:] if isinstance(value, tuple) else None,
)
def test_what_is_said_of_wrong_words(tmp_path: Path, words: tuple[str, ...], status: int, err: str) -> None:
    said = tc(tmp_path, *words)
    assert said.status == status and err in said.err and said.out == ""


def test_actions_of_the_user_datapath(tmp_path: Path) -> None:
    """gact and act_bpf, which the machine that recorded the transcripts has not."""
    assert tc(tmp_path, "qdisc", "add", "dev", "lo", "clsact").status == 0
    (tmp_path / "act.c").write_text(
        '#include "bpf_api.h"\n__section_act_entry int act(struct __sk_buff *skb) { return TC_ACT_OK; }\nBPF_LICENSE("GPL");\n'
    )
    said = tc(
        tmp_path,
        "filter",
        "add",
        "dev",
        "lo",
        "ingress",
        "bpf",
        "bytecode",
        "1,6 0 0 4294967295",
        "flowid",
        "1:1",
        "action",
        "bpf",
        "obj",
        "act.c",
        "action",
        "drop",
        "index",
        "7",
    )
    assert (said.status, said.err) == (0, "")
    assert tc(tmp_path, "filter", "show", "dev", "lo", "ingress").out.splitlines()[1:] == [
        "filter protocol all pref 49152 bpf chain 0 handle 0x1 flowid 1:1 not_in_hw bytecode '1,6 0 0 4294967295'",
        "\taction order 1: bpf act.c:[action] id # name act tag # jited default-action pipe",
        "\t index # ref 1 bind 1",
        "",
        "\taction order 2: gact action drop",
        "\t random type none pass val 0",
        "\t index # ref 1 bind 1",
        "",
    ]


def test_prio_on_the_user_datapath(tmp_path: Path) -> None:
    said = tc(tmp_path, "qdisc", "add", "dev", "lo", "root", "handle", "1:", "prio", "bands", "4", "priomap", "3", "2")
    assert (said.status, said.err) == (0, "")
    priomap = "3 2 2 2 1 2 0 0 1 1 1 1 1 1 1 1"
    assert f"qdisc prio 1: root refcnt 2 bands 4 priomap {priomap}\n" == tc(tmp_path, "qdisc", "show", "dev", "lo").out
    shown = tc(tmp_path, "-j", "qdisc", "show", "dev", "lo").out
    assert f'"options":{{"bands":4,"priomap":[{priomap.replace(" ", ",")}]}}' in shown
    assert tc(tmp_path, "class", "show", "dev", "lo").out.splitlines()[0] == "class prio 1:1 parent 1: "


def test_vlan_and_skbedit_on_the_user_datapath(tmp_path: Path) -> None:
    assert tc(tmp_path, "qdisc", "add", "dev", "lo", "clsact").status == 0
    said = tc(
        tmp_path,
        "filter",
        "add",
        "dev",
        "lo",
        "egress",
        "bpf",
        "bytecode",
        "1,6 0 0 4294967295",
        "action",
        "vlan",
        "push",
        "id",
        "5",
        "priority",
        "3",
        "action",
        "vlan",
        "pop",
        "continue",
        "action",
        "skbedit",
        "priority",
        "1:2",
        "mark",
        "7/0xff",
        "ptype",
        "otherhost",
        "index",
        "9",
    )
    assert (said.status, said.err) == (0, "")
    lines = tc(tmp_path, "filter", "show", "dev", "lo", "egress").out.splitlines()
    assert [line for line in lines if "order" in line] == [
        "\taction order 1: vlan  push id # protocol 802.1Q priority 3 pipe",
        "\taction order 2: vlan  pop continue",
        "\taction order 3: skbedit  priority 1:2 mark 7/0xff ptype otherhost pipe",
    ]
    assert "priority" in tc(tmp_path, "-j", "filter", "show", "dev", "lo", "egress").out


def test_actions_alone_stay_until_they_are_flushed(tmp_path: Path) -> None:
    assert tc(tmp_path, "actions", "add", "action", "drop", "index", "4").status == 0
    assert tc(tmp_path, "qdisc", "add", "dev", "lo", "clsact").status == 0
    assert (
        tc(
            tmp_path,
            "filter",
            "add",
            "dev",
            "lo",
            "egress",
            "bpf",
            "bytecode",
            "1,6 0 0 1",
            "action",
            "gact",
            "drop",
            "index",
            "4",
        ).status
        == 0
    )
    said = tc(tmp_path, "actions", "del", "action", "gact", "index", "4")
    assert said.status == 255 and said.err.startswith("RTNETLINK answers: Operation not permitted")
    assert tc(tmp_path, "filter", "del", "dev", "lo", "egress").status == 0
    assert "total acts 1\n" in tc(tmp_path, "actions", "ls", "action", "gact").out
    assert tc(tmp_path, "actions", "flush", "action", "gact").status == 0
    assert tc(tmp_path, "actions", "ls", "action", "gact").out == ""
    said = tc(tmp_path, "actions", "get", "action", "gact", "index", "4")
    assert said.err == "Error: TC action with specified index not found.\nWe have an error talking to the kernel\n"


def test_actions_of_one_command_are_made_together_or_not_at_all(tmp_path: Path) -> None:
    said = tc(tmp_path, "actions", "add", "action", "drop", "index", "1", "action", "pass", "index", "2")
    assert (said.status, said.err) == (0, "")
    said = tc(tmp_path, "actions", "add", "action", "drop", "index", "3", "action", "pass", "index", "2")
    assert said.status == 255 and said.err.startswith("RTNETLINK answers: File exists")
    assert "total acts 2\n" in tc(tmp_path, "actions", "ls", "action", "gact").out


def test_the_home_may_be_said_with_an_equals_sign(tmp_path: Path) -> None:
    said = ours([f"--home={tmp_path / 'other'}", "qdisc", "add", "dev", "lo", "clsact"], [], tmp_path)
    assert (said.status, said.err) == (0, "")
    assert "clsact" in tc(tmp_path / "other", "qdisc", "show", "dev", "lo").out
    assert "clsact" not in tc(tmp_path, "qdisc", "show", "dev", "lo").out

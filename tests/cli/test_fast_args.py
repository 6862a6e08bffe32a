"""What is read without argparse is what argparse reads."""

from __future__ import annotations

import argparse

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tcbpf.cli import arguments, fast_args, run
from tcbpf.cli.cbpf import run as cbpf_run

WORDS = st.lists(
    st.sampled_from(
        [
            "a.c",
            "b.pcap",
            "--section",
            "--name",
            "--program",
            "--out",
            "--limit",
            "--maps",
            "--json",
            "--datapath",
            "user",
            "kernel",
            "5",
            "-5",
            "x",
            "",
            "--sec",
            "--out=x",
            "-h",
            "--",
            "-",
            "-O",
            "-O0",
            "--link-type",
            "--no-optimize",
        ]
    ),
    max_size=8,
)


def by_argparse(words: list[str], rows: fast_args.Rows = run.ROWS) -> dict[str, object] | None:
    parser = argparse.ArgumentParser()
    arguments.add(parser, rows)
    try:
        return vars(parser.parse_args(words))
    except SystemExit:
        return None


@settings(max_examples=600)
@given(WORDS)
def test_it_is_what_argparse_reads(words: list[str]) -> None:
    for module, before in ((run, []), (cbpf_run, ["run"])):
        found = module.read([*before, *words])
        assert found is None or vars(found) == by_argparse(words, module.ROWS)


@pytest.mark.parametrize(
    "words",
    [
        ["a.c", "b.pcap"],
        ["a.c", "b.pcap", "--json"],
        ["--limit", "5", "a.c", "--section", "tc", "b.pcap", "--out", "x"],
        ["a.c", "b.pcap", "--program", "p", "--maps", "--datapath", "kernel"],
    ],
)
def test_plain_commands_are_read(words: list[str]) -> None:
    assert vars(run.read(words)) == by_argparse(words)


def test_plain_filters_are_read() -> None:
    words = ["tcp port 80", "b.pcap", "-O", "--link-type", "RAW", "--json"]
    assert vars(cbpf_run.read(["run", *words])) == by_argparse(words, cbpf_run.ROWS)
    assert cbpf_run.read(["asm", *words]) is None


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["a.c"],
        ["a.c", "b", "c"],
        ["a.c", "b", "--limit", "x"],
        ["a.c", "b", "--datapath", "moon"],
        ["a.c", "b", "--jso"],
        ["a.c", "b", "--out"],
        ["a.c", "b", "--section", "s", "--name", "n"],
        ["--help"],
    ],
)
def test_the_rest_is_left_to_argparse(words: list[str]) -> None:
    assert run.read(words) is None


def test_a_row_says_where_its_value_goes() -> None:
    rows: fast_args.Rows = {"--a-b": {}, "--c": {"dest": "d"}}
    assert vars(fast_args.read(["--a-b", "1", "--c", "2"], rows)) == {"a_b": "1", "d": "2"}

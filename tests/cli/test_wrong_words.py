"""Words that make no sense, files that are none: one line on standard error and a status, never a traceback."""

from __future__ import annotations

import argparse
import io
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tcbpf.cli import VERBS, main, parser_of

ROOT = Path(__file__).parents[2]
PLAIN = {
    "run": ["x.s", "d.pcapng"],
    "verify": ["x.s"],
    "prog-run": ["x.s"],
    "dbg": ["x.s"],
    "asm": ["x.s"],
    "disasm": ["x.s"],
    "cbpf": ["run", "tcp", "d.pcapng"],
    "replay": ["d.pcapng", "--dev", "lo", "--ingress"],
    "map": ["dump", "m"],
    "tc": ["qdisc", "add", "dev", "lo", "clsact"],
    "ip": ["link", "add", "d0", "type", "dummy"],
    "conformance-plugin": [],
}
WORDS_TEXT = """
    absent /dev/null dir dir/absent/y loop -1 0 1 99999999999999999999 1e9 0x ether (( 4, [ {} {"a": null 1.5 - -- =
    =1 k=v mark=1.5 len=-1 len=99999999999 cb=1 show dump lookup update delete push peek pop records create pin unpin
    id name pinned m 00 tc p asm disasm compile check convert run EN10MB add del dev lo qdisc filter class chain
    actions link ingress clsact bpf obj sec da pref protocol ip all handle 1: ffff: parent u32 match htb default rate
    1mbit police mirred egress redirect exec graft block index help hash queue sk_storage
"""
FILES = {
    "x.s": b"r0 = 0\nexit\n",
    "bad.s": b"r1 = map[\n",
    "empty": b"",
    "zeros": bytes(64),
    "bytes": bytes(range(256)),
    "elf.o": b"\x7fELF" + bytes(range(200)),
    "e.json": b'[1, {"a": 2}]',
}
WORDS = WORDS_TEXT.split()
OF_TC = ["-j", "-s", "-d", "-p", "-batch", "-force", "--home", "-V", "-n"]
ODD = ["", " ", "a\nb", "\udcff", "x" * 300]
INPUTS = [b"", b"junk\n", b"\xff\n", b"step\nquit\n"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of files to name, with a home of its own."""
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    capture = (ROOT / "examples/captures/dns.pcapng").read_bytes()
    (tmp_path / "d.pcapng").write_bytes(capture)
    (tmp_path / "cut.pcapng").write_bytes(capture[:999])
    (tmp_path / "dir").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("TCBPF_HOME", raising=False)
    return tmp_path


def options(verb: str) -> list[str]:
    """Return a verb's options, those of its subcommands included."""
    if VERBS[verb].grammar == "words":
        return OF_TC
    found, parsers = list[str](), [parser_of(VERBS[verb])]
    while parsers:
        for action in parsers.pop()._actions:
            found += [option for option in action.option_strings if option != "--follow"]
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
    return found


def command(chance: random.Random) -> list[str]:
    """Return a command that is right in parts."""
    verb = chance.choice(list(PLAIN))
    words, any = list(PLAIN[verb]), [*WORDS, *ODD, *FILES, "d.pcapng", "cut.pcapng"]
    if chance.random() < 0.3:
        words = chance.choices(any, k=chance.randint(0, 5))
    words = [chance.choice(any) if chance.random() < 0.2 else word for word in words]
    for _ in range(chance.randint(0, 4)):
        words.insert(chance.randint(0, len(words)), chance.choice(options(verb) if chance.random() < 0.6 else any))
    return [verb, *words]


@pytest.mark.parametrize("seed", range(8))
def test_no_traceback(place: Path, seed: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(seed)
    sys.stderr.reconfigure(errors="backslashreplace")  # as the interpreter opens it
    for _ in range(60):
        words = command(chance)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(chance.choice(INPUTS))))
        capsys.readouterr()
        try:
            status = main(words)
        except SystemExit as end:  # argparse's, with its own line of usage
            assert end.code in (0, 2), words
            continue
        said = capsys.readouterr().err
        assert status in (0, 1, 2, 3, 255), (words, status)
        assert status not in (2, 3) or said, words
        assert words[0] in ("tc", "ip", "verify", "dbg") or said.count("\n") <= 1 or status == 0, (words, said)


@pytest.mark.parametrize("words", [["asm", "-"], ["disasm", "-"], ["cbpf", "asm", "-"], ["dbg", "x.s"], ["tc", "-batch", "-"]])
@pytest.mark.parametrize("how", ["<&-", "2>&-", "< bytes"])
def test_standard_files_that_are_closed_or_no_text(place: Path, words: list[str], how: str) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    shell = ["sh", "-c", f'exec "$@" {how}', "sh", sys.executable, "-m", "tcbpf", *words]
    done = subprocess.run(shell, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=env, timeout=60, check=False)
    assert done.returncode in (0, 1, 2) and "Traceback" not in done.stderr, done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["verify", "x.s", "--html", "x.s"],
        ["run", "x.s", "d.pcapng", "--out", "x.s"],
        ["run", "x.s", "d.pcapng", "--out", "d.pcapng"],
        ["prog-run", "x.s", "--data-in", "00", "--data-out", "x.s"],
        ["cbpf", "convert", "filter", "--html", "filter"],
        ["cbpf", "run", "filter", "d.pcapng", "--out", "filter"],
        ["asm", "x.s", "--out", "x.s"],
    ],
)
def test_no_output_replaces_an_input(place: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    (place / "filter").write_text("ret #1\n")
    target = place / words[-1]
    before = target.read_bytes()
    assert main(words) == 2 and "would replace the input" in capsys.readouterr().err
    assert target.read_bytes() == before

"""Where a command writes: closed, full and broken outputs, terminals without colours, and its own input."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tcbpf.cli import main
from tcbpf.cli.output import colours
from tcbpf.net.pcap import read

ROOT = Path(__file__).parents[2]
GUARD, DNS = str(ROOT / "examples/dns_guard.c"), str(ROOT / "examples/captures/dns.pcapng")
COMMANDS = (
    ["run", GUARD, DNS],
    ["verify", GUARD],
    ["disasm", "b700000002000000"],
    ["--version"],
    ["map", "--help"],
    ["tc", "-V"],
)
RUN = "import sys; from tcbpf.cli import main; sys.exit(main(sys.argv[1:]))"


def shell(redirect: str, words: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command under a shell's redirection."""
    command = ["sh", "-c", f'exec "$@" {redirect}', "sh", sys.executable, "-c", RUN, *words]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={"PYTHONPATH": f"{ROOT}/src", "PATH": "/usr/bin:/bin"}
    )


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
@pytest.mark.parametrize(("redirect", "reason"), [(">&-", "Bad file descriptor"), (">/dev/full", "No space left on device")])
def test_an_output_that_cannot_be_written_is_an_error_of_one_line(words: list[str], redirect: str, reason: str) -> None:
    done = shell(redirect, words)
    assert (done.returncode, done.stderr) == (2, f"tcbpf: standard output: {reason}\n")


def test_a_reader_that_leaves_ends_the_command_quietly(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(bytes.fromhex("b700000002000000") * 20000)
    done = shell("| true", ["disasm", str(tmp_path / "long")])
    assert done.stderr == ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "dumb"}, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"NO_COLOR": ""}, True),
    ],
)
def test_colours(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: bool) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert colours(Terminal()) == expected
    assert not colours(io.StringIO())


@pytest.mark.parametrize(
    ("suffix", "words"),
    [
        ("pcapng", ["run", GUARD, "FILE", "--out", "FILE"]),
        ("pcapng", ["run", GUARD, "FILE", "--out", "LINK"]),
        ("pcapng", ["cbpf", "run", "udp", "FILE", "--out", "FILE"]),
        ("pcapng", ["prog-run", GUARD, "--data-in", "FILE", "--data-out", "FILE"]),
        ("s", ["asm", "FILE", "-o", "FILE"]),
    ],
)
def test_an_output_does_not_replace_its_input(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, suffix: str, words: list[str]
) -> None:
    file, link = tmp_path / f"x.{suffix}", tmp_path / "link"
    if suffix == "s":
        file.write_text("r0 = 2\nexit\n")
    else:
        shutil.copy(DNS, file)
    before = file.read_bytes()
    link.symlink_to(file)
    assert main([{"FILE": str(file), "LINK": str(link)}.get(word, word) for word in words]) == 2
    assert "the output would replace the input" in capsys.readouterr().err
    assert file.read_bytes() == before


def test_a_packet_of_a_capture(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    packets = [packet.data for packet in read(DNS)]
    for number, words in ((1, []), (3, ["--packet", "3"])):
        assert main(["prog-run", GUARD, "--data-in", DNS, "--data-out", str(tmp_path / "out"), *words]) == 0
        assert (tmp_path / "out").read_bytes() == packets[number - 1]
    capsys.readouterr()
    for words, reason in (
        (["--data-in", DNS, "--packet", "0"], f"no packet 0 (1 to {len(packets)})"),
        (["--data-in", DNS, "--packet", "72"], f"no packet 72 (1 to {len(packets)})"),
        (["--data-in", packets[0].hex(), "--packet", "1"], "--packet chooses a packet of a capture"),
    ):
        assert main(["prog-run", GUARD, *words]) == 2
        assert reason in capsys.readouterr().err

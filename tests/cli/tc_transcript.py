"""Transcripts of tc(8): commands with what they print and their status, recorded from tc 6.1 on Linux 6.18.

    $ WORDS...           a command
    > TEXT               a line of its standard output
    ! TEXT               a line of its standard error
    [N]                  its exit status, when not 0

Numbers that differ between machines (ids, tags, times, handles given out) are written as #, what may be absent (a program's
BTF id, an action's ages) is left out, and so is a usage text after its first word. A last line that no newline ends gets one.
`python tests/cli/tc_transcript.py FILE` records FILE anew from the tc that is installed: it keeps the commands and replaces
the rest.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

SOURCES = {
    "two": """
#include <linux/bpf.h>
__attribute__((section("p1"), used)) int prog1(struct __sk_buff *s) { return 2; }
__attribute__((section("p2"), used)) int prog2(struct __sk_buff *s) { return 0; }
char _license[] __attribute__((section("license"), used)) = "GPL";
""",
}
_UNSTABLE = re.compile(r"(\b(?:id|load_time|created_by_uid|index) |\"(?:id|load_time|created_by_uid|index)\": ?)\d+")
_BTF = re.compile(r"\bbtf_id \d+ |,\s*\"btf_id\": ?\d+")
_AGES = re.compile(r"(?: (?:installed|used|firstused) \d+ sec)+|(?:,\s*\"(?:installed|last_used|first_used)\": ?\d+)+")
_GIVEN = re.compile(r"\b80[0-9a-f]{2}:")
_USAGE = re.compile(r"^usage:.*", re.IGNORECASE | re.DOTALL | re.MULTILINE)
_TAG = re.compile(r"(\btag |\"tag\": ?\")[0-9a-f]{16}")


@dataclass(slots=True)
class Said:
    """What one command printed. Units: status is tc's, 0 to 255."""

    out: str
    err: str
    status: int


@dataclass(slots=True)
class Command:
    """One command of a transcript and what is expected of it."""

    words: list[str]
    said: Said
    line: int


def read(path: Path) -> list[Command]:
    """Return the commands of a transcript."""
    rows: list[Command] = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.startswith("$ "):
            rows.append(Command(shlex.split(line[2:]), Said("", "", 0), number))
        elif line.startswith("> ") or line == ">":
            rows[-1].said.out += line[2:] + "\n"
        elif line.startswith("! ") or line == "!":
            rows[-1].said.err += line[2:] + "\n"
        elif line.startswith("["):
            rows[-1].said.status = int(line.strip("[]"))
    return rows


def same(text: str) -> str:
    """Return text with what differs between machines struck out."""
    text = _USAGE.sub("Usage\n", _GIVEN.sub("#:", text))
    text = _AGES.sub("", _BTF.sub("", _TAG.sub(r"\1#", _UNSTABLE.sub(r"\1#", text))))
    return text if text[-1:] in ("", "\n") else text + "\n"


def ours(words: list[str], options: list[str], directory: Path) -> Said:
    """Run one of our commands in this process."""
    from tcbpf.cli.tc.command import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(directory), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([*options, *words])
    return Said(same(out.getvalue()), same(err.getvalue()), status)


def theirs(words: list[str], netns: str, directory: Path) -> Said:
    """Run the installed tc in a network namespace."""
    from netns import enter

    ran = subprocess.run(
        ["tc", *words], capture_output=True, text=True, cwd=directory, preexec_fn=lambda: enter(netns), check=False
    )
    return Said(same(ran.stdout), same(ran.stderr), ran.returncode)


def build(directory: Path) -> None:
    """Write the objects that transcripts name."""
    from tcbpf.lang import compile_c

    for name, text in SOURCES.items():
        (directory / f"{name}.o").write_bytes(compile_c(text))


def lines(path: Path, run: Callable[[list[str]], Said]) -> Iterator[str]:
    """Yield the lines of a transcript with its commands run anew."""
    for line in path.read_text().splitlines():
        if line.startswith("#") or not line:
            yield line
        if not line.startswith("$ "):
            continue
        yield line
        said = run(shlex.split(line[2:]))
        yield from (f"> {text}" for text in said.out.splitlines())
        yield from (f"! {text}" for text in said.err.splitlines())
        if said.status:
            yield f"[{said.status}]"


def record(path: Path) -> None:
    """Record a transcript from the installed tc, in a namespace with a pair of devices."""
    from netns import netns
    from tcbpf.control.objects import Link
    from tcbpf.control.request import Op, Request
    from tcbpf.datapath.kernel import Kernel

    with tempfile.TemporaryDirectory() as directory, netns() as place, Kernel(netns=place) as kernel:
        build(Path(directory))
        kernel.apply(Request(Op.ADD, Link("em1", kind="veth", peer="em2")))
        for name in ("em1", "em2"):
            kernel.apply(Request(Op.CHANGE, Link(name, up=True)))
        found = list(lines(path, lambda words: theirs(words, place, Path(directory))))
    path.write_text("\n".join(found) + "\n")


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "src")]
    for name in sys.argv[1:]:
        record(Path(name))

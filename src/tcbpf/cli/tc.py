"""`tcbpf tc`: tc(8)'s commands on either datapath, with its words, its output and its exit statuses.

Differs: an object file is loaded by tcbpf, so that legacy `maps` sections and C sources work on the kernel too; `--datapath`
         and `--home` choose where. Batches, monitors and chain templates of tc are not here, `-batch` is.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from tcbpf.cli import tc_action, tc_exec, tc_filter, tc_qdisc
from tcbpf.cli.tc_words import USAGE, Options, Quit, Words, matches
from tcbpf.datapath.choose import open_datapath
from tcbpf.errors import InputError

if TYPE_CHECKING:
    from tcbpf.datapath.base import Datapath

USAGE_TEXT = """\
Usage: tcbpf tc [ OPTIONS ] OBJECT COMMAND
       tcbpf tc [ -force ] -batch FILE
OBJECT  := qdisc | class | filter | actions | exec
COMMAND := add | replace | change | delete | show | get, then what; "tcbpf tc OBJECT help" says more
OPTIONS := -s[tatistics] | -d[etails] | -j[son] | -p[retty] | -i[ec] | -n[etns] NAME |
           --datapath user|kernel | --home DIR
"""

OBJECTS: dict[str, Callable[[Opener, Words, Options], int]] = {
    "qdisc": tc_qdisc.qdisc,
    "class": tc_qdisc.klass,
    "filter": tc_filter.filter,
    "actions": tc_action.actions,
    "exec": tc_exec.run,
}

_FLAGS = {"stats": "stats", "statistics": "stats", "details": "details", "raw": "raw", "pretty": "pretty", "iec": "iec",
          "json": "json", "oneline": "oneline", "force": "force"}


class Opener:
    """The datapath of one command line, opened when the grammar is satisfied; several commands of a batch share it."""

    def __init__(self, options: Options, stack: ExitStack) -> None:
        self._options, self._stack = options, stack
        self._datapath: Datapath | None = None

    def __call__(self) -> Datapath:
        if self._datapath is None:
            if self._options.netns and (self._options.datapath or os.environ.get("TCBPF_DATAPATH")) == "kernel":
                require_namespace(self._options.netns)
            found = open_datapath(self._options.datapath, home=self._options.home, netns=self._options.netns, lasting=True)
            self._datapath = self._stack.enter_context(found)
        return self._datapath


def require_namespace(name: str) -> None:
    """Refuse a network namespace that is not there.

    Raises:  Quit.
    """
    try:
        os.stat(name if "/" in name else f"/var/run/netns/{name}")
    except OSError as error:
        raise Quit(USAGE, f'Cannot open network namespace "{name}": {error.strerror}') from None


def main(words: Sequence[str]) -> int:
    """Run one command (or a batch) and return tc's exit status."""
    try:
        options, rest = read_options(words)
        if options is None:
            return 0
        with ExitStack() as stack:
            opener = Opener(options, stack)
            if options.batch:
                return batch(options, opener)
            if not rest:
                sys.stdout.write(USAGE_TEXT)
                return 0
            return command(rest, options, opener)
    except Quit as quit:
        return report(quit)


def report(quit: Quit) -> int:
    """Print why a command ended and return its status."""
    for line in quit.lines:
        print(line, file=sys.stderr)
    return quit.status


def read_options(words: Sequence[str]) -> tuple[Options | None, list[str]]:
    """Return the options that stand before the object, and the words after them; None when all is said and done."""
    options, left, on = Options(), Words(words), set[str]()
    while left and left.next.startswith("-"):
        word = left.take()
        name = word.lstrip("-")
        if word == "--":
            break
        if name == "datapath":
            options = replace(options, datapath=left.take())
        elif name == "home":
            options = replace(options, home=left.take())
        elif matches(name, "netns"):
            options = replace(options, netns=left.take())
        elif matches(name, "batch"):
            options = replace(options, batch=left.take() if left else "-")
        elif matches(name, "Version"):
            print("tcbpf tc, in the words of tc utility, iproute2-6.1.0")
            return None, []
        elif matches(name, "help"):
            sys.stdout.write(USAGE_TEXT)
            return None, []
        else:
            flag = next((field for full, field in _FLAGS.items() if matches(name, full)), None)
            if flag is None:
                raise Quit(USAGE, f'Option "{word}" is unknown, try "tc -help".')
            on.add(flag)
    flags = {name: name in on for name in _FLAGS.values()}
    return replace(options, **flags), left.rest()    # type: ignore[arg-type]


def command(words: Sequence[str], options: Options, opener: Opener) -> int:
    """Run one command."""
    left = Words(words)
    asked = left.take()
    if matches(asked, "help"):
        sys.stdout.write(USAGE_TEXT)
        return 0
    run = next((run for name, run in OBJECTS.items() if matches(asked, name)), None)
    if run is None:
        raise Quit(USAGE, f'Object "{asked}" is unknown, try "tc help".')
    try:
        return run(opener, left, options)
    except InputError as error:
        raise Quit(1, f"Error: {error}") from None


def batch(options: Options, opener: Opener) -> int:
    """Run the commands of a file, one a line; stop at the first that fails unless -force."""
    try:
        with ExitStack() as stack:
            file = sys.stdin if options.batch == "-" else stack.enter_context(open(options.batch, encoding="utf-8"))
            lines = file.read().replace("\\\n", " ").splitlines()
    except OSError as error:
        raise Quit(USAGE, f'Cannot open file "{options.batch}" for reading: {error.strerror}') from None
    status = 0
    for number, line in enumerate(lines, 1):
        words = split(line)
        if not words:
            continue
        try:
            failed = command(words, options, opener)
        except Quit as quit:
            failed = report(quit)
        if failed:
            status = 1
            print(f"Command failed {options.batch}:{number}", file=sys.stderr)
            if not options.force:
                break
    return status


def split(line: str) -> list[str]:
    """Return the words of a batch line, without its comment.

    Raises:  Quit for an open quotation.
    """
    import shlex
    try:
        return shlex.split(line, comments=True)
    except ValueError as error:
        raise Quit(USAGE, f"{error}: {line}") from None

"""`tcbpf tc`: tc(8)'s commands on either datapath, with its words, its output and its exit statuses.

Differs: an object file is loaded by tcbpf, so that legacy `maps` sections and C sources work on the kernel too; `--datapath`
         and `--home` choose where. `tc monitor`, chain templates, `-graph`, `estimator`,
         `stab`, `police` and the colours are not here; `-batch` without
         a file reads standard input, as tc(8) says and tc 6.1 does not. Usage texts are our own.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from tcbpf import __version__
from tcbpf.cli.tc import actions as tc_actions
from tcbpf.cli.tc import chain as tc_chain
from tcbpf.cli.tc import exec as tc_exec
from tcbpf.cli.tc import filter as tc_filter
from tcbpf.cli.tc import klass as tc_class
from tcbpf.cli.tc import qdisc as tc_qdisc
from tcbpf.cli.tc.request import Opener
from tcbpf.control.args import LOCAL, USAGE, Options, Quit, Words, matches
from tcbpf.errors import InputError

USAGE_TEXT = """\
Usage: tcbpf tc [ OPTIONS ] OBJECT COMMAND
       tcbpf tc [ -force ] -batch [ FILE ]
OBJECT  := qdisc | class | filter | chain | actions | exec
COMMAND := add | replace | change | delete | show | get, then what; "tcbpf tc OBJECT help" says more
OPTIONS := -s[tatistics] | -d[etails] | -j[son] | -p[retty] | -o[neline] | -r[aw] | -br[ief] | -N[umeric] | -iec |
           -n[etns] NAME | -V[ersion] | --datapath user|kernel | --home DIR
"""

OBJECTS: dict[str, Callable[[Opener, Words, Options], int]] = {
    "qdisc": tc_qdisc.qdisc,
    "class": tc_class.klass,
    "filter": tc_filter.filter,
    "chain": tc_chain.chain,
    "actions": tc_actions.actions,
    "exec": tc_exec.run,
}

_FLAGS = (
    ("-stats", "stats"),
    ("-statistics", "stats"),
    ("-details", "details"),
    ("-raw", "raw"),
    ("-pretty", "pretty"),
    ("-Version", "version"),
    ("-iec", "iec"),
    ("-help", "help"),
    ("-force", "force"),
    ("-batch", "batch"),
    ("-netns", "netns"),
    ("-Numeric", "numeric"),
    ("-names", ""),
    ("-nm", ""),
    ("-cf", "conf"),
    ("-conf", "conf"),
    ("-color", ""),
    ("-timestamp", ""),
    ("-tshort", ""),
    ("-json", "json"),
    ("-oneline", "oneline"),
    ("-brief", "brief"),
)
"""Options by their full words, in the order in which tc matches abbreviations; "" has no effect here."""

_COLOR = re.compile(r"-c(olor?)?(=(always|auto|never))?")


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
                sys.stderr.write(USAGE_TEXT)
                return 0
            return command(rest, options, opener)
    except Quit as quit:
        return report(quit)


def report(quit: Quit) -> int:
    """Print why a command ended and return its status."""
    sys.stderr.write("".join(f"{line}\n" for line in quit.lines))  # at once, so that commands in parallel do not mix
    return quit.status


def read_options(words: Sequence[str]) -> tuple[Options | None, list[str]]:
    """Return the options that stand before the object, and the words after them; None when an option such as -V was all."""
    said: dict[str, Any] = {}
    left = Words(words)
    while left and left.next.startswith("-"):
        word = left.take()
        name, equals, value = word.partition("=")
        if name in ("--datapath", "--home"):
            said[name[2:]] = value if equals else left.take()
            continue
        field = next((field for name, field in _FLAGS if matches(word, name)), None)
        if field is None and not _COLOR.fullmatch(word):
            raise Quit(USAGE, f'Option "{word}" is unknown, try "tc -help".')
        if field == "version":
            print(f"tc utility, iproute2-6.1.0, tcbpf {__version__}")
            return None, []
        if field == "help":
            sys.stderr.write(USAGE_TEXT)
            return None, []
        if field == "conf":
            left.take()
        elif field == "netns":
            said["netns"] = left.take()
        elif field == "batch":
            said["batch"] = left.take() if left else "-"
        elif field:
            said[field] = True
    return Options(**said), left.rest()


def command(words: Sequence[str], options: Options, opener: Opener) -> int:
    """Run one command."""
    left = Words(words)
    asked = left.take()
    run = next((run for name, run in OBJECTS.items() if matches(asked, name)), None)
    if run is None and matches(asked, "help"):
        sys.stderr.write(USAGE_TEXT)
        return 0
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
            file = sys.stdin if options.batch == "-" else stack.enter_context(open(options.batch, errors="replace"))
            lines = file.read().split("\n")
    except OSError as error:
        raise Quit(LOCAL, f'Cannot open file "{options.batch}" for reading: {error.strerror}') from None
    status = 0
    pending = ""
    for number, line in enumerate(lines, 1):
        pending += line
        if line.endswith("\\"):
            pending = pending[:-1]
            continue
        words, pending = split(pending), ""
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
    except ValueError:
        raise Quit(LOCAL, "Unterminated quoted string") from None

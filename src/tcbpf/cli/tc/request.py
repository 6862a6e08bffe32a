"""Requests of tc commands: open the datapath, choose the verb, report refusals in tc's words, print listings."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from tcbpf.cli.tc.show import Selection
from tcbpf.control.args import LOCAL, REFUSED, USAGE, Options, Quit, Words, matches, wrong
from tcbpf.control.objects import Link, TcObject
from tcbpf.control.request import Op, Request
from tcbpf.control.sheet import Sheet
from tcbpf.datapath.choose import open_datapath
from tcbpf.errors import NotSupported, SysError, TcError

if TYPE_CHECKING:
    from tcbpf.datapath.base import Datapath

COMMANDS = {
    "add": Op.ADD,
    "change": Op.CHANGE,
    "replace": Op.REPLACE,
    "link": Op.LINK,
    "delete": Op.DELETE,
    "get": Op.GET,
    "show": Op.SHOW,
    "list": Op.SHOW,
    "lst": Op.SHOW,
}


class Opener:
    """Opens the datapath of a command line when it is first needed; the commands of a batch share it."""

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
    """Refuse a network namespace that does not exist.

    Raises:  Quit.
    """
    try:
        os.stat(name if "/" in name else f"/var/run/netns/{name}")
    except OSError as error:
        raise Quit(USAGE, f'Cannot open network namespace "{name}": {error.strerror}') from None


def choose(words: Words, name: str, usage: str) -> Op | None:
    """Take the command word of an object; None for help.

    Raises:  Quit for an unknown one.
    """
    if not words:
        return Op.SHOW
    asked = words.take()
    if matches(asked, "help"):
        sys.stderr.write(usage)
        return None
    found = next((op for word, op in COMMANDS.items() if matches(asked, word)), None)
    if found is None or (found is Op.GET and name != "filter") or (found is Op.LINK and name != "qdisc"):
        raise Quit(USAGE, f'Command "{asked}" is unknown, try "tc {name} help".')
    return found


def apply(dp: Datapath, op: Op, what: TcObject, *, after: str = "") -> tuple[TcObject, ...]:
    """Apply a request; turn a refusal into tc's lines, of which `after` is the last.

    Raises:  Quit.
    """
    try:
        rows = dp.apply(Request(op, what))
        while dp.warnings:
            print(f"Warning: {dp.warnings.pop(0).rstrip('.')}.", file=sys.stderr)
        return rows
    except TcError as error:
        name = getattr(what, "dev", "")
        if error.errno == errno.ENODEV and error.extack.startswith("Cannot find device"):
            raise Quit(LOCAL, error.extack) from None
        if error.errno == errno.ENODEV and name and not error.extack:
            raise Quit(LOCAL, f'Cannot find device "{name}"') from None
        said = f"Error: {error.extack.rstrip('.')}." if error.extack else f"RTNETLINK answers: {error.strerror}"
        raise Quit(REFUSED, said, *filter(None, (after, error.hint))) from None
    except NotSupported as error:
        raise Quit(REFUSED, f"Error: {error}.", *([after] if after else [])) from None
    except SysError as error:
        raise Quit(REFUSED, f"Error: {error}") from None


def require_device(dp: Datapath, name: str) -> None:
    """Refuse a device that does not exist, before any other request.

    Raises:  Quit.
    """
    if not name:
        return
    try:
        if dp.apply(Request(Op.GET, Link(name))):
            return
    except TcError as error:
        if error.errno != errno.ENODEV:
            raise Quit(REFUSED, f"RTNETLINK answers: {error.strerror}") from None
    raise Quit(LOCAL, f'Cannot find device "{name}"')


def show(
    rows: Iterable[Any],
    put: Callable[[Sheet, Any, Options, Selection], None],
    options: Options,
    selected: Selection,
    *,
    json: bool = True,
) -> int:
    """Print a listing."""
    sheet = Sheet(oneline=options.oneline)
    for row in rows:
        put(sheet, row, options, selected)
    sys.stdout.write(sheet.json(pretty=options.pretty) if options.json and json else sheet.text())
    return 0


def block_number(words: Words, what: str) -> int:
    """Take the number of a shared block; 0 is none."""
    word = words.next
    return words.number(what) or wrong(word, what)

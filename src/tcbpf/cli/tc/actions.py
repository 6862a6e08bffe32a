"""`tc actions`: standalone actions, which filters share by index."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tcbpf.cli.tc.action import ILLEGAL, read_actions
from tcbpf.cli.tc.request import apply
from tcbpf.cli.tc.show_action import listing
from tcbpf.control.args import LOCAL, USAGE, Options, Quit, Words, c_number, matches
from tcbpf.control.objects import Action, Actions
from tcbpf.control.request import Op
from tcbpf.control.sheet import Sheet
from tcbpf.tc.kinds.action import ACTIONS

if TYPE_CHECKING:
    from tcbpf.cli.tc.request import Opener

ACTIONS_USAGE = f"""\
Usage: tc actions {{ add | change | replace }} action KIND [ its options ] [ index INDEX ]
       tc actions {{ get | del }} action KIND index INDEX ...
       tc actions {{ ls | flush }} action KIND
KIND := {" | ".join(ACTIONS)}
"""
WRITES = {"add": Op.ADD, "change": Op.REPLACE, "replace": Op.REPLACE}
NAMED = {"get": Op.GET, "delete": Op.DELETE}
LISTS = {"list": Op.SHOW, "show": Op.SHOW, "lst": Op.SHOW, "flush": Op.DELETE}
FAILED, NOT_FLUSHED = "We have an error talking to the kernel", "We have an error flushing"


def actions(opener: Opener, words: Words, options: Options) -> int:
    """Run one `tc actions` command."""
    if not words:
        return 0
    command = words.take()
    try:
        for table, run in ((WRITES, write), (NAMED, named), (LISTS, listed)):
            if (op := next((op for word, op in table.items() if matches(command, word)), None)) is not None:
                return run(opener, op, words, options)
    except Quit as quit:
        raise Quit(LOCAL if NOT_FLUSHED in quit.lines else USAGE, *quit.lines) from None
    if command == "ls":
        return listed(opener, Op.SHOW, words, options)
    if matches(command, "help"):
        raise Quit(USAGE, ACTIONS_USAGE.rstrip())
    raise Quit(USAGE, f'Command "{command}" is unknown, try "tc actions help".')


def write(opener: Opener, op: Op, words: Words, options: Options) -> int:
    """Make or change actions."""
    if not words:
        raise Quit(USAGE, ILLEGAL)
    rows = read_actions(dp := opener(), words)
    apply(dp, op, Actions(rows), after=FAILED)
    return 0


def named(opener: Opener, op: Op, words: Words, options: Options) -> int:
    """Show or remove actions that are named by kind and index."""
    asked: list[Action] = []
    while words:
        if words.accept("action"):
            continue
        kind = words.take()
        if not words.accept("index", prefix=True):
            raise Quit(USAGE, f"Error: no index specified action: {kind}")
        index = c_number(words.take())
        if index is None or index > 0xFFFFFFFF:
            raise Quit(USAGE, 'Illegal "index"')
        asked.append(Action(kind, index=index))
    found = [row for row in apply(opener(), op, Actions(tuple(asked)), after=FAILED) if isinstance(row, Action)]
    return put(found, options, total=0, first=1) if op is Op.GET else 0


def listed(opener: Opener, op: Op, words: Words, options: Options) -> int:
    """Show or remove all actions of a kind; those that a filter holds stay."""
    if not words.accept("action") or not words:
        raise Quit(USAGE, ACTIONS_USAGE.rstrip())
    asked, after = Action(words.take()), FAILED if op is Op.SHOW else NOT_FLUSHED
    found = [row for row in apply(opener(), op, asked, after=after) if isinstance(row, Action)]
    return put(found, options, total=len(found), first=0) if found else 0


def put(rows: list[Action], options: Options, *, total: int, first: int) -> int:
    """Print actions."""
    sheet = Sheet(oneline=options.oneline)
    listing(sheet, tuple(rows), options, total=total, first=first)
    sys.stdout.write(sheet.json(pretty=options.pretty) if options.json else sheet.text())
    return 0

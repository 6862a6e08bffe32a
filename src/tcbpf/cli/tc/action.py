"""The actions of a command, in tc(8)'s grammar; tc/kinds/action takes the options of each kind.

Source:  tc/m_action.c of iproute2 6.1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING

from tcbpf.cli.tc.load import UNLOADED, UNPARSED, prepare, read_source
from tcbpf.cli.tc.request import require_device
from tcbpf.control.args import LOCAL, Quit, Words, matches, wrong
from tcbpf.control.codes import HW_STATS
from tcbpf.control.objects import ACT_SKIP_HW, ACT_SKIP_SW, NO_PERCPU, Action
from tcbpf.tc.kinds.action import ACTIONS
from tcbpf.tc.kinds.command import Ready

if TYPE_CHECKING:
    from tcbpf.datapath.base import Datapath

MAX_ACTIONS = 32
MAX_COOKIE = 16  # bytes
NEXT_COMMANDS = ("change", "replace", "delete", "get", "add")
ILLEGAL = 'Illegal "action"'


@dataclass(frozen=True)
class Command:
    """A tc command to the kinds of filters and actions whose options it takes."""

    dp: Datapath

    def program(self, words: Words, type: str = "sched_cls") -> Callable[[], Ready]:
        """Take the words that say where a program is; return how to load it."""
        return partial(prepare, self.dp, read_source(words, type))

    def actions(self, words: Words) -> tuple[Action, ...]:
        """Take the actions that the next words describe."""
        return read_actions(self.dp, words)

    def require_device(self, name: str) -> None:
        """Refuse a device that does not exist."""
        require_device(self.dp, name)


def read_actions(dp: Datapath, words: Words) -> tuple[Action, ...]:
    """Take actions, up to the end or a word that no action begins with.

    Raises:  Quit.
    """
    rows: list[Action] = []
    awaited = False
    while words and words.next not in ("flowid", "classid"):
        if words.accept("action"):
            awaited = True
        elif words.next == "help":
            raise Quit(LOCAL, ILLEGAL)
        elif any(matches(words.next, command) for command in NEXT_COMMANDS):
            break
        else:
            awaited = False
            if len(rows) == MAX_ACTIONS:
                raise Quit(LOCAL, f"more than {MAX_ACTIONS} actions", ILLEGAL)
            rows.append(_action(dp, words))
    if awaited:
        raise Quit(LOCAL, "bad action empty 1", "parse_action: bad value (0:(null))!", ILLEGAL)
    if not rows:
        raise Quit(LOCAL, ILLEGAL)
    return tuple(rows)


def _action(dp: Datapath, words: Words) -> Action:
    """Take one action: the options of its kind, then those that every kind has."""
    left, kind = len(words), words.next
    try:
        named = words.accept(*ACTIONS)
        action = ACTIONS[kind if named else "gact"].parse(words, Command(dp))
    except Quit as quit:
        if quit.status != LOCAL:
            raise
        said = list(takewhile(lambda line: line not in (UNPARSED, UNLOADED), quit.lines))  # what filters say
        raise Quit(LOCAL, *said, "bad action parsing", f"parse_action: bad value ({left}:{kind})!", ILLEGAL) from None
    if words.accept("cookie"):
        action = replace(action, cookie=_cookie(words.take()))
    if words.accept("hw_stats", prefix=True):
        word = words.take()
        asked = next((name for name in HW_STATS if matches(word, name)), None) or wrong(word, "value is invalid\n")
        action = replace(action, hw_stats_asked=asked)
    flags = NO_PERCPU if words.accept("no_percpu") else 0
    flags |= ACT_SKIP_SW if words.accept("skip_sw") else ACT_SKIP_HW if words.accept("skip_hw") else 0
    return replace(action, flags=flags)


def _cookie(word: str) -> bytes:
    """Return the bytes of a cookie in hexadecimal."""
    if len(word) > 2 * MAX_COOKIE:
        wrong(word, f"{len(word)} Max allowed size {2 * MAX_COOKIE}")
    try:
        return bytes.fromhex(word)
    except ValueError:
        wrong(word, "cookie must be a hex string\n")

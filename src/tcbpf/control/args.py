"""The words of a command in tc(8)'s grammar: take them one by one, match abbreviations, refuse as tc does."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from tcbpf.errors import InputError

USAGE, LOCAL, REFUSED = 255, 1, 2
"""Exit statuses: the command line cannot be read; it fails before the datapath is asked; the datapath refuses."""


class Quit(Exception):
    """End the command with these lines on standard error and this exit status."""

    def __init__(self, status: int, *lines: str) -> None:
        self.status, self.lines = status, lines
        super().__init__("\n".join(lines))


@dataclass(frozen=True, slots=True)
class Options:
    """The options before the object."""

    json: bool = False
    pretty: bool = False
    stats: bool = False
    details: bool = False
    raw: bool = False
    iec: bool = False
    oneline: bool = False
    numeric: bool = False
    brief: bool = False
    force: bool = False
    netns: str = ""
    datapath: str = ""
    home: str = ""
    batch: str = ""


class Words:
    """The remaining words of a command."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words, self._at = list(words), 0

    def __bool__(self) -> bool:
        return self._at < len(self._words)

    def __len__(self) -> int:
        return len(self._words) - self._at

    @property
    def next(self) -> str:
        """The next word, or "" at the end."""
        return self._words[self._at] if self else ""

    def take(self) -> str:
        """Take the next word.

        Raises:  Quit when there is none.
        """
        self.require()
        self._at += 1
        return self._words[self._at - 1]

    def require(self) -> None:
        """Refuse the end of the command.

        Raises:  Quit.
        """
        if not self:
            raise Quit(USAGE, 'Command line is not complete. Try option "help"')

    def mark(self) -> int:
        """Return the place of the next word, for `back`."""
        return self._at

    def back(self, at: int) -> None:
        """Return to a marked place."""
        self._at = at

    def rest(self) -> list[str]:
        """Take all remaining words."""
        return [self.take() for _ in range(len(self))]

    def accept(self, *names: str, prefix: bool = False) -> bool:
        """Take the next word when it is one of `names` (or abbreviates one), and tell whether it was."""
        found = bool(self) and (self.next in names or (prefix and any(matches(self.next, name) for name in names)))
        self._at += found
        return found

    def number(self, what: str, *, limit: int = 0xFFFFFFFF, status: int = USAGE) -> int:
        """Take a number (decimal, 0x, 0 octal).

        Raises:  Quit saying `what` is wrong.
        """
        word = self.take()
        value = c_number(word)
        if value is None or not 0 <= value <= limit:
            raise Quit(status, f'Error: argument "{word}" is wrong: {what}') if status == USAGE else Quit(status, what)
        return value


def matches(word: str, name: str) -> bool:
    """Tell whether `word` is `name` or its beginning."""
    return bool(word) and name.startswith(word)


def wrong(word: str, why: str) -> NoReturn:
    """Refuse a word."""
    raise Quit(USAGE, f'Error: argument "{word}" is wrong: {why}')


def duplicate(key: str, word: str) -> NoReturn:
    """Refuse a repeated key."""
    raise Quit(USAGE, f'Error: duplicate "{key}": "{word}" is the second value.')


def c_number(word: str) -> int | None:
    """Return the value of a C integer literal, or None."""
    if re.fullmatch(r"0[0-7]+", word):
        return int(word, 8)
    if re.fullmatch(r"0[xX][0-9a-fA-F]+|0|[1-9][0-9]*", word):
        return int(word, 0)
    return None


def absent(word: str) -> NoReturn:
    """Reject syntax that tc(8) accepts but no datapath here implements."""
    raise Quit(LOCAL, f'"{word}" is not supported here')


def parsed(read: Callable[[str], int], word: str, why: str, *, status: int = USAGE) -> int:
    """Return read(word), or refuse the word."""
    try:
        return read(word)
    except InputError:
        if status != USAGE:
            raise Quit(status, why) from None
        wrong(word, why)

"""The words of a tc(8) command: take them one by one, match their abbreviations, refuse in tc's way."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from tcbpf.errors import InputError

USAGE, LOCAL, REFUSED = 255, 1, 2
"""Exit statuses: the command line cannot be read; it fails before the datapath is asked; the datapath refuses."""


class Quit(Exception):
    """A command ends here, with these lines on standard error and this status."""

    def __init__(self, status: int, *lines: str) -> None:
        self.status, self.lines = status, lines
        super().__init__("\n".join(lines))


@dataclass(frozen=True, slots=True)
class Options:
    """The options before the object. Units: stats, details and the like are on or off."""

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
    """The words that are left of a command."""

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
        """Give words back, down to a marked place."""
        self._at = at

    def rest(self) -> list[str]:
        """Take all words that are left."""
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
    """Refuse a key that was said before."""
    raise Quit(USAGE, f'Error: duplicate "{key}": "{word}" is the second value.')


def c_number(word: str) -> int | None:
    """Return the value of a C integer literal, or None."""
    if re.fullmatch(r"0[0-7]+", word):
        return int(word, 8)
    if re.fullmatch(r"0[xX][0-9a-fA-F]+|0|[1-9][0-9]*", word):
        return int(word, 0)
    return None


def absent(word: str) -> NoReturn:
    """Refuse what tc(8) has and neither datapath here."""
    raise Quit(LOCAL, f'"{word}" is not supported here')


def parsed(read: Callable[[str], int], word: str, why: str, *, status: int = USAGE) -> int:
    """Return read(word), or refuse the word."""
    try:
        return read(word)
    except InputError:
        if status != USAGE:
            raise Quit(status, why) from None
        wrong(word, why)


_RATES = {
    "": 1,
    "bit": 1,
    "kbit": 10**3,
    "mbit": 10**6,
    "gbit": 10**9,
    "tbit": 10**12,
    "kibit": 1 << 10,
    "mibit": 1 << 20,
    "gibit": 1 << 30,
    "tibit": 1 << 40,
    "bps": 8,
    "kbps": 8 * 10**3,
    "mbps": 8 * 10**6,
    "gbps": 8 * 10**9,
    "tbps": 8 * 10**12,
    "kibps": 8 << 10,
    "mibps": 8 << 20,
    "gibps": 8 << 30,
    "tibps": 8 << 40,
}
_SIZES = {
    "": 1,
    "b": 1,
    "k": 1 << 10,
    "kb": 1 << 10,
    "m": 1 << 20,
    "mb": 1 << 20,
    "g": 1 << 30,
    "gb": 1 << 30,
    "kbit": 128,
    "mbit": 1 << 17,
    "gbit": 1 << 27,
}
_UNIT = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([a-zA-Z]*)")


def read_rate(word: str) -> int | None:
    """Return a rate in bytes per second of "1mbit" or "100kbps" (bytes), or None."""
    return _scaled(word, _RATES, 8)


def read_size(word: str) -> int | None:
    """Return a size in bytes of "15k" or "1mb", or None."""
    return _scaled(word, _SIZES, 1)


def _scaled(word: str, units: dict[str, int], divisor: int) -> int | None:
    match = _UNIT.fullmatch(word)
    unit = units.get(match[2].lower()) if match else None
    return None if match is None or unit is None else int(float(match[1]) * unit / divisor)


def format_rate(rate: int, *, iec: bool = False) -> str:
    """Return bytes per second as tc prints a rate: "512Kbit"."""
    kilo, bits, unit = (1024 if iec else 1000), rate * 8, 0
    while unit < 4 and bits >= kilo and (bits % kilo == 0 or bits >= 1000 * kilo):
        bits //= kilo
        unit += 1
    return f"{bits}{('', 'K', 'M', 'G', 'T')[unit]}{'i' if iec and unit else ''}bit"


def format_size(size: int) -> str:
    """Return bytes as tc prints a size: "1600b", "15Kb"."""
    for unit, scale, slack in (("Mb", 1 << 20, 1024), ("Kb", 1 << 10, 16)):
        if size >= scale and abs(scale * round(size / scale) - size) < slack:
            return f"{round(size / scale)}{unit}"
    return f"{size}b"

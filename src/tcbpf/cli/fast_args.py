"""Plain commands, read without argparse, whose import alone takes as long as classifying a million packets.

A row holds the names of an argument and the keywords of `add_argument`. Everything else (an abbreviation, "--name=value",
a wrong number, an extra argument, --help) is left to argparse, which reads or refuses it.
"""

from __future__ import annotations

from types import SimpleNamespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Rows = dict[str, dict[str, Any]]


def read(words: Sequence[str], rows: Rows) -> SimpleNamespace | None:
    """Return argparse's result for plain words; None for others."""
    options = {name: row for names, row in rows.items() for name in names.split() if name[0] == "-"}
    wanted = [name for name in rows if name[0] != "-"]
    found = {_dest(name, row): row.get("default", _off(row)) for name, row in options.items()}
    given, left = list[str](), iter(words)
    for word in left:
        if word[:1] != "-":
            given.append(word)
            continue
        if (row := options.get(word)) is None:
            return None
        value = not _off(row) if "action" in row else _value(next(left, "-"), row)
        if value is None:
            return None
        found[_dest(word, row)] = value
    if len(given) != len(wanted):
        return None
    return SimpleNamespace(**found, **dict(zip(wanted, given, strict=True)))


def _dest(name: str, row: dict[str, Any]) -> str:
    return str(row.get("dest") or name.lstrip("-").replace("-", "_"))


def _off(row: dict[str, Any]) -> bool | None:
    """Return the value of a flag that is not given."""
    return row["action"] == "store_false" if "action" in row else None


def _value(word: str, row: dict[str, Any]) -> str | int | None:
    """Return an option's value; None when argparse must read the word."""
    if word[:1] == "-" or word not in row.get("choices", (word,)):
        return None
    if row.get("type") is int:
        return int(word) if word.isdecimal() else None
    return word

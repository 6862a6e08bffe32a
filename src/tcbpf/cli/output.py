"""Output of verbs: numbers, verdicts and tables, plain in a pipe and with rich in a terminal."""

from __future__ import annotations

import os
import sys

from tcbpf.tables.actions import ACTIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any, TextIO


def one_line(value: Any) -> str:
    """Return a typed map value on one line."""
    if isinstance(value, dict):
        return " ".join(f"{k}={one_line(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(one_line(v) for v in value) + "]"
    return value.hex(" ") if isinstance(value, (bytes, bytearray)) else str(value)


def colours(stream: TextIO) -> bool:
    """Tell whether to write colours and cursor movements: to a terminal that has them, unless NO_COLOR is set.

    Source:  no-color.org.
    """
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def verdict_name(verdict: int) -> str:
    """Return "shot" for 2, and "" for a number that is not a TC_ACT."""
    row = ACTIONS.at(verdict)
    return row.name if row else ""


def rate(packets: int, duration_ns: int) -> str:
    """Return packets per second, as "12.3 Mpps"."""
    if not duration_ns:
        return "-"
    value = packets * 1e9 / duration_ns
    for unit, size in (("Gpps", 1e9), ("Mpps", 1e6), ("kpps", 1e3)):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return f"{value:.0f} pps"


def table(head: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "") -> None:
    """Print rows under a head; columns of numbers are right-aligned."""
    cells = [[str(cell) for cell in row] for row in rows]
    numeric = [all(isnumber(row[i]) for row in cells) for i in range(len(head))]
    if sys.stdout.isatty():
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table

        grid = Table(title=title or None, box=SIMPLE_HEAD, title_justify="left")
        for name, right in zip(head, numeric, strict=True):
            grid.add_column(name, justify="right" if right else "left", no_wrap=True)
        for row in cells:
            grid.add_row(*row)
        Console().print(grid)
        return
    widths = [max(len(row[i]) for row in [list(head), *cells]) for i in range(len(head))]
    if title:
        print(title)
    for row in [list(head), *cells]:
        print("  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, numeric, strict=True)).rstrip())


def isnumber(text: str) -> bool:
    """Tell whether `text` is a number, a percentage or a dash."""
    return text.rstrip("%").replace(".", "", 1).replace(",", "").lstrip("-").isdigit() or text == "-"

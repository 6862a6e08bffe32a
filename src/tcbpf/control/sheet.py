"""A listing as text and JSON at once: each value is put once, with its key and its format.

Source:  the layout of iproute2's JSON writer, which scripts compare byte for byte.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Sheet:
    """The output of a show command; with `oneline`, lines end in backslashes."""

    def __init__(self, *, oneline: bool = False) -> None:
        self._end = "\\" if oneline else "\n"
        self._text: list[str] = []
        self._rows: list[Any] = []
        self._open: list[Any] = [self._rows]

    def put(self, key: str, value: object, form: str = "", *, shown: object = None) -> None:
        """Put a value: under `key` in JSON ("" for text only), worded by `form` (a `{}` format) in text.

        `shown` is what the text says where that is not the value.
        """
        if key:
            self._open[-1][key] = value
        if form:
            self._text.append(form.format(value if shown is None else shown))

    def say(self, text: str) -> None:
        """Put text that JSON leaves out."""
        self._text.append(text)

    def line(self) -> None:
        """End a line."""
        self._text.append(self._end)

    @contextmanager
    def object(self, key: str = "") -> Iterator[None]:
        """Open an object: under `key`, or as the next one of a list."""
        made: dict[str, Any] = {}
        self._enter(key, made)
        yield
        self._open.pop()

    @contextmanager
    def list(self, key: str) -> Iterator[None]:
        """Open a list."""
        made: list[Any] = []
        self._enter(key, made)
        yield
        self._open.pop()

    def _enter(self, key: str, made: Any) -> None:
        if key:
            self._open[-1][key] = made
        else:
            self._open[-1].append(made)
        self._open.append(made)

    def text(self) -> str:
        """Return the text."""
        return "".join(self._text)

    def json(self, *, pretty: bool) -> str:
        """Return the JSON, with its final newline."""
        return _write(self._rows, 0, pretty) + "\n"


def _write(value: Any, depth: int, pretty: bool) -> str:
    """Return a value as the JSON writer lays it out: arrays in line, object members each on a line of its own."""
    if isinstance(value, list):
        items = ",".join(_write(item, depth + 1, pretty) for item in value)
        return (f"[ {items} ]" if items else "[ ]") if pretty else f"[{items}]"
    if isinstance(value, dict):
        if not value:
            return "{}"
        indent = "\n" + "    " * (depth + 1) if pretty else ""
        colon = ": " if pretty else ":"
        members = ",".join(f"{indent}{json.dumps(key)}{colon}{_write(item, depth + 1, pretty)}" for key, item in value.items())
        return "{" + members + ("\n" + "    " * depth if pretty else "") + "}"
    return json.dumps(value, ensure_ascii=False)

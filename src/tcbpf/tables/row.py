"""A table is an ordered set of frozen rows, found by name or by number; a duplicate of either stops the import."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Generic, TypeVar

    Row = TypeVar("Row")

    class Of(Generic[Row]):
        """What a table is of."""
else:
    Row, Of = "row", {"row": object}                   # to a running program it is all the same

Release = tuple[int, int]
"""A kernel release, as (6, 12): what a row's `since` holds."""


class Table(Of[Row]):
    """Rows in the order written, with one index by name and one by `number` (what the UAPI counts them by)."""

    def __init__(self, *rows: Row, name: Callable[[Row], str], number: Callable[[Row], object]) -> None:
        self.rows = rows
        self._by_name: dict[str, Row] = {}
        self._by_number: dict[object, Row] = {}
        for row in rows:
            for index, key in ((self._by_name, name(row)), (self._by_number, number(row))):
                if key in index:
                    raise ValueError(f"duplicate row {key!r}: {row!r} and {index[key]!r}")   # type: ignore[index]
                index[key] = row                                                             # type: ignore[index]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def __getitem__(self, name: str) -> Row:
        """Return the row of that name.

        Raises:  KeyError.
        """
        return self._by_name[name]

    def get(self, name: str) -> Row | None:
        """Return the row of that name, or None."""
        return self._by_name.get(name)

    def at(self, number: object) -> Row | None:
        """Return the row of that number, or None."""
        return self._by_number.get(number)

    def names(self) -> tuple[str, ...]:
        """Return the names, in table order."""
        return tuple(self._by_name)

"""Machine code that can be placed anywhere: text, then a gap of at least a page, then read-only data at a fixed distance."""

from __future__ import annotations

PAGE = 4096
TRAP = b"\xcc"  # int3, x86-64


class Image:
    """Position-independent machine code; loading it is copying.

    Units:   entries are offsets into text; data lies `distance` bytes after the start of text.
    """

    def __init__(self, text: bytes, data: bytes, entries: dict[str, int]) -> None:
        self.text, self.data, self.entries = text, data, entries

    def to_cache(self) -> tuple[bytes, bytes, dict[str, int]]:
        """Return its parts as a cache stores them."""
        return self.text, self.data, self.entries

    @property
    def distance(self) -> int:
        """From the start of text to the start of data: a page that both touch cannot exist, wherever text starts."""
        return page_up(len(self.text)) + PAGE


def page_up(size: int) -> int:
    """Return `size` in whole pages."""
    return -(-size // PAGE) * PAGE

"""The text of a log while it is written.

Source:  kernel/bpf/log.c (v6.18).
"""

from __future__ import annotations

from typing import Final

LEVEL1, LEVEL2, STATS, VISITS = 1, 2, 4, 8
"""What bpf(2) knows, and one more: VISITS is level 2 without its lines about precision and liveness, at a part of the time."""

PATHS: Final = LEVEL1 | LEVEL2 | VISITS


class Log:
    """What was written so far: text that can be cut back to an earlier place.

    Level 1 cuts back to where a path branched off when it takes up another, as the kernel does; level 2 keeps all.

    Units:   places are characters.
    """

    __slots__ = ("_parts", "end", "level")

    def __init__(self, level: int) -> None:
        self.level = level
        self._parts: list[str] = []
        self.end = 0

    def write(self, text: str) -> None:
        """Add text as it is."""
        self._parts.append(text)
        self.end += len(text)

    def line(self, text: str) -> None:
        """Add a line."""
        self.write(text + "\n")

    def cut(self, place: int) -> None:
        """Forget what was written after `place`."""
        while self.end > place:
            last = self._parts.pop()
            self.end -= len(last)
            if self.end < place:
                self.write(last[: place - self.end])

    def text(self) -> str:
        """Return the whole log."""
        return "".join(self._parts)

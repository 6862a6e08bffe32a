"""The end of the line for a one-shot run: the packet loop with a verified program in it, and templates of its maps."""

from __future__ import annotations

from tcbpf.native.mapmemory import MapTemplate
from tcbpf.vm.jit.image import Image

TYPE_CHECKING = False  # typing takes longer to import than a small capture to run
if TYPE_CHECKING:
    from typing import Any, Self


class Prepared:
    """A verified program as machine code inside the packet loop, the templates of its maps, and the notes on it."""

    def __init__(
        self,
        name: str,
        type: str,
        classic: bool,
        writes: bool,
        maps: tuple[MapTemplate, ...],
        loop: Image,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.name, self.type, self.classic, self.writes = name, type, classic, writes
        self.maps, self.loop, self.notes = maps, loop, notes

    @classmethod
    def from_cache(cls, kept: tuple[Any, ...]) -> Self:
        """Return the program that `to_cache` took apart."""
        name, type, classic, writes, maps, loop, notes = kept
        return cls(name, type, classic, writes, tuple(MapTemplate(*template) for template in maps), Image(*loop), notes)

    def to_cache(self) -> tuple[object, ...]:
        """Return it as a cache keeps it."""
        maps = tuple((template.name, template.size, template.pieces) for template in self.maps)
        return self.name, self.type, self.classic, self.writes, maps, self.loop.to_cache(), self.notes

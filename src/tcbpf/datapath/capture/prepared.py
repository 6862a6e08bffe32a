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
        unbounded: bool = False,
    ) -> None:
        self.name, self.type, self.classic, self.writes = name, type, classic, writes
        self.maps, self.loop, self.notes, self.unbounded = maps, loop, notes, unbounded

    @classmethod
    def from_cache(cls, kept: tuple[Any, ...]) -> Self:
        """Return the program that `to_cache` took apart."""
        name, type, classic, writes, maps, loop, notes, unbounded = kept
        templates = tuple(MapTemplate(*template) for template in maps)
        return cls(name, type, classic, writes, templates, Image(*loop), notes, unbounded)

    def to_cache(self) -> tuple[object, ...]:
        """Return it as a cache keeps it."""
        maps = tuple((template.name, template.size, template.pieces) for template in self.maps)
        loop = self.loop.to_cache()
        return self.name, self.type, self.classic, self.writes, maps, loop, self.notes, self.unbounded

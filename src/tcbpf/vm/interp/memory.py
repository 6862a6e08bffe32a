"""The memory a stepped program may touch: live regions of this process, checked at every access."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass

from tcbpf.errors import TcbpfError


class AccessError(TcbpfError):
    """A program touched memory that is not its own."""


@dataclass(frozen=True, slots=True)
class Region:
    """Bytes at an address of this process.

    Units:   size in bytes; `offset` is what a person calls the first byte (-512 for a stack frame).
    """

    name: str
    start: int
    size: int
    writable: bool = True
    offset: int = 0

    def holds(self, address: int, size: int) -> bool:
        """Whether an access of `size` bytes lies inside."""
        return self.start <= address and address + size <= self.start + self.size


Provider = Callable[[int], Region | None]
"""The region at an address, as it is now: the packet moves, frames come and go."""


@dataclass(frozen=True, slots=True)
class Touch:
    """One access: which region, at which offset in it, and the bytes read or written."""

    region: str
    offset: int
    size: int
    write: bool
    value: int


class Memory:
    """Checked loads and stores over regions; `touches` collects them while `trace` is on."""

    def __init__(self, *providers: Provider) -> None:
        self.providers = providers
        self.trace = False
        self.touches: list[Touch] = []

    def find(self, address: int, size: int, write: bool = False) -> Region:
        """Return the region that an access lies in.

        Raises:  AccessError when there is none.
        """
        for provider in self.providers:
            region = provider(address)
            if region is not None and region.holds(address, size) and (region.writable or not write):
                return region
        raise AccessError(f"{'write' if write else 'read'} of {size} bytes at {address:#x}, outside every region")

    def read(self, address: int, size: int) -> int:
        """Return `size` little-endian bytes."""
        region = self.find(address, size)
        value = int.from_bytes(ctypes.string_at(address, size), "little")
        self._note(region, address, size, False, value)
        return value

    def write(self, address: int, size: int, value: int) -> None:
        """Store the low `size` bytes of `value`."""
        region = self.find(address, size, write=True)
        value &= (1 << 8 * size) - 1
        ctypes.memmove(address, value.to_bytes(size, "little"), size)
        self._note(region, address, size, True, value)

    def _note(self, region: Region, address: int, size: int, write: bool, value: int) -> None:
        if self.trace:
            self.touches.append(Touch(region.name, address - region.start + region.offset, size, write, value))

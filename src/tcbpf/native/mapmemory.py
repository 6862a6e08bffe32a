"""The memory of a user-datapath map (src/maps has its layout), and templates from which equal maps are created cheaply."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import time

from tcbpf.cpus import possible_cpus as possible_cpus
from tcbpf.errors import MapError
from tcbpf.native.library import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

BPF_F_ZERO_SEED = 1 << 6


class MapMemory:
    """A map's file, open and mapped. Closing the last descriptor of an unnamed file drops the map."""

    def __init__(self, fd: int, memory: mmap.mmap) -> None:
        self._fd, self._memory = fd, memory
        self._start = ctypes.c_char.from_buffer(memory)
        self.address = ctypes.addressof(self._start)
        self.struct: Any = struct("tcbpf_map").from_address(self.address)

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._fd

    def close(self) -> None:
        """Unmap and close. Machine code that uses the map must be gone."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self.address = 0
            del self.struct, self._start
            self._memory.close()
            os.close(fd)


class MapTemplate:
    """The content of a new map: its size, and the bytes at each offset where they are not zero."""

    def __init__(self, name: str, size: int, pieces: tuple[tuple[int, bytes], ...]) -> None:
        self.name, self.size, self.pieces = name, size, pieces

    @classmethod
    def of(cls, new: MapMemory, name: str) -> MapTemplate:
        """Return the template of a new map in anonymous memory."""
        fd, pieces, end = new.fileno(), [], 0
        size = os.fstat(fd).st_size
        while end < size:
            try:
                start = os.lseek(fd, end, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:  # nothing but zeros from here on
                    raise
                break
            end = os.lseek(fd, start, os.SEEK_HOLE)
            pieces.append((start, os.pread(fd, end - start, start)))
        return cls(name, size, tuple(pieces))

    def instantiate(self) -> MapMemory:
        """Create a map from the template, with a seed of its own.

        Raises:  MapError ENOMEM when the map is larger than the memory that is left.
        """
        check_memory(self.name, self.size)
        fd = anonymous(self.name)
        os.ftruncate(fd, self.size)
        for start, piece in self.pieces:
            os.pwrite(fd, piece, start)
        made = MapMemory(fd, mmap.mmap(fd, self.size))
        begin(made.struct)
        return made


def begin(head: Any) -> None:
    """Fill in what differs between equal maps: seed and creation time."""
    head.seed = 0 if head.s.flags & BPF_F_ZERO_SEED else int.from_bytes(os.urandom(4), "little")
    head.load_time = time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def anonymous(name: str) -> int:
    """Return a descriptor of an empty file without a name."""
    return os.memfd_create(f"tcbpf-map:{name}", os.MFD_CLOEXEC)


def check_memory(name: str, size: int) -> None:
    """Refuse a map that is larger than the memory that is left.

    Raises:  MapError with ENOMEM.
    """
    available = _memory_available()
    if size > available:
        detail = f"needs {size / 2**20:,.0f} MiB, {available / 2**20:,.0f} MiB are available"
        raise MapError(errno.ENOMEM, "create", name, detail)


def _memory_available() -> int:
    try:
        with open("/proc/meminfo") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return 1 << 62

"""A capture file for the runtime's packet loop: chunk by chunk, the next one read while C works on the last.

Two buffers take turns. In front of each is room for the unfinished record that the last chunk ended in, so that a
record is always whole in memory and nothing but that record is copied.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import stat
import threading
from contextlib import contextmanager
from queue import SimpleQueue

from tcbpf.errors import InputError, InternalError
from tcbpf.native.library import constant, function, struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, BinaryIO

CHUNK = 1 << 20  # two of them stay in a core's cache
FIRST = 1 << 16  # a chunk that holds a first packet
ROOM = 1 << 19  # in front of a chunk; a record is rarely as large
LARGEST = 64 << 20  # a record that needs more is damage
UNKNOWN_SIZE = 1 << 62  # of a pipe, until it ends
ETHERNET = 1  # LINKTYPE_ETHERNET


class Buffer:
    """Anonymous memory: what is never written to costs nothing."""

    def __init__(self, size: int) -> None:
        self._memory = mmap.mmap(-1, size)
        self.view = memoryview(self._memory)
        self._start = ctypes.c_char.from_buffer(self._memory)
        self.address = ctypes.addressof(self._start)


class Ahead:
    """Reads into one buffer while the other is worked on, in a thread that begins with the second chunk."""

    def __init__(self, file: BinaryIO, chunk: int) -> None:
        self.file, self.size = file, ROOM + chunk
        self.buffers = [Buffer(self.size), Buffer(self.size)]
        self._wanted: SimpleQueue[Buffer | None] = SimpleQueue()
        self._got: SimpleQueue[int | OSError] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def first(self) -> tuple[Buffer, int]:
        """Return the first chunk."""
        return self.buffers[0], self._read(self.buffers[0])

    def next(self) -> tuple[Buffer, int]:
        """Return the chunk after the last one; `free` then gives that one's buffer back."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True)
            self._thread.start()
            self._wanted.put(self.buffers[1])
        got = self._got.get()
        if isinstance(got, OSError):
            raise got
        self.buffers.reverse()
        return self.buffers[0], got

    def free(self) -> None:
        """Read the next chunk into the buffer that is not in use."""
        self._wanted.put(self.buffers[1])

    def close(self) -> None:
        """End the thread."""
        if self._thread is not None:
            self._wanted.put(None)
            self._thread.join()

    def _read(self, buffer: Buffer) -> int:
        return self.file.readinto(buffer.view[ROOM:]) or 0  # type: ignore[attr-defined]

    def _work(self) -> None:
        while (buffer := self._wanted.get()) is not None:
            try:
                self._got.put(self._read(buffer))
            except OSError as error:
                self._got.put(error)


class Reader:
    """A capture file as struct tcbpf_capture, one chunk at a time."""

    def __init__(self, file: BinaryIO, path: str, chunk: int) -> None:
        self.path = path
        what = os.fstat(file.fileno())
        self.is_file = stat.S_ISREG(what.st_mode)
        self.size = what.st_size if self.is_file else UNKNOWN_SIZE
        self.ahead = Ahead(file, chunk)
        self.capture: Any = struct("tcbpf_capture")()
        self.buffer, got = self.ahead.first()
        self._at(self.buffer, ROOM, got, 0)
        status = function("tcbpf_capture_open", ctypes.c_uint32, ctypes.c_void_p)(ctypes.addressof(self.capture))
        if status not in (constant("END"), constant("MORE")):
            self.fail(status)

    def _at(self, buffer: Buffer, start: int, size: int, window: int) -> None:
        """Point the capture at `size` bytes of a buffer, which stand at `window` in the file."""
        self.buffer, self.start = buffer, start
        self.capture.base, self.capture.size, self.capture.pos = buffer.address + start, size, 0
        self.capture.window, self.capture.file_size = window, self.size

    def fill(self) -> bool:
        """Go on to the next chunk, the unread rest in front of it; False when the file is at its end.

        Raises:  InputError for a record that cannot be one; OSError.
        """
        capture, last, start = self.capture, self.buffer, self.start
        window = capture.window + capture.pos
        rest = last.view[start + capture.pos : start + capture.size]
        if capture.window + capture.size >= self.size:
            return False
        chunk, got = self.ahead.next()
        if not got:
            self.size = capture.file_size = capture.window + capture.size
            return not self.is_file  # once more, for C to say how a pipe ended
        if len(rest) <= ROOM:
            chunk.view[ROOM - len(rest) : ROOM] = rest
            self._at(chunk, ROOM - len(rest), len(rest) + got, window)
        else:
            self._at(self._joined(rest, chunk.view[ROOM : ROOM + got]), 0, len(rest) + got, window)
        self.ahead.free()
        return True

    def _joined(self, rest: memoryview, more: memoryview) -> Buffer:
        """Return a buffer of its own for a record larger than the room in front of a chunk."""
        if len(rest) > LARGEST:
            raise InputError(f"a record of more than {LARGEST} bytes is damage", where=self.path)
        made = Buffer(len(rest) + len(more))
        made.view[: len(rest)] = rest
        made.view[len(rest) :] = more
        return made

    def fail(self, status: int, link_type: int | None = None) -> None:
        """Raise the error of a status that ends the loop over packets of `link_type` (None: any)."""
        if not self.is_file:
            raise InputError("the capture is damaged or cut short", where=self.path, hint="save it to a file to see where")
        from tcbpf.net.pcap import read

        # The plain reader finds the fault again and has the words for it; the loop only knows that there is one.
        for _ in read(self.path, link_type=link_type):
            pass
        raise InternalError(f"{self.path}: the packet loop stopped with status {status} on a sound capture")


def link_type(path: str) -> int:
    """Return the link type of a capture file's first packet; a pipe, which can be read but once, is taken for Ethernet's.

    Raises:  InputError for a damaged capture.
    """
    if not os.path.isfile(path):
        return ETHERNET
    packet = struct("tcbpf_packet")()
    following = function("tcbpf_capture_next", ctypes.c_uint32, ctypes.c_void_p, ctypes.c_void_p)
    with open_reader(path, chunk=FIRST) as reader:
        status = constant("MORE")
        while status == constant("MORE") and not packet.data:
            status = following(ctypes.addressof(reader.capture), ctypes.addressof(packet))
            if status == constant("MORE") and not packet.data and not reader.fill():
                break
        if status not in (constant("END"), constant("MORE")):
            reader.fail(status)
        return int(reader.capture.interfaces[packet.interface].linktype) if packet.data else ETHERNET


@contextmanager
def open_reader(path: str, *, chunk: int = CHUNK) -> Iterator[Reader]:
    """Open a capture file, or a pipe."""
    with open(path, "rb", buffering=0) as file:
        reader = Reader(file, path, chunk)
        try:
            yield reader
        finally:
            reader.ahead.close()

"""A capture file for the runtime's packet loop: chunk by chunk, the next one read while C works on the last.

Two buffers take turns. In front of each is room for the unfinished record that the last chunk ended in, so that a
record is always whole in memory and nothing but that record is copied.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import stat
from contextlib import contextmanager

from tcbpf.errors import CaptureError, InputError
from tcbpf.native.library import constant, function, struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator
    from queue import SimpleQueue
    from typing import Any, BinaryIO

CHUNK = 1 << 20  # two of them stay in a core's cache
ROOM = 1 << 19  # in front of a chunk; a record is rarely as large
LARGEST = 64 << 20  # a record that needs more is damage
MAGIC, HEADER = 4, 24  # of a pcap
UNKNOWN_SIZE = 1 << 62  # of a pipe, until it ends
ETHERNET, IP_LINKS = 1, frozenset({12, 101, 228, 229})  # LINKTYPE_ numbers; DLT_RAW, _RAW, _IPV4, _IPV6
SWAPPED = constant("LINK_SWAPPED")
END, MORE, FULL, TRUNCATED, BAD = map(constant, ("END", "MORE", "FULL", "TRUNCATED", "BAD"))
LINKTYPE, STOPPED = constant("LINKTYPE"), constant("STOPPED")
NO_CAPTURE, VERSION = constant("NO_CAPTURE"), constant("PCAP_VERSION")
DAMAGE = {
    constant("LENGTH"): "a packet's length is impossible",
    constant("BLOCK"): "a block's length is impossible, or its two copies differ",
    constant("NO_INTERFACE"): "a packet's interface is not described",
    constant("MANY_INTERFACES"): "more than 1024 interfaces are described",
}


class Buffer:
    """Anonymous memory; pages cost nothing until they are written to."""

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
        self._wanted: SimpleQueue[Buffer | None]
        self._got: SimpleQueue[int | OSError]
        self._thread: threading.Thread | None = None

    def first(self) -> tuple[Buffer, int]:
        """Return the first chunk."""
        return self.buffers[0], self._read(self.buffers[0])

    def more(self, got: int) -> int:
        """Add to the first chunk, which has `got` bytes; return how many came."""
        return self.file.readinto(self.buffers[0].view[ROOM + got :]) or 0  # type: ignore[attr-defined]

    def next(self) -> tuple[Buffer, int]:
        """Return the chunk after the last one; `free` then gives that one's buffer back."""
        if self._thread is None:
            self._start()
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

    def _start(self) -> None:
        import threading  # here: a capture of one chunk needs no thread
        from queue import SimpleQueue

        self._wanted, self._got = SimpleQueue(), SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()
        self._wanted.put(self.buffers[1])

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
        while got < HEADER and (more := self.ahead.more(got)):  # a pipe gives what it has
            got += more
            self._at(self.buffer, ROOM, got, 0)
        self.packet: Any = struct("tcbpf_packet")()
        self._next = function("tcbpf_capture_next", ctypes.c_uint32, ctypes.c_void_p, ctypes.c_void_p)
        self.status = function("tcbpf_capture_open", ctypes.c_uint32, ctypes.c_void_p)(ctypes.addressof(self.capture))
        if self.status == BAD or got < MAGIC:
            raise self.fault(self.status, 0)

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
        end, passed = capture.window + capture.size, capture.window + capture.pos
        if end >= self.size:
            return False
        rest = last.view[start + capture.pos : start + capture.size]  # nothing of a block to pass over
        chunk, got = self.ahead.next()
        while got and end + got <= passed:
            end += got
            self.ahead.free()
            chunk, got = self.ahead.next()
        skip = max(0, passed - end)
        if not got:  # once more, for C to say how it ended
            self.size = capture.file_size = end
            if not rest:
                self._at(chunk, ROOM, 0, end)
                capture.pos = skip
            return True
        if len(rest) <= ROOM:
            chunk.view[ROOM - len(rest) : ROOM] = rest
            self._at(chunk, ROOM - len(rest) + skip, len(rest) + got - skip, passed)
        else:
            self._at(self._joined(rest, chunk.view[ROOM : ROOM + got]), 0, len(rest) + got, passed)
        self.ahead.free()
        return True

    def _joined(self, rest: memoryview, more: memoryview) -> Buffer:
        """Return a buffer of its own for a record larger than the room in front of a chunk."""
        if len(rest) > LARGEST:
            raise CaptureError(f"a record of more than {LARGEST} bytes is damage", where=self.path)
        made = Buffer(len(rest) + len(more))
        made.view[: len(rest)] = rest
        made.view[len(rest) :] = more
        return made

    def next_link(self) -> int | None:
        """Return the link type of the next packet, which stays the next; None when there is none: `status` says why."""
        capture, packet = self.capture, self.packet
        while self.status == MORE:
            self.status = self._next(ctypes.addressof(capture), ctypes.addressof(packet))
            if self.status == MORE and packet.data:
                capture.pos = packet.data - capture.base - packet.head
                return int(capture.interfaces[packet.interface].linktype)
            if self.status == MORE and not self.fill():
                self.status = END
        return None

    def fault(self, status: int, packets: int) -> InputError:
        """Return the error of a status that ends the loop after `packets`."""
        if self.is_file:
            from tcbpf.net.pcap import read

            try:  # the plain reader finds the fault again and has its figures; the loop only knows that there is one
                for _ in read(self.path, link_type=None):
                    pass
            except InputError as error:
                return error
        capture = self.capture
        at, damage = capture.window + capture.pos, capture.error if status == BAD else 0
        if damage == NO_CAPTURE and not packets:
            return InputError("is not a capture", where=self.path, hint="a pcap or pcapng file is needed")
        if damage == VERSION:
            return InputError("another version of pcap than 2", where=self.path, hint="version 2.4 is needed")
        what = DAMAGE.get(damage, "the capture is damaged") if damage else "the capture is cut short"
        return CaptureError(what, where=f"{self.path}: packet {packets + 1}, offset {at}")


@contextmanager
def open_reader(path: str, *, chunk: int = CHUNK) -> Iterator[Reader]:
    """Open a capture file or a pipe; "-" is standard input."""
    with open(os.dup(0) if path == "-" else path, "rb", buffering=0) as file:
        reader = Reader(file, path, chunk)
        try:
            yield reader
        finally:
            reader.ahead.close()

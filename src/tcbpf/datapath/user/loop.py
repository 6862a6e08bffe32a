"""A capture through the runtime's packet loop: the file is read in chunks, millions of packets a second.

Python turns the pages: it reads a chunk, lets C work on it, drains what C put out, and carries the unfinished record
over to the next chunk. What is wrong with a capture is said with the packet and the offset.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from tcbpf.errors import InputError, InternalError
from tcbpf.native.library import function, struct
from tcbpf.net.pcap import Writer, read
from tcbpf.tables.progs import passes

CHUNK = 4 << 20
LARGEST = 64 << 20  # a record that needs more is damage
PCAPNG = 3  # TCBPF_PCAPNG
END, MORE, FULL = range(3)  # enum tcbpf_status; the rest are faults
FIRST_SMALL, SMALL = -1, 32
"""Verdicts counted in the loop's array: from -1 on."""


@dataclass
class Counts:
    """What a run over a capture counted."""

    packets: int = 0
    bytes: int = 0
    kept: int = 0
    verdicts: Counter[int] = field(default_factory=Counter)
    duration_ns: int = 0


class Sink:
    """A buffer that C writes packet records to, and the capture that they go to, begun when there is a first one.

    The buffer is anonymous memory: what is never written to costs nothing.
    """

    def __init__(self, begin: Callable[[], Writer], *, size: int = 8 << 20) -> None:
        self._begin = begin
        self._begun: Writer | None = None
        self._memory = mmap.mmap(-1, size)
        self._view = memoryview(self._memory)
        self._start = ctypes.c_char.from_buffer(self._memory)
        self.struct = struct("tcbpf_sink")()
        self.struct.buf, self.struct.size = ctypes.addressof(self._start), size
        self.struct.format, self.struct.snaplen = PCAPNG, 0x40000

    def drain(self) -> None:
        """Write out what C put in."""
        if self.struct.used:
            self.writer().append(self._view[: self.struct.used], self.struct.packets)
            self.struct.used = self.struct.packets = 0

    def writer(self) -> Writer:
        """Return the capture, begun now when it was not yet."""
        if self._begun is None:
            self._begun = self._begin()
        return self._begun


class Reader:
    """A capture file as struct tcbpf_capture, one chunk at a time."""

    def __init__(self, file: BinaryIO, path: str, *, chunk: int = CHUNK) -> None:
        self.file, self.path = file, path
        self.size = os.fstat(file.fileno()).st_size
        self.buffer = ctypes.create_string_buffer(chunk)
        self.view = memoryview(self.buffer).cast("B")
        self.capture: Any = struct("tcbpf_capture")()
        self.capture.file_size = self.size
        self.fill()
        status = function("tcbpf_capture_open", ctypes.c_uint32, ctypes.c_void_p)(ctypes.addressof(self.capture))
        if status not in (END, MORE):
            self.fail(status)

    def fill(self) -> bool:
        """Move the unread rest to the front and read on; False when nothing more came."""
        capture = self.capture
        rest = self.view[capture.pos : capture.size]
        if len(rest) == len(self.view):
            self._grow(bytes(rest))
        else:
            self.view[: len(rest)] = bytes(rest)
        got = self.file.readinto(self.view[len(rest) :]) or 0  # type: ignore[attr-defined]
        capture.window += capture.pos
        capture.base, capture.pos, capture.size = ctypes.addressof(self.buffer), 0, len(rest) + got
        return got > 0

    def _grow(self, rest: bytes) -> None:
        if len(rest) >= LARGEST:
            raise InputError(f"a record of more than {LARGEST} bytes is damage", where=self.path)
        buffer = ctypes.create_string_buffer(2 * len(rest))
        self.buffer, self.view = buffer, memoryview(buffer).cast("B")
        self.view[: len(rest)] = rest

    def fail(self, status: int) -> None:
        """Raise the error of a status that ends the loop."""
        # The plain reader finds the fault again and has the words for it; the loop only knows that there is one.
        for _ in read(self.path):
            pass
        raise InternalError(f"{self.path}: the packet loop stopped with status {status} on a sound capture")


class Loop:
    """struct tcbpf_loop over a capture; `call` runs it on one chunk and returns its status."""

    def __init__(
        self,
        reader: Reader,
        skb: int,
        call: Callable[[int], int],
        *,
        writes: bool,
        type: str = "sched_cls",
        sinks: Iterable[Sink] = (),
    ) -> None:
        self.reader, self.call, self.sinks = reader, call, tuple(sinks)
        self.struct: Any = struct("tcbpf_loop")()
        self.struct.skb, self.struct.writes = skb, writes
        setattr(self.struct, "in", ctypes.addressof(reader.capture))
        self.struct.keep = sum(1 << i for i in range(SMALL) if passes(type, i + FIRST_SMALL))
        self.struct.keep_others = passes(type, SMALL)

    def run(self, limit: int, turn: Callable[[], None] = lambda: None) -> Counts:
        """Work through the capture, or `limit` packets of it; `turn` is called between chunks."""
        counts, progress, start = Counts(), Progress(self.reader), time.perf_counter_ns()
        while True:
            self.struct.budget = limit - self.struct.packets if limit else 1 << 62
            status = self.call(ctypes.addressof(self.struct))
            for sink in self.sinks:
                sink.drain()
            turn()
            if status == FULL:
                self._count_verdicts(counts)
                continue
            if status != MORE or (limit and self.struct.packets >= limit):
                break
            if not self.reader.fill():
                break
            progress.tell()
        progress.clear()
        self._count_verdicts(counts)
        counts.packets, counts.bytes, counts.kept = self.struct.packets, self.struct.bytes, self.struct.kept
        if status not in (END, MORE):
            self.reader.fail(status)
        counts.duration_ns = time.perf_counter_ns() - start
        return counts

    def _count_verdicts(self, counts: Counts) -> None:
        """Take the loop's counts of verdicts over."""
        for i in range(SMALL):
            if self.struct.small[i]:
                counts.verdicts[i + FIRST_SMALL] += self.struct.small[i]
                self.struct.small[i] = 0
        for row in self.struct.verdicts:
            if row.used:
                counts.verdicts[ctypes.c_int32(row.value).value] += row.count
                row.used = row.count = 0


class Progress:
    """A line on a terminal's standard error for work of more than a second."""

    def __init__(self, reader: Reader) -> None:
        self.reader, self.start, self.told = reader, time.monotonic(), False
        self.on = sys.stderr.isatty() and reader.size > 0

    def tell(self) -> None:
        """Say how much of the file is done."""
        if self.on and time.monotonic() - self.start > 1:
            share = 100 * self.reader.capture.window // self.reader.size
            sys.stderr.write(f"\r{self.reader.path}: {share}%\x1b[K")
            sys.stderr.flush()
            self.told = True

    def clear(self) -> None:
        """Take the line away."""
        if self.told:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

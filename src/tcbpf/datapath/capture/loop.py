"""A capture through the runtime's packet loop: Python turns the pages, C works on them, millions of packets a second."""

from __future__ import annotations

import ctypes
import sys
import time
from collections import Counter
from contextlib import ExitStack

from tcbpf.datapath.capture.reader import (
    END,
    ETHERNET,
    FULL,
    IP_LINKS,
    LINKTYPE,
    MORE,
    STOPPED,
    SWAPPED,
    Buffer,
    Reader,
    open_reader,
)
from tcbpf.datapath.result import PcapStats
from tcbpf.errors import CaptureError, InputError, TimeLimit
from tcbpf.native.library import constant, struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from tcbpf.native.skb import Skb
    from tcbpf.net.pcap import Writer

FORMATS = {"pcap": "PCAP_NS", "pcapng": "PCAPNG"}
FIRST_SMALL, SMALL = -1, 32
"""Verdicts counted in the loop's array: from -1 on."""


class Sink:
    """A buffer that C writes packet records to, and the capture that they go to, begun when there is a first one."""

    def __init__(self, begin: Callable[[], Writer], *, format: str = "pcapng", size: int = 8 << 20) -> None:
        self._begin = begin
        self._begun: Writer | None = None
        self._buffer = Buffer(size)
        self.struct = struct("tcbpf_sink")()
        self.struct.buf, self.struct.size = self._buffer.address, size
        self.struct.format, self.struct.snaplen = constant(FORMATS[format]), 0x40000

    def drain(self) -> None:
        """Write out what C put in."""
        if self.struct.used:
            self.writer().append(self._buffer.view[: self.struct.used], self.struct.packets)
            self.struct.used = self.struct.packets = 0

    def flush(self) -> None:
        """Hand all packets to the host."""
        if self._begun is not None:
            self._begun.flush()

    def writer(self) -> Writer:
        """Return the capture, begun now when it was not yet."""
        if self._begun is None:
            self._begun = self._begin()
        return self._begun


class Loop:
    """struct tcbpf_loop over a capture; `keep` chooses what sinks get.

    `choose` returns for a link type what runs the loop on one chunk and returns its status, and whether that stores to packets.
    """

    def __init__(
        self, reader: Reader, skb: int, choose: Callable[[int], tuple[Callable[[int], int], bool]], sinks: Iterable[Sink] = ()
    ) -> None:
        self.reader, self.choose, self.sinks = reader, choose, tuple(sinks)
        self.struct: Any = struct("tcbpf_loop")()
        self.struct.skb = skb
        setattr(self.struct, "in", ctypes.addressof(reader.capture))
        self.struct.timed = bool(self.sinks)

    def keep(self, sink: Sink, type: str, *, classic: bool = False) -> None:
        """Let a sink have the packets that a program of that type, or a classic filter, lets pass."""
        from tcbpf.tables.progs import passes

        self.struct.out = ctypes.addressof(sink.struct)
        self.struct.keep = sum(1 << i for i in range(SMALL) if passes(type, i + FIRST_SMALL, classic=classic))
        self.struct.keep_others = passes(type, SMALL, classic=classic)

    def run(self, limit: int, flush: Callable[[], None] = lambda: None) -> PcapStats:
        """Work through the capture, or `limit` packets of it; `flush` is called between chunks.

        Raises:  CaptureError, whose `stats` are what came before, for a capture that is cut short or damaged.
        """
        verdicts, progress, start = Counter[int](), Progress(self.reader), time.perf_counter_ns()
        fault: InputError | None = None
        status = LINKTYPE
        while status in (MORE, FULL, LINKTYPE):
            try:
                if status == LINKTYPE:
                    paused = time.perf_counter_ns()
                    call = self._begin_link()
                    start += time.perf_counter_ns() - paused
                    if self.reader.status != MORE:
                        status = self.reader.status
                        break
                elif status == MORE and not self.reader.fill():
                    break
            except CaptureError as error:
                fault = error
                break
            self.struct.budget = limit - self.struct.packets if limit else 1 << 62
            status = call(ctypes.addressof(self.struct))
            for sink in self.sinks:
                sink.drain()
            flush()
            if status == STOPPED:
                raise TimeLimit("the run was stopped")
            if status == FULL:
                self._count_verdicts(verdicts)
            if limit and self.struct.packets >= limit:
                break
            progress.tell()
        progress.clear()
        self._count_verdicts(verdicts)
        done, duration = self.struct, time.perf_counter_ns() - start
        if fault is None and status not in (END, MORE, FULL, LINKTYPE):
            fault = self.reader.fault(status, done.packets)
        for sink in self.sinks:  # of several captures none gets its name when another cannot be written
            sink.flush()
        stats = PcapStats(done.packets, done.bytes, verdicts, duration, done.kept, cut=done.cut)
        if isinstance(fault, CaptureError):
            fault.stats = stats
        if fault is not None:
            raise fault
        return stats

    def _begin_link(self) -> Callable[[int], int]:
        """Go on to the link type of the next packet; without one to the capture's, for `choose` to judge, and C to say why."""
        link = self.reader.next_link()
        if link is None:
            capture = self.reader.capture
            link = int(capture.interfaces[0].linktype) if capture.n_interfaces else ETHERNET
        self.struct.linktype = link
        call, self.struct.writes = self.choose(link)
        return call

    def _count_verdicts(self, verdicts: Counter[int]) -> None:
        """Take the loop's counts of verdicts over."""
        for i in range(SMALL):
            if self.struct.small[i]:
                verdicts[i + FIRST_SMALL] += self.struct.small[i]
                self.struct.small[i] = 0
        for row in self.struct.verdicts:
            if row.used:
                verdicts[ctypes.c_int32(row.value).value] += row.count
                row.used = row.count = 0


def run_capture(
    path: str,
    choose: Callable[[int], tuple[Callable[[int], int], bool]],
    skb: Skb,
    *,
    type: str,
    classic: bool = False,
    out: str | None = None,
    limit: int = 0,
    flush: Callable[[], None] = lambda: None,
) -> PcapStats:
    """Run programs of one type, one for each link type, on a capture's packets; those that pass are written to `out`.

    Raises:  CaptureError, whose `stats` are what came before, for a capture that is cut short or damaged: `out` then holds the
             packets before that; InputError for a file that is none; OSError for a full disk, and then there is no `out`.
    """
    with ExitStack() as stack:
        reader = stack.enter_context(open_reader(path))
        start = skb.clear().address
        if not out:
            return Loop(reader, start, choose).run(limit, flush)
        from tcbpf.net.pcap import Writer

        writer = stack.enter_context(Writer(out, link_type=None))
        sink = Sink(lambda: writer, format=writer.format)

        def begin(link: int) -> tuple[Callable[[int], int], bool]:
            chosen = choose(link)
            sink.struct.interface = writer.interface(link % SWAPPED)
            return chosen

        loop = Loop(reader, start, begin, [sink])
        loop.keep(sink, type, classic=classic)
        try:
            return loop.run(limit, flush)
        except CaptureError:
            writer.close()
            raise


def taken(path: str, link: int) -> None:
    """Return when packets of a link type are what a device hands to a classifier.

    Raises:  InputError for those of which it is not known what comes first in them.
    """
    if link != ETHERNET and link not in IP_LINKS:
        from tcbpf.net.pcap import foreign_link_type

        raise foreign_link_type(path, link % SWAPPED)


class Progress:
    """A line on a terminal's standard error for work of more than a second."""

    def __init__(self, reader: Reader) -> None:
        self.reader, self.start, self.told = reader, time.monotonic(), False
        self.on = sys.stderr.isatty() and reader.is_file

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

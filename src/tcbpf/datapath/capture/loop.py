"""A capture through the runtime's packet loop: Python turns the pages, C works on them, millions of packets a second."""

from __future__ import annotations

import ctypes
import sys
import time
from collections import Counter
from contextlib import ExitStack

from tcbpf.datapath.capture.reader import ETHERNET, Buffer, Reader, open_reader
from tcbpf.datapath.result import PcapStats
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
    """struct tcbpf_loop over a capture; `call` runs it on one chunk and returns its status, `keep` chooses what sinks get."""

    def __init__(
        self,
        reader: Reader,
        skb: int,
        call: Callable[[int], int],
        *,
        writes: bool,
        link_type: int = ETHERNET,
        sinks: Iterable[Sink] = (),
    ) -> None:
        self.reader, self.call, self.sinks = reader, call, tuple(sinks)
        self.struct: Any = struct("tcbpf_loop")()
        self.struct.skb, self.struct.writes = skb, writes
        setattr(self.struct, "in", ctypes.addressof(reader.capture))
        self.struct.timed, self.struct.linktype = bool(self.sinks), link_type

    def keep(self, sink: Sink, type: str, *, classic: bool = False) -> None:
        """Let a sink have the packets that a program of that type, or a classic filter, lets pass."""
        from tcbpf.tables.progs import passes

        self.struct.out = ctypes.addressof(sink.struct)
        self.struct.keep = sum(1 << i for i in range(SMALL) if passes(type, i + FIRST_SMALL, classic=classic))
        self.struct.keep_others = passes(type, SMALL, classic=classic)

    def run(self, limit: int, flush: Callable[[], None] = lambda: None) -> PcapStats:
        """Work through the capture, or `limit` packets of it; `flush` is called between chunks."""
        verdicts, progress, start = Counter[int](), Progress(self.reader), time.perf_counter_ns()
        while True:
            self.struct.budget = limit - self.struct.packets if limit else 1 << 62
            status = self.call(ctypes.addressof(self.struct))
            for sink in self.sinks:
                sink.drain()
            flush()
            if status == constant("FULL"):
                self._count_verdicts(verdicts)
                continue
            if status != constant("MORE") or (limit and self.struct.packets >= limit):
                break
            if not self.reader.fill():
                break
            progress.tell()
        progress.clear()
        self._count_verdicts(verdicts)
        if status not in (constant("END"), constant("MORE")):
            self.reader.fail(status, self.struct.linktype)
        for sink in self.sinks:  # of several captures none gets its name when another cannot be written
            sink.flush()
        done, duration = self.struct, time.perf_counter_ns() - start
        return PcapStats(done.packets, done.bytes, verdicts, duration, done.kept)

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
    call: Callable[[int], int],
    skb: Skb,
    *,
    type: str,
    writes: bool,
    classic: bool = False,
    out: str | None = None,
    limit: int = 0,
    link_type: int = ETHERNET,
    flush: Callable[[], None] = lambda: None,
) -> PcapStats:
    """Run one program on every packet of a capture; those that pass are written to `out`, which has its name once it is whole.

    A packet of another link type than Ethernet has no protocol: only its bytes and its lengths.

    Raises:  InputError for a damaged capture, naming packet and offset; OSError for a full disk.
    """
    with ExitStack() as stack:
        reader = stack.enter_context(open_reader(path))
        if not out:
            return Loop(reader, skb.clear().address, call, writes=writes, link_type=link_type).run(limit, flush)
        from tcbpf.net.pcap import Writer

        writer = stack.enter_context(Writer(out, link_type=link_type))
        sink = Sink(lambda: writer, format=writer.format)
        loop = Loop(reader, skb.clear().address, call, writes=writes, link_type=link_type, sinks=[sink])
        loop.keep(sink, type, classic=classic)
        return loop.run(limit, flush)


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

"""Reading a ring buffer or a perf event array of the live kernel: the memory that it shares, and perf_event_open(2).

Source:  kernel/bpf/ringbuf.c; include/uapi/linux/perf_event.h, perf_event_open(2).
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import struct
from contextlib import suppress

from tcbpf.datapath.kernel import syscall
from tcbpf.errors import SysError
from tcbpf.uapi import bpf as uapi

PAGE = mmap.PAGESIZE
PERF_PAGES = 16  # of records, for each CPU: a power of two
_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241, "riscv64": 241, "loongarch64": 241, "ppc64le": 319, "s390x": 331}
_SOFTWARE, _BPF_OUTPUT, _SAMPLE_RAW, _CLOEXEC = 1, 10, 1 << 10, 8
_LOST, _SAMPLE = 2, 9  # PERF_RECORD_*
_HEAD, _TAIL = 1024, 1032  # of struct perf_event_mmap_page
_libc = ctypes.CDLL(None, use_errno=True)


class RingRecords:
    """A ring buffer's records: the consumer's page is ours to write, the producer's and the data (twice over) are not."""

    lost = 0  # a full ring tells its program, and nobody else

    def __init__(self, fd: int, size: int) -> None:
        self._mask = size - 1
        self._consumer = mmap.mmap(fd, PAGE)
        self._ring = mmap.mmap(fd, PAGE + 2 * size, prot=mmap.PROT_READ, offset=PAGE)

    def take(self) -> bytes | None:
        """Return the next record; None when the ring is empty or the record is unfinished."""
        at = _u64(self._consumer, 0)
        while at < _u64(self._ring, 0):
            start = PAGE + (at & self._mask)
            marked = int.from_bytes(self._ring[start : start + 4], "little")
            if marked & uapi.BPF_RINGBUF_BUSY_BIT:
                break
            size = marked & ~uapi.BPF_RINGBUF_DISCARD_BIT
            record = self._ring[start + uapi.BPF_RINGBUF_HDR_SZ : start + uapi.BPF_RINGBUF_HDR_SZ + size]
            at += (size + uapi.BPF_RINGBUF_HDR_SZ + 7) // 8 * 8
            self._consumer[:8] = at.to_bytes(8, "little")
            if not marked & uapi.BPF_RINGBUF_DISCARD_BIT:
                return record
        return None

    def close(self) -> None:
        """Unmap."""
        self._consumer.close()
        self._ring.close()


class PerfRecords:
    """A perf event array's records: an event on every CPU, its ring mapped, in the slot of the CPU's number."""

    def __init__(self, fd: int, slots: int) -> None:
        self.lost, self._map = 0, fd
        self._events: dict[int, int] = {}
        self._rings: list[mmap.mmap] = []
        try:
            for cpu in sorted(_online() & set(range(slots))):
                event = self._events[cpu] = _open_event(cpu)
                self._rings.append(mmap.mmap(event, (1 + PERF_PAGES) * PAGE))
                syscall.map_update(fd, cpu.to_bytes(4, "little"), event.to_bytes(4, "little"), 0)
        except BaseException:
            self.close()
            raise

    def take(self) -> bytes | None:
        """Return the next record of the first CPU that has one."""
        for ring in self._rings:
            while (at := _u64(ring, _TAIL)) < _u64(ring, _HEAD):
                kind, _, size = struct.unpack("=IHH", _piece(ring, at, 8))
                body = _piece(ring, at + 8, size - 8)
                ring[_TAIL : _TAIL + 8] = (at + size).to_bytes(8, "little")
                if kind == _LOST:
                    self.lost += int.from_bytes(body[8:16], "little")
                elif kind == _SAMPLE:
                    return body[4 : 4 + int.from_bytes(body[:4], "little")]
        return None

    def close(self) -> None:
        """Take the events out of the map and close them."""
        for ring in self._rings:
            ring.close()
        for cpu, event in self._events.items():
            with suppress(SysError):
                syscall.map_delete(self._map, cpu.to_bytes(4, "little"))
            os.close(event)
        self._events.clear()
        self._rings.clear()


def _u64(memory: mmap.mmap, at: int) -> int:
    return int.from_bytes(memory[at : at + 8], "little")


def _piece(ring: mmap.mmap, at: int, size: int) -> bytes:
    """Return bytes of the ring that follows the first page, which may go round its end."""
    data = PERF_PAGES * PAGE
    place = at % data
    first = ring[PAGE + place : PAGE + min(place + size, data)]
    return first + ring[PAGE : PAGE + size - len(first)]


def _online() -> set[int]:
    """Return the CPUs that are online."""
    with open("/sys/devices/system/cpu/online", encoding="ascii") as file:
        spans = [span.partition("-") for span in file.read().strip().split(",")]
    return {cpu for first, _, last in spans for cpu in range(int(first), int(last or first) + 1)}


def _open_event(cpu: int) -> int:
    """Return an fd of an event that takes what programs on one CPU put out."""
    attr = ctypes.create_string_buffer(128)
    struct.pack_into("=IIQQQQQI", attr, 0, _SOFTWARE, len(attr), _BPF_OUTPUT, 1, _SAMPLE_RAW, 0, 0, 1)
    number = _PERF_EVENT_OPEN.get(platform.machine())
    fd = _libc.syscall(number, attr, -1, cpu, -1, _CLOEXEC) if number else -1
    if fd < 0:
        raise SysError(ctypes.get_errno() if number else errno.ENOSYS, f"open a perf event on CPU {cpu}")
    return int(fd)

"""The execution context of a running program: clock, CPU, random numbers, trace, callbacks (struct tcbpf_env)."""

from __future__ import annotations

import ctypes
import os
import struct as packing
import time
import weakref

from tcbpf.native.library import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    Host = Callable[[int, int, int], int]
    """Answers C: (TCBPF_HOST_*, address of the argument, number) -> address, 0 for none."""

TRACE_SIZE = 1 << 18
_CLOCK_MONOTONIC_COARSE = 6

_HOST = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint64)
_RECORD = packing.Struct("=QII")
_live: weakref.WeakSet[Env] = weakref.WeakSet()


class Trace:
    """One line that a program printed. Units: ns since boot, CLOCK_MONOTONIC (or the virtual clock)."""

    def __init__(self, ns: int, cpu: int, text: str) -> None:
        self.ns, self.cpu, self.text = ns, cpu, text


class Env:
    """Execution context of one thread. Not thread-safe.

    `seed` makes bpf_get_prandom_u32() repeatable; `clock` (nanoseconds, not negative) replaces the host's clocks until it is
    changed; `host` answers what C cannot.
    """

    def __init__(self, *, cpu: int = 0, seed: int | None = None, clock: int | None = None, host: Host | None = None) -> None:
        self.struct: Any = struct("tcbpf_env")()
        self._text = ctypes.create_string_buffer(TRACE_SIZE)
        self._trace: Any = struct("tcbpf_trace")()
        self._trace.text, self._trace.size = ctypes.addressof(self._text), TRACE_SIZE
        self.struct.trace = ctypes.addressof(self._trace)
        self.struct.cpu = cpu
        self.struct.owner = _owner()
        self.struct.clock_gettime = _clock_gettime()
        self.struct.tick = int(time.clock_getres(_CLOCK_MONOTONIC_COARSE) * 1e9)
        self.seed(int.from_bytes(os.urandom(8), "little") if seed is None else seed)
        self.clock = clock
        self._host: Any = None
        self.host = host
        _live.add(self)

    @property
    def address(self) -> int:
        """Address of the struct."""
        return ctypes.addressof(self.struct)

    @property
    def clock(self) -> int | None:
        """The virtual clock's now in nanoseconds, or None for the host's clocks."""
        now = ctypes.c_int64(self.struct.clock).value
        return None if now < 0 else now

    @clock.setter
    def clock(self, now: int | None) -> None:
        self.struct.clock = (1 << 64) - 1 if now is None else now

    @property
    def host(self) -> Host | None:
        """The callback that C asks for what it cannot do itself."""
        return self._answer

    @host.setter
    def host(self, host: Host | None) -> None:
        self._answer = host

        def ask(_env: int | None, what: int, argument: int | None, number: int) -> int:
            return host(what, argument or 0, number) if host else 0

        self._host = _HOST(ask)
        self.struct.host = (ctypes.cast(self._host, ctypes.c_void_p).value or 0) if host else 0

    def seed(self, seed: int) -> None:
        """Start the random numbers over (splitmix64 fills the generator's state)."""
        state = seed & 0xFFFFFFFFFFFFFFFF
        for i in range(4):
            state = (state + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
            mixed = ((state ^ state >> 30) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
            mixed = ((mixed ^ mixed >> 27) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
            self.struct.random[i] = mixed ^ mixed >> 31

    def trace(self) -> Iterator[Trace]:
        """Drain the lines that bpf_trace_printk() wrote since the last call."""
        raw = ctypes.string_at(self._trace.text, self._trace.used)
        self._trace.used = 0
        at = 0
        while at < len(raw):
            ns, cpu, size = _RECORD.unpack_from(raw, at)
            at += _RECORD.size
            yield Trace(ns, cpu, raw[at : at + size].decode(errors="replace"))
            at += (size + 7) // 8 * 8

    @property
    def lost(self) -> int:
        """Lines dropped because the buffer was full."""
        return int(self._trace.lost)


def _owner() -> int:
    """Return the owner word of a map lock: this process's id, and its pid namespace in the upper half."""
    try:
        namespace = os.stat("/proc/self/ns/pid").st_ino & 0x7FFFFFFF
    except OSError:
        namespace = 0
    return namespace << 32 | os.getpid()


_libc = ctypes.CDLL(None)


def current_cpu() -> int:
    """Return the CPU that this thread runs on now."""
    return max(0, int(_libc.sched_getcpu()))


def _clock_gettime() -> int:
    return ctypes.cast(_libc.clock_gettime, ctypes.c_void_p).value or 0


def _forked() -> None:
    for env in _live:
        env.struct.owner = _owner()


os.register_at_fork(after_in_child=_forked)

"""Per-thread services for running programs: clock, CPU, random numbers, and C's callbacks into Python.

Tail calls and maps of maps name objects by id. The first time that machine code meets an id, which another process
may just have put there, it asks here: the object is opened, a program verified and compiled, and its address stays in a
table from then on.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from tcbpf.datapath.user.trace import Trace
from tcbpf.errors import SysError
from tcbpf.native.env import current_cpu
from tcbpf.native.library import constant
from tcbpf.native.runtime import Env, Skb
from tcbpf.shared import Shared


class Closeable(Protocol):
    """An open object."""

    def close(self) -> None: ...


Opener = Callable[[int], tuple[int, Closeable]]
"""The number of an object → the address of its C struct, and the object that holds it."""


class Table:
    """Addresses by id, in memory that C reads. A grown table is new memory; the old stays for threads still reading it."""

    def __init__(self) -> None:
        self.arrays: list[Any] = [(ctypes.c_uint64 * 256)()]

    def __setitem__(self, id: int, address: int) -> None:
        old = self.arrays[-1]
        if id >= len(old):
            grown = (ctypes.c_uint64 * max(2 * len(old), id + 1))()
            grown[: len(old)] = old[:]
            self.arrays.append(grown)
        self.arrays[-1][id] = address

    @property
    def address(self) -> int:
        """The address of the newest array."""
        return ctypes.addressof(self.arrays[-1])

    def __len__(self) -> int:
        return len(self.arrays[-1])


class Runtime(Shared):
    """The execution contexts of one datapath's threads, and the objects that running programs reached by id."""

    def __init__(self, home: Path, openers: Mapping[int, Opener]) -> None:
        super().__init__()
        self._home, self._openers, self._local, self._opening = home, openers, threading.local(), threading.RLock()
        self._table = {what: Table() for what in openers}
        self._held: list[Closeable] = []
        self._failure: Exception | None = None

    @cached_property
    def trace(self) -> Trace:
        """The file that bpf_trace_printk() writes to."""
        return Trace(self._home / "trace")

    @cached_property
    def task(self) -> str:
        """The name of this process, as trace lines have it."""
        return Path("/proc/self/comm").read_text().rstrip("\n")

    def env(self) -> Env:
        """Return this thread's environment, on the CPU that it runs on now."""
        env: Env | None = getattr(self._local, "env", None)
        if env is None:
            env = self._local.env = Env()
            env.host = lambda what, argument, number, env=env: self._answer(env, what, number)
        env.struct.cpu = current_cpu()
        self._point(env)
        return env

    def skb(self) -> Skb:
        """Return this thread's packet buffer."""
        skb: Skb | None = getattr(self._local, "skb", None)
        if skb is None:
            skb = self._local.skb = Skb()
        return skb

    def flush(self, env: Env) -> None:
        """Write out the trace lines of a run; raise the exception of a callback that C could not carry."""
        if env.struct.trace and (lines := list(env.trace())):
            self.trace.write(
                [
                    f"{self.task:>16}-{os.getpid():<7} [{line.cpu:03d}] ..... {line.ns // 1_000_000_000:5d}."
                    f"{line.ns // 1000 % 1_000_000:06d}: bpf_trace_printk: {line.text.rstrip(chr(10))}"
                    for line in lines
                ]
            )
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _point(self, env: Env) -> None:
        progs, maps = self._table[constant("HOST_PROG")], self._table[constant("HOST_MAP")]
        env.struct.progs, env.struct.n_progs = progs.address, len(progs)
        env.struct.maps, env.struct.n_maps = maps.address, len(maps)

    def _answer(self, env: Env, what: int, number: int) -> int:
        """Answer what C asks: an address, 0 for none. An exception must not cross C: `flush` raises it."""
        try:
            if what in (constant("HOST_TRACE"), constant("HOST_OUTPUT")):
                self.flush(env)
                return 0
            with self._opening:
                address, holder = self._openers[what](number)
                self._held.append(holder)
                self._table[what][number] = address
                self._point(env)
            return address
        except SysError as error:
            if error.errno != errno.ENOENT:  # gone since it was put there: an empty slot
                self._failure = error
        except Exception as error:
            self._failure = error
        return 0

    def refusal(self) -> SysError:
        """Return the error of a run after `close`."""
        return SysError(errno.EBADF, "run a program", "its datapath was closed")

    def drop(self) -> None:
        """Let go of the objects that were reached by id."""
        for found in self._held:
            found.close()
        self._held.clear()

"""A network namespace of a test's own, made without ip(8)."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

CLONE_NEWNET = 0x40000000
T = TypeVar("T")
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def netns() -> Iterator[str]:
    """Make a namespace and yield a path that names it in this process; it goes with its last holder."""
    held: list[int] = []

    def make() -> None:
        if _libc.unshare(CLONE_NEWNET) == 0:
            held.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY))
            _quiet()

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if not held:
        raise OSError(ctypes.get_errno(), "unshare a network namespace")
    try:
        yield f"/proc/self/fd/{held[0]}"
    finally:
        os.close(held[0])


def _quiet() -> None:
    """Keep the calling thread's namespace from sending of its own (neighbour discovery), so that counters stay put."""
    for which in ("all", "default"):
        path = f"/proc/sys/net/ipv6/conf/{which}/disable_ipv6"
        if os.path.exists(path):
            with open(path, "w", encoding="ascii") as file:
                file.write("1")


def within(path: str, call: Callable[[], T]) -> T:
    """Return call(), made by a thread that has entered the namespace."""
    done: list[T] = []

    def run() -> None:
        fd = os.open(path, os.O_RDONLY)
        assert _libc.setns(fd, CLONE_NEWNET) == 0
        os.close(fd)
        done.append(call())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return done[0]


def enter(path: str) -> None:
    """Enter a namespace, in a child process that is about to become another program."""
    fd = os.open(path, os.O_RDONLY)
    if _libc.setns(fd, CLONE_NEWNET) != 0:
        os._exit(126)

"""trace_pipe: the lines of bpf_trace_printk(); each is read once, by the first process that asks.

Lines wait in a file of the home. It is bounded: when nobody reads, the oldest half goes.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

LARGEST = 4 << 20
POLL_SECONDS = 0.05


class Trace:
    """The lines of one home."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, lines: list[str]) -> None:
        """Add lines at the end."""
        text = "".join(line + "\n" for line in lines).encode()
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_size > LARGEST:
                kept = os.pread(fd, LARGEST // 2, os.fstat(fd).st_size - LARGEST // 2)
                os.ftruncate(fd, 0)
                os.write(fd, kept[kept.find(b"\n") + 1 :])
            os.write(fd, text)
        finally:
            os.close(fd)

    def take(self) -> list[str]:
        """Take all lines out."""
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return []
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            text = os.read(fd, os.fstat(fd).st_size)
            os.ftruncate(fd, 0)
        finally:
            os.close(fd)
        return text.decode(errors="replace").splitlines()

    def pipe(self) -> Iterator[str]:
        """Yield lines as they come, for ever."""
        while True:
            yield from self.take()
            time.sleep(POLL_SECONDS)

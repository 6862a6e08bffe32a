"""The directory of a datapath without a home: in memory where there is such a file system, gone with the process.

It is made when it is first needed and holds a locked file; directories whose lock is free belong to processes that
died, and the next process that makes one removes them.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import weakref
from functools import cached_property
from pathlib import Path

PREFIX = "tcbpf-"
ENOUGH = 1 << 30  # bytes: containers are often given 64 MiB of /dev/shm


def base() -> Path:
    """Return the directory to make them in."""
    memory = Path("/dev/shm")
    if os.access(memory, os.W_OK | os.X_OK):
        room = os.statvfs(memory)
        if room.f_bavail * room.f_frsize >= ENOUGH:
            return memory
    return Path(tempfile.gettempdir())


class TempHome:
    """One such directory."""

    def __init__(self) -> None:
        self._made = False

    @cached_property
    def path(self) -> Path:
        """Its path; the directory is made now."""
        sweep(base())
        new = Path(tempfile.mkdtemp(prefix="." + PREFIX, dir=base()))
        fd = os.open(new / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        made = new.rename(new.with_name(new.name[1:]))  # only now is it one that a sweep looks at
        self._finalizer = weakref.finalize(self, _remove, made, fd, os.getpid())
        self._made = True
        return made

    def remove(self) -> None:
        """Remove it and all in it."""
        if self._made:
            self._finalizer()


def _remove(path: Path, fd: int, owner: int) -> None:
    if os.getpid() == owner:  # a forked child must not take its parent's away
        shutil.rmtree(path, ignore_errors=True)
    os.close(fd)


def sweep(directory: Path) -> None:
    """Remove the directories of this user whose processes died."""
    for entry in os.scandir(directory):
        if not entry.name.startswith(PREFIX) or not entry.is_dir(follow_symlinks=False):
            continue
        try:
            if entry.stat(follow_symlinks=False).st_uid != os.getuid():
                continue
            fd = os.open(f"{entry.path}/lock", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue  # not ours, or being made just now
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(entry.path, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(fd)

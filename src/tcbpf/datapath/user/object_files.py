"""The files of maps and programs: one file an object, which lives while something holds it.

Of a kind ("maps", "progs") the file of object N is KIND/N in the home. It is held by

- a process: every descriptor made here has the file's shared lock, which goes with the last copy of the descriptor,
  passed on or inherited, and with a process that dies;
- a pin: a second hard link;
- a program that names the map, a filter or action that names the program, a map that names the map or program.

The next process to open the home deletes the files that nothing holds.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from tcbpf.errors import SysError


def link(fd: int, path: Path) -> None:
    """Give an open file, which may have no name yet, a name."""
    # Without a directory descriptor Python calls link(2), which would link the symbolic link; the path is absolute anyway.
    os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd, follow_symlinks=True)


class ObjectFiles:
    """The objects of one kind in a home."""

    def __init__(self, directory: Path, word: str) -> None:
        self.directory, self.word = directory, word

    def create(self, size: int = 0) -> int:
        """Return a descriptor of a new file that has no name yet; it is gone when it is closed before it has one."""
        self.directory.mkdir(parents=True, exist_ok=True)
        try:
            return os.open(self.directory, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR):
                raise SysError(error.errno or errno.EIO, f"create a {self.word} in {self.directory}") from None
        raise SysError(errno.EOPNOTSUPP, f"create a {self.word}", f"{self.directory} is on a file system without O_TMPFILE")

    def publish(self, fd: int, id: int) -> None:
        """Give the finished file its name, held by this descriptor."""
        fcntl.flock(fd, fcntl.LOCK_SH)
        link(fd, self.directory / str(id))

    def open(self, id: int, *, hold: bool = True) -> int:
        """Return a descriptor of object `id`, which holds it, or does not where something else is known to.

        Raises:  SysError with ENOENT.
        """
        try:
            fd = os.open(self.directory / str(id), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            raise SysError(errno.ENOENT, f"{self.word} {id}") from None
        except OSError as error:
            raise SysError(error.errno or errno.EIO, f"{self.word} {id}") from None
        return self.hold(fd) if hold else fd

    def hold(self, fd: int) -> int:
        """Take the lock that keeps an object; a file that was swept meanwhile is not there."""
        fcntl.flock(fd, fcntl.LOCK_SH)
        if os.fstat(fd).st_nlink == 0:
            os.close(fd)
            raise SysError(errno.ENOENT, self.word)
        return fd

    def ids(self) -> list[int]:
        """Return the numbers of all objects."""
        try:
            return sorted(int(name) for name in os.listdir(self.directory) if name.isdigit())
        except FileNotFoundError:
            return []

    @contextlib.contextmanager
    def unheld(self, id: int) -> Iterator[int]:
        """Yield a descriptor of object `id` that no process holds and nothing pins, or -1; none can come to hold it
        inside.
        """
        fd = -1
        with contextlib.suppress(OSError):
            fd = os.open(self.directory / str(id), os.O_RDWR | os.O_CLOEXEC)
        try:
            if fd >= 0 and os.fstat(fd).st_nlink > 1:
                yield -1
                return
            try:
                if fd >= 0:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield -1
                return
            yield fd
        finally:
            if fd >= 0:
                os.close(fd)

    def sweep(self, referenced: Callable[[], set[int]]) -> int:
        """Remove the objects that nothing holds; `referenced` tells which others name. Return how many went.

        The caller holds the right to write the State, so that no reference is made meanwhile.
        """
        gone, named = 0, None
        for id in self.ids():
            with self.unheld(id) as fd:
                if fd < 0:
                    continue
                named = referenced() if named is None else named
                if id not in named:
                    os.unlink(self.directory / str(id))
                    gone += 1
        return gone

"""Atomic file creation: a file gets its name only when it is complete, so no reader ever sees half of one.

Until then the file has no name (O_TMPFILE), or a hidden one in the same directory where the file system lacks that. Devices
and pipes are written to directly.
"""

from __future__ import annotations

import errno
import io
import os
import secrets
from pathlib import Path

BUFFERED = 1 << 20


class NewFile:
    """A file being written: `keep` publishes it under its name, replacing an older file; `discard` drops it.

    Raises:  OSError (ENOSPC, EFBIG ...) with the file's name, after discarding the file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._hidden = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}")
        try:
            self._file: io.BufferedWriter | None = io.BufferedWriter(io.FileIO(self._create(), "wb"), BUFFERED)
        except OSError as error:
            raise OSError(error.errno, error.strerror, os.fspath(self.path)) from None

    def _create(self) -> int:
        self._named = self._written = self.path.exists() and not self.path.is_file()
        if self._written:
            return os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            fd = os.open(self.path.parent, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o666)
            self._named = False
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
                raise
            fd = os.open(self._hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            self._named = True
        return fd

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes."""
        if self._file is None:
            raise ValueError(f"{self.path} is closed")
        try:
            self._file.write(data)
        except OSError as error:
            self._fail(error)

    def flush(self) -> None:
        """Write out all buffered bytes, so that a lack of space shows here and not in `keep`."""
        try:
            if self._file is not None:
                self._file.flush()
        except OSError as error:
            self._fail(error)

    def keep(self) -> None:
        """Publish the file under its name; calling it again does nothing."""
        self.flush()
        if (file := self._file) is None:
            return
        try:
            if not self._named:
                # Without a directory descriptor Python calls link(2), which does not follow the link in /proc.
                os.link(f"/proc/self/fd/{file.fileno()}", self._hidden, src_dir_fd=file.fileno(), follow_symlinks=True)
                self._named = True
            if not self._written:
                os.replace(self._hidden, self.path)
        except OSError as error:
            self._fail(error)
        self._file = None
        file.close()

    def discard(self) -> None:
        """Drop the file; nothing of it remains."""
        file, self._file = self._file, None
        if file is None:
            return
        try:
            file.close()
        except OSError:
            file.raw.close()
        if self._named and not self._written:
            self._hidden.unlink(missing_ok=True)

    def _fail(self, error: OSError) -> None:
        self.discard()
        raise OSError(error.errno, error.strerror, os.fspath(self.path)) from None


def write(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a whole file atomically.

    Raises:  OSError with the file's name.
    """
    file = NewFile(path)
    file.write(data)
    file.keep()

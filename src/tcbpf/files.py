"""A file that has its name only once it is whole: until then nothing of it can be seen, whatever happens to the writer.

Where the file system can (O_TMPFILE) the file has no name at all before; elsewhere it has a hidden one beside its
place. A device or a pipe is written to as it is.
"""

from __future__ import annotations

import errno
import io
import os
import secrets
from pathlib import Path

BUFFERED = 1 << 20


class NewFile:
    """A file being written. `keep` gives it the name, in the place of an older one; `discard` leaves nothing.

    Raises:  OSError (ENOSPC, EFBIG ...) with the name that was asked for; the file is then discarded.
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
        """Hand all bytes to the host: what can fail for want of room fails here."""
        try:
            if self._file is not None:
                self._file.flush()
        except OSError as error:
            self._fail(error)

    def keep(self) -> None:
        """Give the file its name; a second time does nothing."""
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
        """Leave nothing behind."""
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
    """Write a whole file, or leave what was there.

    Raises:  OSError with the file's name.
    """
    file = NewFile(path)
    file.write(data)
    file.keep()

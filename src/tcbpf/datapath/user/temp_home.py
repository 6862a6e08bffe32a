"""The directory of a datapath without a home: in memory where there is such a file system, gone with the process.

It is made when it is first needed and holds a locked file; directories whose lock is free belong to processes that
died, and the next process that makes one removes them. SIGTERM and SIGHUP, where the program has not asked for them, remove
them before they end the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import tempfile
import threading
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


_LIVE: weakref.WeakSet[TempHome] = weakref.WeakSet()
_ENDING = threading.Lock()
ENDS = (signal.SIGTERM, signal.SIGHUP)


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
        _LIVE.add(self)
        remove_at_signals()
        return made

    def remove(self) -> None:
        """Remove it and all in it."""
        if self._made:
            self._finalizer()


def remove_at_signals() -> None:
    """Remove the directories before a signal that would end this process does, also while a program runs in native code.

    Python calls its handlers between two instructions of its own and on one thread: hence a thread that reads of signals, too.
    """
    asked = [number for number in ENDS if signal.getsignal(number) is signal.SIG_DFL]
    if not asked or threading.current_thread() is not threading.main_thread():
        return
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    if before >= 0:  # an event loop's
        signal.set_wakeup_fd(before)
    os.register_at_fork(after_in_child=_forget)
    for number in asked:
        signal.signal(number, _end)
    threading.Thread(target=_watch, args=(reader,), daemon=True).start()


def _watch(reader: int) -> None:
    while number := os.read(reader, 1):
        if signal.getsignal(number[0]) is _end:  # the program has not asked for it since
            _end(number[0], None)


def _forget() -> None:
    """Leave the pipe to the parent, which a child's signals do not concern."""
    with contextlib.suppress(ValueError):  # forked on another thread
        signal.set_wakeup_fd(-1)


def _end(number: int, _: object) -> None:
    """Remove the directories and end as the signal would have."""
    _ENDING.acquire()  # for good
    for home in list(_LIVE):
        home.remove()
    ctypes.CDLL(None).signal(number, ctypes.c_void_p(0))  # signal.signal() works on the main thread alone
    os.kill(os.getpid(), number)


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

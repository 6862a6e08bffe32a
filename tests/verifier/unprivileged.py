"""The live kernel as a user without privilege, or with CAP_BPF alone, sees it: asked in a child process."""

from __future__ import annotations

import ctypes
import fcntl
import multiprocessing
import os
import struct
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tcbpf.errors import NotSupported

SWITCH = Path("/proc/sys/kernel/unprivileged_bpf_disabled")
CAP_NET_ADMIN, CAP_BPF = 12, 39
KEPT = {"none": 0, "bpf": 1 << CAP_BPF | 1 << CAP_NET_ADMIN}
_VERSION_3 = 0x20080522
T = TypeVar("T")
R = TypeVar("R")


@contextmanager
def allowed() -> Iterator[None]:
    """Let users without privilege load programs for a while; one process at a time, and as before afterwards.

    Raises:  NotSupported where the kernel or the user does not allow that.
    """
    with open(Path(tempfile.gettempdir()) / "tcbpf-unprivileged.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            before = SWITCH.read_text()
            SWITCH.write_text("0")
        except OSError as error:
            raise NotSupported(f"{SWITCH}: {error.strerror}") from None
        try:
            yield
        finally:
            SWITCH.write_text(before)


def drop(privilege: str) -> None:
    """Keep only the capabilities of a privilege, "none" or "bpf"."""
    keep = KEPT[privilege]
    head = struct.pack("<Ii", _VERSION_3, 0)
    low, high = keep & 0xFFFFFFFF, keep >> 32
    data = struct.pack("<6I", low, low, 0, high, high, 0)
    if ctypes.CDLL(None, use_errno=True).capset(head, data):
        raise OSError(ctypes.get_errno(), "capset")


def ask(privilege: str, question: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Return question(item) of every item, asked with no more than a privilege.

    Raises:  NotSupported where the kernel does not allow that.
    """

    def child(end: object) -> None:
        drop(privilege)
        end.send([question(item) for item in items])  # type: ignore[attr-defined]

    context = multiprocessing.get_context("fork")
    with allowed():
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=child, args=(theirs,))
        process.start()
        theirs.close()
        try:
            return ours.recv()  # type: ignore[no-any-return]
        except EOFError:
            raise RuntimeError(f"the child without privilege died: {os.strerror(process.exitcode or 0)}") from None
        finally:
            process.join()

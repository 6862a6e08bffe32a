"""The kernel's trace_pipe, where bpf_trace_printk() writes."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from typing import TextIO

from tcbpf.errors import SysError

_PLACES = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing", "/tracing", "/trace")
_FSOPEN, _FSCONFIG, _FSMOUNT, _CMD_CREATE = 430, 431, 432, 6  # the same numbers on every machine
_libc = ctypes.CDLL(None, use_errno=True)


def trace_pipe() -> Iterator[str]:
    """Return the lines as they come; the next one blocks until then, and is taken from all other readers.

    Raises:  SysError when there is no tracefs, or no permission.
    """
    return _lines(os.fdopen(_open_pipe(), encoding="utf-8", errors="replace"))


def _lines(file: TextIO) -> Iterator[str]:
    with file:
        for line in file:
            yield line.rstrip("\n")


def _open_pipe() -> int:
    """Return an fd of trace_pipe, of the tracefs that is mounted, or of one that is mounted nowhere."""
    place = find_tracefs()
    try:
        if place:
            return os.open(f"{place}/trace_pipe", os.O_RDONLY | os.O_CLOEXEC)
        mount = _detached()
        try:
            return os.open("trace_pipe", os.O_RDONLY | os.O_CLOEXEC, dir_fd=mount)
        finally:
            os.close(mount)
    except OSError as error:
        hint = "run as root" if error.errno in (errno.EPERM, errno.EACCES) else ""
        raise SysError(error.errno or 0, "open trace_pipe", hint) from None


def find_tracefs() -> str:
    """Return where tracefs is mounted, or ""."""
    with open("/proc/mounts", encoding="utf-8", errors="replace") as file:
        mounted = [fields[1] for fields in map(str.split, file) if len(fields) > 2 and fields[2] == "tracefs"]
    return next((place for place in (*_PLACES, *mounted) if os.path.exists(f"{place}/trace_pipe")), "")


def _detached() -> int:
    """Return an fd of a tracefs that no path leads to: it goes when it is closed.

    Raises:  OSError.
    """
    context = _libc.syscall(_FSOPEN, b"tracefs", 1)
    if context < 0:
        raise OSError(ctypes.get_errno(), "fsopen")
    try:
        if _libc.syscall(_FSCONFIG, context, _CMD_CREATE, None, None, 0) < 0:
            raise OSError(ctypes.get_errno(), "fsconfig")
        mount = _libc.syscall(_FSMOUNT, context, 1, 0)
        if mount < 0:
            raise OSError(ctypes.get_errno(), "fsmount")
        return int(mount)
    finally:
        os.close(context)

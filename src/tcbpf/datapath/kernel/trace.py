"""The kernel's trace_pipe: what bpf_trace_printk() writes."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from tcbpf.errors import SysError

_PLACES = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing", "/tracing", "/trace")


def find_tracefs() -> str:
    """Return where tracefs is mounted.

    Raises:  SysError with ENOENT when it is nowhere.
    """
    with open("/proc/mounts", encoding="utf-8", errors="replace") as file:
        mounted = [fields[1] for fields in map(str.split, file) if len(fields) > 2 and fields[2] == "tracefs"]
    for place in (*_PLACES, *mounted):
        if os.path.exists(f"{place}/trace_pipe"):
            return place
    raise SysError(errno.ENOENT, "find tracefs", "mount it: mount -t tracefs tracefs /sys/kernel/tracing")


def trace_pipe() -> Iterator[str]:
    """Yield lines as they come; blocks between them, and takes each from all other readers."""
    path = f"{find_tracefs()}/trace_pipe"
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                yield line.rstrip("\n")
    except PermissionError as error:
        raise SysError(error.errno or 0, f"open {path}", "run as root") from None

"""What the running kernel has, found by asking it; never by its version.

A probe makes the smallest object of the kind and drops it again.
"""

from __future__ import annotations

import errno
import os
from functools import lru_cache

from tcbpf.datapath.kernel import syscall
from tcbpf.isa.insn import Insn, encode
from tcbpf.tables.maps import MAP_TYPES
from tcbpf.tables.progs import PROG_TYPES
from tcbpf.uapi import bpf as uapi

_RETURN_0 = encode([Insn(0xB7), Insn(0x95)])


@lru_cache(maxsize=1)
def missing() -> str:
    """Return why this process cannot use bpf(2), or "" when it can."""
    fd, _ = syscall.prog_load(syscall.Load(PROG_TYPES["sched_cls"].number, _RETURN_0, b"GPL"))
    if fd < 0:
        return str(syscall.failure(-fd, uapi.BPF_PROG_LOAD))
    os.close(fd)
    return ""


@lru_cache
def has_prog_type(name: str) -> bool:
    """Tell whether the kernel loads programs of this type."""
    row = PROG_TYPES[name]
    attach = next((section.attach_type for section in row.sections if section.attach_type), 0)
    fd, _ = syscall.prog_load(syscall.Load(row.number, _RETURN_0, b"GPL", attach_type=attach))
    if fd >= 0:
        os.close(fd)
    return fd >= 0


@lru_cache
def has_map_type(name: str) -> bool:
    """Tell whether the kernel knows this map type: an unknown one is EINVAL for every specification."""
    row = MAP_TYPES[name]
    fd = -1
    for key_size, value_size, entries in ((4, 4, 1), (8, 4, 1), (0, 4, 1), (0, 0, 4096), (4, 8, 1)):
        try:
            fd = syscall.map_create(row.number, key_size, value_size, entries, flags=row.required_flags)
        except OSError as error:
            if error.errno != errno.EINVAL:
                return True  # it wants something else (BTF, an inner map), but it is there
            continue
        os.close(fd)
        return True
    return False

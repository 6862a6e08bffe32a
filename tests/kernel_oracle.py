"""The live kernel as an oracle: one bpf(BPF_PROG_LOAD), its errno and its log.

Tests only; the product's own bpf(2) calls live in datapath/kernel.
"""

from __future__ import annotations

import ctypes
import errno as _errno
import os
import platform
import struct
from collections.abc import Iterable
from functools import lru_cache
from typing import NoReturn

import pytest

from tcbpf.isa.insn import Insn, encode
from tcbpf.tables.progs import PROG_TYPES

_SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280}.get(platform.machine(), 0)
REFUSED = "the kernel does not let us ask it"  # how the reason begins where privilege or the system call is missing
_MAP_CREATE, _PROG_LOAD = 0, 5
_libc = ctypes.CDLL(None, use_errno=True)


def bpf(cmd: int, attr: ctypes.Array[ctypes.c_char]) -> tuple[int, int]:
    """Return (result, errno); errno is 0 when the call succeeded."""
    result = _libc.syscall(_SYSCALL, cmd, attr, ctypes.sizeof(attr))
    return result, ctypes.get_errno() if result < 0 else 0


def load(
    insns: bytes | Iterable[Insn],
    type: str = "sched_cls",
    *,
    license: str = "GPL",
    log_level: int = 1,
    attach_type: int = 0,
    flags: int = 0,
    log_size: int = 1 << 20,
) -> tuple[int, int, str]:
    """Load a program and return (fd, errno, log); fd is -1 when it was refused, else the caller's to close.

    Units:   `type` is a name of tables.progs; `log_level` 0 asks for no log.
    """
    raw = insns if isinstance(insns, bytes) else encode(insns)
    code, words = ctypes.create_string_buffer(raw, len(raw)), ctypes.create_string_buffer(license.encode())
    log = ctypes.create_string_buffer(log_size if log_level else 1)
    attr = ctypes.create_string_buffer(144)
    struct.pack_into(
        "<IIQQIIQIIQQ",
        attr,
        0,
        PROG_TYPES[type].number,
        len(raw) // 8,
        ctypes.addressof(code),
        ctypes.addressof(words),
        log_level,
        log_size if log_level else 0,
        ctypes.addressof(log) if log_level else 0,
        0,
        flags,
        0,
        0,
    )
    struct.pack_into("<I", attr, 68, attach_type)
    fd, error = bpf(_PROG_LOAD, attr)
    return fd, error, log.value.decode(errors="replace")


def verdict(
    insns: bytes | Iterable[Insn],
    type: str = "sched_cls",
    license: str = "GPL",
    log_level: int = 1,
    *,
    attach_type: int = 0,
    flags: int = 0,
) -> tuple[int, str]:
    """Return what the kernel's verifier says: (0 or the errno, its log)."""
    fd, error, log = load(insns, type, license=license, log_level=log_level, attach_type=attach_type, flags=flags)
    if fd >= 0:
        os.close(fd)
    return error, log


def map_create(
    type: int, key_size: int, value_size: int, max_entries: int, flags: int = 0, inner_fd: int = 0, extra: int = 0
) -> tuple[int, int]:
    """Create a map and return (fd, errno); fd is -1 when it was refused, else the caller's to close."""
    attr = ctypes.create_string_buffer(144)
    struct.pack_into("<6I", attr, 0, type, key_size, value_size, max_entries, flags, inner_fd)
    struct.pack_into("<Q", attr, 64, extra)
    return bpf(_MAP_CREATE, attr)


@lru_cache(maxsize=1)
def missing() -> str:
    """Return why the kernel cannot be asked, or "" when it can."""
    if not _SYSCALL:
        return f"the number of bpf(2) on {platform.machine()} is not known here"
    error, _ = verdict([Insn(0xB7), Insn(0x95)], log_level=0)
    if error in (_errno.EPERM, _errno.EACCES, _errno.ENOSYS):
        return f"{REFUSED}: bpf(2): {os.strerror(error)}"
    if error:
        raise OSError(error, f"the kernel refuses the smallest program: {os.strerror(error)}")
    return ""


@lru_cache(maxsize=1)
def release() -> tuple[int, int]:
    """Return the running kernel's release, as (6, 18)."""
    major, minor = platform.release().split(".")[:2]
    return int(major), int("".join(ch for ch in minor if ch.isdigit()))


def need(since: tuple[int, int] = (0, 0)) -> None:
    """Require a kernel that answers bpf(2), of release `since` or later; see `unavailable`."""
    if why := missing():
        unavailable(why)
    if release() < since:
        unavailable(f"the kernel is {platform.release()}, older than {since[0]}.{since[1]}")


def unavailable(why: str) -> NoReturn:
    """Skip the test for the kernel's sake; with TCBPF_REQUIRE_KERNEL=1 it fails instead."""
    if os.environ.get("TCBPF_REQUIRE_KERNEL") == "1":
        pytest.fail(f"TCBPF_REQUIRE_KERNEL=1: {why}", pytrace=False)
    pytest.skip(why)

"""The kernel's bpf file system: find it, mount it, make directories in it."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from contextlib import suppress

from tcbpf.datapath.pins import BPFFS, WORK_DIR
from tcbpf.errors import SysError

MAGIC = 0xCAFE4A11
MS_PRIVATE, MS_REC = 1 << 18, 1 << 14

_libc = ctypes.CDLL(None, use_errno=True)


def is_bpffs(path: str) -> bool:
    """Tell whether `path` lies in a bpf file system."""
    buffer = ctypes.create_string_buffer(256)  # struct statfs; its first word is the magic
    if _libc.statfs(os.fsencode(path), buffer) != 0:
        return False
    size = ctypes.sizeof(ctypes.c_long)
    return int(struct.unpack_from("l", buffer.raw[:size])[0]) & 0xFFFFFFFF == MAGIC


def prepare(path: str) -> None:
    """Make the directories that a pin at `path` needs, and mount the bpf fs at /sys/fs/bpf when it is not.

    Raises:  SysError when that is refused, or when `path` lies outside of any bpf fs.
    """
    parent = os.path.dirname(os.path.abspath(path))
    if (parent == BPFFS or parent.startswith(BPFFS + "/")) and not is_bpffs(BPFFS):
        mount(BPFFS)
    try:
        os.makedirs(parent, mode=0o700, exist_ok=True)
        if f"{parent}/".startswith(f"{WORK_DIR}/"):
            for name in ("ip", "xdp"):  # their loaders share tc's directory
                with suppress(FileExistsError):
                    os.symlink("tc/", f"{BPFFS}/{name}")
    except FileExistsError:
        raise SysError(errno.ENOTDIR, f"make directory {parent}") from None
    except OSError as error:
        raise SysError(
            error.errno or 0,
            f"make directory {parent}",
            "names in a bpf fs have no dot" if error.errno == errno.EPERM and "." in path else "",
        ) from None
    if not is_bpffs(parent):
        raise SysError(errno.EINVAL, f"pin {path}", f"{parent} is not in a bpf file system; {BPFFS} is one")


def mount(target: str) -> None:
    """Mount a bpf fs, its mount kept from spreading, as tc does.

    Raises:  SysError.
    """
    where = os.fsencode(target)
    _libc.mount(b"", where, b"none", ctypes.c_ulong(MS_PRIVATE | MS_REC), None)  # EINVAL where it is no mount point yet
    if _libc.mount(b"bpf", where, b"bpf", ctypes.c_ulong(0), b"mode=0700") != 0:
        code = ctypes.get_errno()
        raise SysError(code, f"mount a bpf file system at {target}", "run as root" if code == errno.EPERM else "")


def kind_of(fd: int) -> str:
    """Return what an fd of a pinned object is: "map", "prog", "link" or another word of the kernel's."""
    link = os.readlink(f"/proc/self/fd/{fd}").removeprefix("anon_inode:")
    return link.strip("[]").removeprefix("bpf-").removeprefix("bpf_")

"""The bpf fs: an ordinary directory in which a hard link to an object's file is a pin.

The words /sys/fs/bpf/... name places below the home's own directory; any other path is the host's, as it stands, and
must be on the same file system. A name with a dot is refused, as the kernel keeps those for itself. Removing the file
unpins.

Source:  bpf_obj_do_pin(), bpf_lookup(), kernel/bpf/inode.c (v6.18). Paper, "Object pinning".
Differs: any directory serves, not only one of a mounted bpf fs; a missing directory of the path is made.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from tcbpf.datapath.pins import BPFFS
from tcbpf.datapath.user.object_files import link
from tcbpf.errors import SysError

OBJECTS = ("maps", "progs")
"""The directories of a home that hold the objects' own files."""


def place(root: Path, path: str, asked: str, *, pinning: bool = False) -> Path:
    """Return the host's path for `path`; `root` is the home's bpf fs.

    Raises:  SysError with EPERM for a name with a dot, in the bpf fs or of a pin to be made.
    """
    path = os.path.normpath(path)
    inside = path == BPFFS or path.startswith(BPFFS + "/")
    names = path[len(BPFFS) :].strip("/").split("/") if inside else [os.path.basename(path)]
    if (inside or pinning) and any("." in name for name in names):
        raise SysError(errno.EPERM, asked, "a name in the bpf fs has no dot")
    return root.joinpath(*names) if inside else Path(path)


def pin(root: Path, path: str, fd: int) -> None:
    """Link the object open as `fd` at `path`.

    Raises:  SysError: EEXIST, EPERM for a name with a dot or another file system, and the host's errors.
    """
    where = place(root, path, asked := f"pin {path}", pinning=True)
    try:
        where.parent.mkdir(parents=True, exist_ok=True)
        link(fd, where)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise SysError(errno.EPERM, asked, f"not on the file system of {root}") from None
        raise SysError(error.errno or errno.EIO, asked) from None


def unpin(root: Path, path: str, is_object: Callable[[int], bool]) -> None:
    """Remove a pin, and no other file; `is_object` tells whether a descriptor is a map's or a program's.

    Raises:  SysError: EACCES for a file that is not a pin, EPERM for an object's own file in a home, and the host's errors.
    """
    where = place(root, path, asked := f"unpin {path}")
    fd = open_pin(root, path, asked)
    try:
        if not is_object(fd):
            raise SysError(errno.EACCES, asked, "it is not a pin")
        if where.name.isdigit() and where.parent.name in OBJECTS and is_home(where.parent.parent, root):
            raise SysError(errno.EPERM, asked, "it is an object of a home, not a pin")
        where.unlink()
    except SysError:
        raise
    except OSError as error:
        raise SysError(error.errno or errno.EIO, asked) from None
    finally:
        os.close(fd)


def is_home(directory: Path, root: Path) -> bool:
    """Tell whether a directory is a home: this one, or another that lasts."""
    return directory.resolve() == root.parent.resolve() or (directory / "state.db").exists()


def open_pin(root: Path, path: str, asked: str = "") -> int:
    """Return a descriptor of the object pinned at `path`, which has the same lifetime as any other one's."""
    where = place(root, path, asked := asked or f"open {path}")
    try:
        return os.open(where, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        code = errno.EACCES if error.errno in (errno.EISDIR, errno.ENXIO) else error.errno or errno.EIO
        raise SysError(code, asked) from None


def pins(root: Path) -> dict[int, list[str]]:
    """Return the pins of the home's bpf fs, in the words of the bpf fs, by inode."""
    found: dict[int, list[str]] = {}
    for directory, _, names in os.walk(root):
        for name in sorted(names):
            full = Path(directory) / name
            found.setdefault(full.lstat().st_ino, []).append(f"{BPFFS}/{full.relative_to(root)}")
    return found

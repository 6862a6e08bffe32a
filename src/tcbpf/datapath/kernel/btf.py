"""BTF in the live kernel: loaded once for each blob, since the kernel takes types for the same only within one BTF object."""

from __future__ import annotations

import os
import weakref

from tcbpf.datapath.kernel import syscall
from tcbpf.errors import SysError
from tcbpf.obj.btf import Btf

_FDS: weakref.WeakKeyDictionary[Btf, int] = weakref.WeakKeyDictionary()


def fd_of(btf: Btf | None) -> int:
    """Return the fd of a program's or a map's BTF, which stays open as long as the types are held.

    Returns: 0 without BTF, or when the kernel refuses it.
    """
    if btf is None:
        return 0
    fd = _FDS.get(btf)
    if fd is None:
        try:
            fd = syscall.btf_load(btf.raw)
        except SysError:
            return 0
        _FDS[btf] = fd
        weakref.finalize(btf, os.close, fd)
    return fd

"""Executable memory: filled while it is writable, never writable once it is executable.

The code starts at a random offset, and what it does not fill traps.

Source:  kernel/bpf/core.c, bpf_jit_binary_alloc(). Paper, "Security".
Differs: read-only data lies on pages of its own, which are not executable.
"""

from __future__ import annotations

import ctypes
import os

from tcbpf.errors import SysError
from tcbpf.vm.jit.image import PAGE, TRAP, Image, page_up

_ALIGN = 64
_PROT_READ, _PROT_WRITE, _PROT_EXEC = 1, 2, 4
_MAP_PRIVATE, _MAP_ANONYMOUS = 0x02, 0x20

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]

ENTRY = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
"""The type of an entry: tcbpf_fn(ctx, env, maps)."""


class Pages:
    """One image in executable memory, until `close`."""

    def __init__(self, image: Image) -> None:
        """Load `image`.

        Raises:  SysError when the system gives no such memory.
        """
        hole = os.urandom(1)[0] % (PAGE // _ALIGN) * _ALIGN  # evenly: there are 64 places
        end = hole + len(image.text)
        data_at = hole + image.distance
        size = data_at + len(image.data) if image.data else end
        self.size = page_up(size)
        base = _libc.mmap(None, self.size, _PROT_READ | _PROT_WRITE, _MAP_PRIVATE | _MAP_ANONYMOUS, -1, 0)
        if base in (None, ctypes.c_void_p(-1).value):
            raise SysError(ctypes.get_errno(), "memory for machine code")
        self._base: int | None = base
        executable = min(self.size, page_up(end))
        ctypes.memset(base, TRAP[0], executable)
        ctypes.memmove(base + hole, image.text, len(image.text))
        ctypes.memmove(base + data_at, image.data, len(image.data))
        self.start, self.text_size = base + hole, len(image.text)
        self._protect(base, executable, _PROT_READ | _PROT_EXEC)
        if self.size > executable:
            self._protect(base + executable, self.size - executable, _PROT_READ)
        self.entries = {name: self.start + off for name, off in image.entries.items()}

    def _protect(self, at: int, size: int, how: int) -> None:
        if _libc.mprotect(at, size, how):
            error = ctypes.get_errno()
            self.close()
            raise SysError(error, "executable memory", "a security policy may forbid it; use --engine interp")

    def close(self) -> None:
        """Give the memory back; the entries must not be called any more."""
        if self._base is not None:
            _libc.munmap(self._base, self.size)
            self._base = None

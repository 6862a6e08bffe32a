"""A map of the live kernel, with MapFile's element operations; errnos as OSError."""

from __future__ import annotations

import ctypes
import errno
import os
import struct

import kernel_oracle
from tcbpf.native.runtime import possible_cpus
from tcbpf.obj.program import MapSpec
from tcbpf.tables.maps import MAP_TYPES

_LOOKUP, _UPDATE, _DELETE, _NEXT, _POP, _FREEZE = 1, 2, 3, 4, 21, 22


class KernelMap:
    """One map of the kernel."""

    def __init__(self, spec: MapSpec) -> None:
        row = MAP_TYPES[spec.type]
        self.spec = spec
        self.value_bytes = (spec.value_size + 7) // 8 * 8 * possible_cpus() if row.per_cpu else spec.value_size
        self._fd, error = kernel_oracle.map_create(row.number, spec.key_size, spec.value_size, spec.max_entries, spec.flags)
        if error:
            raise OSError(error, os.strerror(error))

    def close(self) -> None:
        os.close(self._fd)

    def lookup(self, key: bytes = b"") -> bytes | None:
        return self._out(_LOOKUP, key, self.value_bytes)

    def pop(self, key: bytes = b"") -> bytes | None:
        return self._out(_POP, key, self.value_bytes)

    def next_key(self, key: bytes | None) -> bytes | None:
        return self._out(_NEXT, key, self.spec.key_size)

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        self._ask(_UPDATE, key, value, flags)

    def delete(self, key: bytes) -> bool:
        try:
            self._ask(_DELETE, key, b"", 0)
        except FileNotFoundError:
            return False
        return True

    def freeze(self) -> None:
        self._ask(_FREEZE, None, b"", 0)

    def _out(self, command: int, key: bytes | None, size: int) -> bytes | None:
        try:
            return self._ask(command, key, bytes(size), 0)
        except FileNotFoundError:
            return None

    def _ask(self, command: int, key: bytes | None, value: bytes, flags: int) -> bytes:
        attr, out = ctypes.create_string_buffer(144), ctypes.create_string_buffer(value, max(len(value), 1))
        at = ctypes.create_string_buffer(key, len(key)) if key else None
        struct.pack_into(
            "<IIQQQ", attr, 0, self._fd, 0, ctypes.addressof(at) if at else 0, ctypes.addressof(out) if value else 0, flags
        )
        _, error = kernel_oracle.bpf(command, attr)
        if error:
            raise OSError(errno.ENOTSUP if error == 524 else error, os.strerror(error))
        return out.raw[: len(value)]

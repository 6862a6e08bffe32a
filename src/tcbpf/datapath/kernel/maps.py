"""A map of the live kernel, behind maps.Map."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from tcbpf.cpus import possible_cpus
from tcbpf.datapath.kernel import syscall
from tcbpf.datapath.kernel.btf import fd_of
from tcbpf.errors import InputError, MapError, NotSupported, SysError
from tcbpf.maps.records import RawRecords
from tcbpf.obj.program import MapSpec
from tcbpf.tables.maps import MAP_TYPES, having

_BATCHED = having(lambda row: row.batched)


class KernelMap:
    """One map, by its fd; RawMap's element commands are bpf(2)'s."""

    def __init__(self, fd: int, spec: MapSpec, id: int) -> None:
        self._fd, self.spec, self.id = fd, spec, id
        row = MAP_TYPES.get(spec.type)
        per_cpu = row is not None and row.per_cpu
        self.value_size = (spec.value_size + 7) // 8 * 8 * possible_cpus() if per_cpu else spec.value_size

    @property
    def owner_type(self) -> int:
        """A program array's: the number of its programs' type, 0 while it has had none."""
        with open(f"/proc/self/fdinfo/{self._fd}") as file:
            return next((int(line.split()[1]) for line in file if line.startswith("owner_prog_type:")), 0)

    def lookup(self, key: bytes) -> bytes | None:
        """Return the value at `key`, or None."""
        with self._named("look up an element of"):
            return syscall.map_lookup(self._fd, self._key(key), self.value_size)

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Write the value at `key`."""
        if len(value) != self.value_size:
            raise MapError(
                errno.EINVAL, "update an element of", self.spec.name, f"a value of {len(value)} bytes, not {self.value_size}"
            )
        with self._named("update an element of"):
            syscall.map_update(self._fd, self._key(key), value, flags)

    def delete(self, key: bytes) -> bool:
        """Delete an element; return False when there was none."""
        with self._named("delete an element of"):
            return syscall.map_delete(self._fd, self._key(key))

    def pop(self, key: bytes) -> bytes | None:
        """Take an element out and return its value, or None."""
        with self._named("pop an element of"):
            return syscall.map_pop(self._fd, self._key(key), self.value_size)

    def holds(self, value: bytes) -> bool:
        """Tell whether a bloom filter may hold a value."""
        with self._named("look up an element of"):
            return syscall.map_holds(self._fd, value)

    def next_key(self, key: bytes | None) -> bytes | None:
        """Return the key after `key`, the first for None, None at the end."""
        with self._named("get the next key of"):
            return syscall.map_next_key(self._fd, None if key is None else self._key(key), self.spec.key_size)

    def elements(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield all elements, in batches where the map type has them."""
        if self.spec.type in _BATCHED:
            with suppress(SysError):
                yield from syscall.map_lookup_batch(self._fd, self.spec.key_size, self.value_size, self.spec.max_entries)
                return
        key = self.next_key(None)
        while key is not None:
            value = self.lookup(key)
            if value is not None:
                yield key, value
            key = self.next_key(key)

    def freeze(self) -> None:
        """Make the map read-only for user space."""
        with self._named("freeze"):
            syscall.map_freeze(self._fd)

    def records(self) -> RawRecords:
        """Read what programs put out."""
        from tcbpf.datapath.kernel.records import PerfRecords, RingRecords

        with self._named("read records of"):
            made = RingRecords if MAP_TYPES[self.spec.type].records == "ring" else PerfRecords
            return made(self._fd, self.spec.max_entries)

    def fileno(self) -> int:
        """Return the fd."""
        return self._fd

    def close(self) -> None:
        """Drop the fd; the map lives while a program, a pin or another fd holds it."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        with suppress(OSError, AttributeError, TypeError):
            self.close()

    def _key(self, key: bytes) -> bytes:
        if len(key) != self.spec.key_size:
            raise MapError(errno.EINVAL, "use", self.spec.name, f"a key of {len(key)} bytes, not {self.spec.key_size}")
        return key

    def _named(self, asked: str) -> _Named:
        return _Named(asked, self.spec.name)


class _Named:
    """Turns a SysError inside a `with` into the MapError that names the map."""

    def __init__(self, asked: str, map: str) -> None:
        self.asked, self.map = asked, map

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, SysError) and not isinstance(error, MapError):
            raise MapError(error.errno or 0, self.asked, self.map, error.detail) from None


def create(spec: MapSpec) -> KernelMap:
    """Make a map; contents and freezing are the loader's.

    The kernel takes no BTF for some map types and no pointers in keys: then the map is made without.

    Raises:  MapError with the kernel's errno; InputError for a type that no table names.
    """
    row = MAP_TYPES.get(spec.type)
    if row is None:
        raise InputError(f"no map type {spec.type!r}", where=f"map {spec.name}", hint=", ".join(MAP_TYPES.names()))
    inner = create(replace(spec.inner, pinning=0)) if spec.inner is not None else None
    inner_fd = inner.fileno() if inner else 0

    def make(btf_fd: int, key_type: int, value_type: int) -> int:
        return syscall.map_create(
            row.number,
            spec.key_size,
            spec.value_size,
            spec.max_entries,
            flags=spec.flags,
            name=kernel_name(spec.name),
            inner_fd=inner_fd,
            map_extra=spec.map_extra,
            btf_fd=btf_fd,
            key_type=key_type,
            value_type=value_type,
        )

    fd, btf_fd = -1, fd_of(spec.btf) if spec.key_type or spec.value_type else 0
    try:
        if btf_fd:
            with suppress(SysError):
                fd = make(btf_fd, spec.key_type, spec.value_type)
        if fd < 0:
            fd = make(0, 0, 0)
    except SysError as error:
        code = error.errno or 0
        raise MapError(code, "create map", spec.name, error.detail or _why(code, spec)) from None
    finally:
        if inner:
            inner.close()
    return KernelMap(fd, spec, syscall.map_info(fd).id)


def adopt(fd: int) -> KernelMap:
    """Return the map behind an fd, its specification read from the kernel."""
    info = syscall.map_info(fd)
    row = MAP_TYPES.at(info.type)
    if row is None:
        os.close(fd)
        raise NotSupported(f"map type {info.type}: no table names it")
    btf, key_type, value_type = None, int(info.btf_key_type_id), int(info.btf_value_type_id)
    if info.btf_id:
        from tcbpf.obj.btf_parse import parse

        with suppress(SysError, InputError):
            btf = parse(syscall.btf_by_id(info.btf_id))
    spec = MapSpec(
        name=info.name.decode(errors="replace"),
        type=row.name,
        key_size=info.key_size,
        value_size=info.value_size,
        max_entries=info.max_entries,
        flags=info.map_flags,
        map_extra=info.map_extra,
        btf=btf,
        key_type=key_type if btf else 0,
        value_type=value_type if btf else 0,
    )
    return KernelMap(fd, spec, info.id)


def kernel_name(name: str) -> bytes:
    """Return an object name as the kernel takes it: at most 15 of letters, digits, "_" and "."."""
    return "".join(ch if ch.isascii() and (ch.isalnum() or ch in "_.") else "_" for ch in name)[:15].encode()


def _why(code: int, spec: MapSpec) -> str:
    """Return the usual reason for an errno of BPF_MAP_CREATE."""
    asked = (
        f"type {spec.type}, key {spec.key_size}, value {spec.value_size}, max_entries {spec.max_entries}, flags {spec.flags:#x}"
    )
    if code in (errno.ENOMEM, errno.E2BIG):
        return f"too large: {asked}"
    return asked if code == errno.EINVAL else ""

"""A user-datapath map: one memory file that processes share (src/maps has its layout)."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from tcbpf.errors import InputError, MapError
from tcbpf.native.env import Env
from tcbpf.native.library import constant, function, struct
from tcbpf.native.mapmemory import MapMemory, anonymous, begin, check_memory, possible_cpus
from tcbpf.obj.program import MapSpec
from tcbpf.shared import Shared
from tcbpf.tables.maps import MAP_TYPES
from tcbpf.uapi import bpf as uapi

if TYPE_CHECKING:
    from tcbpf.obj.btf import Btf

_SHAPE_INPUT = ("type", "key_size", "value_size", "max_entries", "flags", "cpus")


class MapFile(Shared, MapMemory):
    """An open map, and its elements, for any number of threads.

    Units:   keys and values as RawMap has them: a per-CPU value is value_size rounded up to 8, times the possible CPUs.
    Raises:  MapError with bpf(2)'s errno.
    """

    def __init__(self, fd: int, spec: MapSpec, memory: mmap.mmap) -> None:
        Shared.__init__(self)
        MapMemory.__init__(self, fd, memory)
        self.spec = spec
        self.id = int(self.struct.id)  # the number that the datapath gave it
        shape = self.struct.s
        per_cpu = MAP_TYPES[spec.type].per_cpu
        self.value_bytes: int = shape.value_stride * shape.cpus if per_cpu else spec.value_size
        self._value: Any = ctypes.c_char * self.value_bytes  # calls own their buffers
        self._after: Any = ctypes.c_char * spec.key_size
        self._record_bytes = 4096

    def drop(self) -> None:
        """Unmap and close."""
        MapMemory.close(self)

    def refusal(self) -> MapError:
        """Return the error of a call after `close`."""
        return MapError(errno.EBADF, "use", self.spec.name, "it was closed")

    def fileno(self) -> int:
        """Return the descriptor, -1 after `close`."""
        return -1 if self._closed else MapMemory.fileno(self)

    # --- making and opening ---

    @classmethod
    def create(
        cls, spec: MapSpec, fd: int | None = None, *, id: int = 0, cpus: int | None = None, inner: MapSpec | None = None
    ) -> MapFile:
        """Make a map in the empty file `fd`, which is then the map's, or in anonymous memory.

        `cpus` is the number of possible CPUs that per-CPU values have room for: this machine's, when it is not said.

        Raises:  MapError: EINVAL, E2BIG for a specification that bpf(2) refuses; ENOMEM when the map is larger than the
                 memory that is left; ENOSPC when the file system has no room.
        """
        head = struct("tcbpf_map")()
        size, blob_at, blob = _plan(spec, head.s, cpus or possible_cpus()), 0, spec.btf.raw if spec.btf else b""
        if blob:
            blob_at, size = size, _page_up(size + len(blob))
        check_memory(spec.name, size)
        head.magic, head.version, head.header_size = constant("MAP_MAGIC"), constant("MAP_VERSION"), ctypes.sizeof(head)
        head.size, head.btf, head.btf_size = size, blob_at, len(blob)
        head.btf_key_type, head.btf_value_type, head.id, head.map_extra = spec.key_type, spec.value_type, id, spec.map_extra
        head.name[:] = spec.name.encode()[:15].ljust(16, b"\0")
        begin(head)
        template = inner or spec.inner
        if template is not None:
            _plan(template, head.inner, cpus or possible_cpus())
        own = fd is None
        fd = anonymous(spec.name) if fd is None else fd
        try:
            _allocate(spec, fd, size, sparse=own)
            if blob:
                os.pwrite(fd, blob, blob_at)
            os.pwrite(fd, bytes(head), 0)
            made = cls(fd, spec, mmap.mmap(fd, size))
        except BaseException:
            if own:
                os.close(fd)
            raise
        if spec.contents is not None:
            made.update(bytes(4), spec.contents)
        if spec.frozen:
            made.freeze()
        return made

    @classmethod
    def open(cls, where: int | str) -> MapFile:
        """Open a map by its path, or by a descriptor, which is then the map's.

        Raises:  InputError when the file is not a map, or is damaged; OSError when it cannot be opened.
        """
        fd = os.open(where, os.O_RDWR | os.O_CLOEXEC) if isinstance(where, str) else where
        try:
            spec, size = _read_head(fd, where)
            return cls(fd, spec, mmap.mmap(fd, size))
        except BaseException:
            if isinstance(where, str):
                os.close(fd)
            raise

    @contextmanager
    def open_head(self) -> Iterator[Any]:
        """Yield the map's struct tcbpf_map, which stays mapped inside."""
        with self.using():
            yield self.struct

    @property
    def owner(self) -> tuple[int, int]:
        """A program array's: the type and the attach type of its programs, (0, 0) while it has had none."""
        with self.open_head() as head:
            return int(head.owner) & 0xFFFF, int(head.owner) >> 16

    @owner.setter
    def owner(self, kind: tuple[int, int]) -> None:
        with self.open_head() as head:
            head.owner = kind[0] | kind[1] << 16

    @property
    def frozen(self) -> bool:
        """True when user space may no longer write."""
        with self.open_head() as head:
            return bool(head.frozen)

    def __len__(self) -> int:
        """Return the number of elements of a hash, a trie or a queue."""
        with self.open_head() as head:
            return int(head.count)

    def again(self) -> MapFile:
        """Return the map once more, by a descriptor and a mapping of its own."""
        with self.open_head() as head:
            fd = os.open(f"/proc/self/fd/{self._fd}", os.O_RDWR | os.O_CLOEXEC)
            return MapFile(fd, self.spec, mmap.mmap(fd, int(head.size)))

    # --- elements ---

    def lookup(self, key: bytes = b"") -> bytes | None:
        """Return a copy of the value of `key` (the head of a queue), or None."""
        asked, value = "look up an element of", self._value()
        return value.raw if self._found(asked, _call("lookup"), self._sized(key, asked), value) else None

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Set the value of `key` (push, for a queue)."""
        asked = "update an element of"
        if len(value) != self.value_bytes:
            raise MapError(errno.EINVAL, asked, self.spec.name, f"a value has {self.value_bytes} bytes, not {len(value)}")
        self._ask(asked, _call("update", flags=True), self._sized(key, asked), value, flags)

    def delete(self, key: bytes) -> bool:
        """Delete an element; False when there was none."""
        asked = "delete an element of"
        return self._found(asked, _call("delete", value=False), self._sized(key, asked))

    def next_key(self, key: bytes | None) -> bytes | None:
        """Return the key after `key`; None starts, and ends."""
        asked, after = "get the next key of", self._after()
        at = None if key is None else self._sized(key, asked)
        return after.raw if self._found(asked, _call("next_key"), at, after) else None

    def pop(self, key: bytes = b"") -> bytes | None:
        """Take an element out and return its value, or None."""
        asked, value = "pop an element of", self._value()
        return value.raw if self._found(asked, _call("pop"), self._sized(key, asked), value) else None

    def holds(self, value: bytes) -> bool:
        """Tell whether a bloom filter may hold a value."""
        asked = "look up an element of"
        if len(value) != self.spec.value_size:
            raise MapError(errno.EINVAL, asked, self.spec.name, f"a value has {self.spec.value_size} bytes, not {len(value)}")
        return self._found(asked, _call("lookup"), None, value)

    @property
    def rings(self) -> int:
        """The number of slots of a perf event array that a program can reach: one for each CPU at most."""
        with self.open_head() as head:
            return int(head.s.n_slots)

    def take(self, slot: int | None = None) -> bytes | None:
        """Take the next record of a ring buffer, or of a perf event array's slot; None when no finished one is there."""
        call = _take("ring_take") if slot is None else _take("perf_take", ctypes.c_uint32)
        where = () if slot is None else (slot,)
        while True:
            record = ctypes.create_string_buffer(self._record_bytes)
            got = self._ask("take a record of", call, *where, record, len(record), but=errno.EAGAIN)
            if got < 0:
                return None
            if got <= len(record):
                return record.raw[:got]
            self._record_bytes = got

    def listen(self, slot: int, on: bool) -> None:
        """Start or end taking a perf event array's records in one slot."""
        number = ctypes.c_uint32
        call = function("tcbpf_user_perf_open", ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, number, number)
        self._ask("read records of", call, slot, on)

    def lost(self, slot: int) -> int:
        """Return the number of records that found no room in a perf event array's slot since it was last opened."""
        ring = struct("tcbpf_perf_ring")
        with self.open_head() as head:
            return int(ring.from_address(self.address + head.s.slots + slot * ctypes.sizeof(ring)).lost)

    def freeze(self) -> None:
        """Refuse writes by user space from now on.

        Raises:  MapError EPERM when it is frozen already.
        """
        with self.open_head() as head:
            if head.frozen:
                raise MapError(errno.EPERM, "freeze", self.spec.name)
            head.frozen = 1

    def _sized(self, key: bytes, asked: str) -> bytes:
        if len(key) != self.spec.key_size:
            raise MapError(errno.EINVAL, asked, self.spec.name, f"a key has {self.spec.key_size} bytes, not {len(key)}")
        return key

    def _ask(self, asked: str, call: Any, *arguments: Any, but: int = 0) -> int:
        """Return the result of one of C's functions on this map; of its errors only -`but` comes back.

        Raises:  MapError.
        """
        self.begin()
        try:
            result = int(call(_host(), self.address, *arguments))
        finally:
            self.finish()
        if result < 0 and result != -but:
            raise MapError(-result, asked, self.spec.name)
        return result

    def _found(self, asked: str, call: Any, *arguments: Any) -> bool:
        return self._ask(asked, call, *arguments, but=errno.ENOENT) >= 0


_threads = threading.local()


def _host() -> int:
    """Return the address of this thread's environment for user space's own operations."""
    env: Env | None = getattr(_threads, "env", None)
    if env is None:
        env = _threads.env = Env()
    return env.address


@cache
def _call(name: str, *, value: bool = True, flags: bool = False) -> Any:
    arguments: list[Any] = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p]
    arguments += [ctypes.c_char_p] * value + [ctypes.c_uint64] * flags
    return function(f"tcbpf_user_{name}", ctypes.c_int64, *arguments)


@cache
def _take(name: str, *slot: Any) -> Any:
    arguments: list[Any] = [ctypes.c_void_p, ctypes.c_void_p, *slot, ctypes.c_char_p, ctypes.c_uint64]
    return function(f"tcbpf_user_{name}", ctypes.c_int64, *arguments)


def _page_up(size: int) -> int:
    return (size + mmap.PAGESIZE - 1) // mmap.PAGESIZE * mmap.PAGESIZE


def _plan(spec: MapSpec, shape: Any, cpus: int) -> int:
    """Fill in a shape and return the file's size."""
    row = MAP_TYPES.get(spec.type)
    if row is None:
        raise MapError(errno.EINVAL, "create", spec.name, f"no type {spec.type!r}")
    numbers = (row.number, spec.key_size, spec.value_size, spec.max_entries, spec.flags, cpus)
    for name, number in zip(_SHAPE_INPUT, numbers, strict=True):
        if not 0 <= number <= 0xFFFFFFFF:
            raise MapError(errno.EINVAL, "create", spec.name, f"{name} {number}")
        setattr(shape, name, number)
    shape.hashes = _hashes(spec)
    shape.spin_lock = _spin_lock(spec)
    if row.needs_btf and not (spec.btf and spec.key_type and spec.value_type):
        raise MapError(errno.EINVAL, "create", spec.name, f"a {spec.type} needs BTF")
    plan = function("tcbpf_map_plan", ctypes.c_int64, ctypes.c_void_p)
    size = int(plan(ctypes.addressof(shape)))
    if size < 0:
        raise MapError(-size, "create", spec.name)
    one_sided = uapi.BPF_F_RDONLY_PROG | uapi.BPF_F_WRONLY_PROG
    if spec.flags & ~row.flags or spec.flags & row.required_flags != row.required_flags or spec.flags & one_sided == one_sided:
        raise MapError(errno.EINVAL, "create", spec.name, f"flags {spec.flags:#x}")
    return size


def _hashes(spec: MapSpec) -> int:
    """Return how many bits of a filter a value has; 0 for other types, which take no map_extra."""
    if hashes := MAP_TYPES[spec.type].hashes:
        return spec.map_extra or hashes
    if spec.map_extra:
        raise MapError(errno.EINVAL, "create", spec.name, f"map_extra {spec.map_extra:#x}")
    return 0


def _spin_lock(spec: MapSpec) -> int:
    """Return the offset in a value of its bpf_spin_lock, + 1; 0 for none."""
    if MAP_TYPES[spec.type].hashes or spec.btf is None or b"\0bpf_spin_lock\0" not in spec.btf.raw:
        return 0
    from tcbpf.verifier.state.btf_record import record_of

    record = record_of(spec)
    lock = record.find("bpf_spin_lock") if record else None
    return lock.off + 1 if lock else 0


def _allocate(spec: MapSpec, fd: int, size: int, *, sparse: bool) -> None:
    """Give the file its size; on a file system, its room too, so that a full disk is an error here and no fault later."""
    try:
        if sparse:
            os.ftruncate(fd, size)
        else:
            os.posix_fallocate(fd, 0, size)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            os.ftruncate(fd, size)
        else:
            raise MapError(error.errno or errno.EIO, "create", spec.name) from None


def is_map(fd: int) -> bool:
    """Tell whether a descriptor is of a map's file, whole or damaged."""
    return int.from_bytes(os.pread(fd, 8, 0), "little") == constant("MAP_MAGIC")


def _read_head(fd: int, where: int | str) -> tuple[MapSpec, int]:
    """Return what a map's file holds; every size and offset in it is computed again and compared."""
    head = struct("tcbpf_map")()
    place = where if isinstance(where, str) else os.readlink(f"/proc/self/fd/{where}")
    raw = os.pread(fd, ctypes.sizeof(head), 0)
    if len(raw) < ctypes.sizeof(head) or int.from_bytes(raw[:8], "little") != constant("MAP_MAGIC"):
        raise InputError("not a map", where=place)
    ctypes.memmove(ctypes.addressof(head), raw, len(raw))
    version = constant("MAP_VERSION")
    if (head.version, head.header_size) != (version, ctypes.sizeof(head)):
        raise InputError(f"a map of version {head.version}", where=place, hint=f"this release reads version {version}")
    spec = _spec_of(fd, head)
    again = struct("tcbpf_shape")()
    try:
        size = _plan(spec, again, head.s.cpus)
    except MapError:
        size = -1
    end = _page_up(size + head.btf_size) if head.btf_size else size
    if bytes(again) != bytes(head.s) or head.size != end or os.fstat(fd).st_size < end or head.btf not in (0, size):
        raise InputError("a damaged map", where=place)
    return spec, end


def _spec_of(fd: int, head: Any) -> MapSpec:
    row = MAP_TYPES.at(head.s.type)
    return MapSpec(
        name=bytes(head.name).split(b"\0")[0].decode(errors="replace"),
        type=row.name if row else "",
        key_size=head.s.key_size,
        value_size=head.s.value_size,
        max_entries=head.s.max_entries,
        flags=head.s.flags,
        map_extra=head.map_extra,
        btf=_btf_of(fd, head),
        key_type=head.btf_key_type,
        value_type=head.btf_value_type,
        inner=_inner_of(head.inner),
        frozen=bool(head.frozen),
    )


def _inner_of(shape: Any) -> MapSpec | None:
    row = MAP_TYPES.at(shape.type)
    if row is None:
        return None
    return MapSpec("", row.name, shape.key_size, shape.value_size, shape.max_entries, shape.flags)


def _btf_of(fd: int, head: Any) -> Btf | None:
    if not head.btf_size or head.btf_size > 1 << 28:
        return None
    from tcbpf.obj.btf_parse import parse

    return parse(os.pread(fd, head.btf_size, head.btf))

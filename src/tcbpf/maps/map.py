"""A map of either datapath, as Python sees it: bytes underneath, BTF-typed keys and values on top."""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Protocol

from tcbpf.cpus import possible_cpus as possible_cpus
from tcbpf.errors import ENOTSUPP, InputError, MapError
from tcbpf.maps.copied import copied
from tcbpf.maps.records import READABLE, RawRecords, Records, decoder
from tcbpf.maps.typed import Shape, address_bytes, shape_of
from tcbpf.obj.btf import Kind
from tcbpf.obj.program import MapSpec
from tcbpf.tables.maps import FILTERS, MAP_TYPES, having
from tcbpf.uapi.bpf import BPF_ANY as BPF_ANY
from tcbpf.uapi.bpf import BPF_EXIST as BPF_EXIST
from tcbpf.uapi.bpf import BPF_NOEXIST as BPF_NOEXIST

_PREFIXED = having(lambda row: row.prefixed)
_PREFIX_SIZE = 4  # of struct bpf_lpm_trie_key's prefixlen


UNLISTED = frozenset({ENOTSUPP, errno.EOPNOTSUPP, errno.EINVAL})
"""Errnos of listing the elements of a map that has none for user space."""


class RawMap(Protocol):
    """A datapath's map: bpf(2)'s element commands on bytes.

    Units:   keys are spec.key_size bytes. Values are spec.value_size bytes, or for a per-CPU type that size rounded up to 8
             times the number of possible CPUs (SPEC 61).
    Raises:  MapError with bpf(2)'s errno.
    """

    @property
    def spec(self) -> MapSpec: ...
    @property
    def id(self) -> int: ...
    @property
    def owner_type(self) -> int: ...  # of a program array: its programs', 0 while there was none
    def lookup(self, key: bytes) -> bytes | None: ...
    def update(self, key: bytes, value: bytes, flags: int = BPF_ANY) -> None: ...
    def delete(self, key: bytes) -> bool: ...  # False when there was none
    def pop(self, key: bytes) -> bytes | None: ...  # takes the element out
    def holds(self, value: bytes) -> bool: ...  # of a bloom filter
    def next_key(self, key: bytes | None) -> bytes | None: ...  # None starts, and ends
    def freeze(self) -> None: ...
    def records(self) -> RawRecords: ...  # of a ring buffer or a perf event array
    def fileno(self) -> int: ...
    def close(self) -> None: ...


class NoElement(MapError, KeyError):
    """The map has no element of that key."""


class Map:
    """A live map. Subscripts take and give typed values (an IP address as "10.0.0.1", a struct as a dict, an int as an int).

    A value is a copy: to change a member, set the whole. A per-CPU value is a list, one element a CPU; setting a single value
    gives it to every CPU. Keys of an LPM trie are prefixes, "10.0.0.0/8". `lookup`, `update`, `delete` and `keys` take and give
    bytes.
    """

    def __init__(self, raw: RawMap) -> None:
        self.raw = raw

    def __repr__(self) -> str:
        spec = self.spec
        return f"<Map {spec.name}: {spec.type}, key {spec.key_size}, value {spec.value_size}, max_entries {spec.max_entries}>"

    @property
    def spec(self) -> MapSpec:
        """The map's specification."""
        return self.raw.spec

    # --- typed -------------------------------------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Any:
        """Return the value of `key`.

        Raises:  NoElement, which is a KeyError; InputError for a key of another shape.
        """
        raw = self.raw.lookup(self.encode_key(key))
        if raw is None:
            raise NoElement(errno.ENOENT, f"look up {key!r} in", self.spec.name)
        return self.decode_value(raw)

    def __setitem__(self, key: Any, value: Any) -> None:
        raw = self.encode_key(key)
        self.raw.update(raw, self.encode_value(value, raw))

    def __delitem__(self, key: Any) -> None:
        if not self.raw.delete(self.encode_key(key)):
            raise NoElement(errno.ENOENT, f"delete {key!r} from", self.spec.name)

    def __contains__(self, key: Any) -> bool:
        """Tell whether there is an element of that key; of a bloom filter, whether it may hold that value."""
        if self.spec.type in FILTERS:
            return self.raw.holds(self.encode_value(key))
        return self.raw.lookup(self.encode_key(key)) is not None

    def __iter__(self) -> Iterator[Any]:
        """Yield the typed keys."""
        return (self.decode_key(key) for key in self.raw_keys())

    def keys(self) -> Iterator[Any]:
        """Yield the typed keys."""
        return iter(self)

    def values(self) -> Iterator[Any]:
        """Yield the typed values."""
        return (value for _, value in self.items())

    def get(self, key: Any, default: Any = None) -> Any:
        """Return the value of `key`, or `default` when there is none."""
        raw = self.raw.lookup(self.encode_key(key))
        return default if raw is None else self.decode_value(raw)

    def items(self) -> Iterator[tuple[Any, Any]]:
        """Yield typed pairs; an element that vanishes on the way is passed over."""
        for key in self.raw_keys():
            value = self.raw.lookup(key)
            if value is not None:
                yield self.decode_key(key), self.decode_value(value)

    def listing(self) -> list[tuple[Any, Any]] | None:
        """Return typed pairs; None for a map whose elements user space cannot list, such as a queue or a ring buffer."""
        try:
            return list(self.items())
        except MapError as error:
            if error.errno not in UNLISTED:
                raise
            return None

    # --- queues, stacks and bloom filters, which have no keys -----------------------------------------------------------

    def push(self, value: Any, *, over: bool = False) -> None:
        """Put a value in; `over` makes room by dropping the oldest.

        Raises:  MapError with E2BIG when the queue is full.
        """
        self.raw.update(b"", self.encode_value(value), BPF_EXIST if over else BPF_ANY)

    def peek(self) -> Any:
        """Return the value that is next to be taken.

        Raises:  NoElement when there is none.
        """
        return self._head(self.raw.lookup(b""), "peek at")

    def pop(self) -> Any:
        """Take the next value out.

        Raises:  NoElement when there is none.
        """
        return self._head(self.raw.pop(b""), "pop")

    def _head(self, raw: bytes | None, asked: str) -> Any:
        if raw is None:
            raise NoElement(errno.ENOENT, asked, self.spec.name)
        return self.decode_value(raw)

    # --- records -----------------------------------------------------------------------------------------------------

    def records(self, type: str = "") -> Records:
        """Return the reader of a ring buffer or perf event array; records are bytes, or values of the C type `type`.

        Raises:  MapError with ENOTSUP for another map type; InputError when the map's BTF has no such type.
        """
        if self.spec.type not in READABLE:
            raise MapError(errno.ENOTSUP, "read records of", self.spec.name, f"it is a {self.spec.type}")
        decode = decoder(self.spec, type)
        return Records(self.raw.records(), decode)

    # --- bytes -------------------------------------------------------------------------------------------------------

    def lookup(self, key: bytes) -> bytes | None:
        """Return the bytes of one element, or None."""
        return self.raw.lookup(key)

    def update(self, key: bytes, value: bytes, flags: int = BPF_ANY) -> None:
        """Set one element, by BPF_ANY, BPF_NOEXIST or BPF_EXIST."""
        self.raw.update(key, value, flags)

    def delete(self, key: bytes) -> bool:
        """Delete one element and return whether there was one."""
        return self.raw.delete(key)

    def raw_keys(self) -> Iterator[bytes]:
        """Yield the keys, each once: a hash starts over when the key that the walk stands on is deleted."""
        seen: set[bytes] = set()
        key = self.raw.next_key(None)
        while key is not None:
            if key not in seen:
                seen.add(key)
                yield key
            key = self.raw.next_key(key)

    # --- between the two -----------------------------------------------------------------------------------------------

    @cached_property
    def key_shape(self) -> Shape:
        """The type of the keys; global data has plain integers."""
        spec = self.spec
        return shape_of(spec.btf, spec.key_type, spec.key_size)

    @cached_property
    def value_shape(self) -> Shape:
        """The type of the values: for a per-CPU map, of one CPU's."""
        spec = self.spec
        return shape_of(spec.btf, spec.value_type, spec.value_size)

    @property
    def per_cpu(self) -> bool:
        """Whether a value is one for each CPU."""
        row = MAP_TYPES.get(self.spec.type)
        return row is not None and row.per_cpu

    def encode_key(self, key: Any) -> bytes:
        """Return the bytes of a typed key.

        Raises:  InputError that says what a key looks like.
        """
        spec = self.spec
        if spec.type in _PREFIXED and isinstance(key, str):
            return self._prefix(key)
        return self.key_shape.encode(key, f"map {spec.name} key")

    def decode_key(self, raw: bytes) -> Any:
        """Return the typed key of its bytes."""
        if self.spec.type in _PREFIXED and len(raw) in (_PREFIX_SIZE + 4, _PREFIX_SIZE + 16):
            return f"{ipaddress.ip_address(raw[_PREFIX_SIZE:])}/{int.from_bytes(raw[:_PREFIX_SIZE], 'little')}"
        return self.key_shape.decode(raw)

    def encode_value(self, value: Any, key: bytes = b"") -> bytes:
        """Return the bytes of a typed value. Global data of which only some variables are named keeps the others (by `key`)."""
        where = f"map {self.spec.name} value"
        shape = self.value_shape
        if not self.per_cpu:
            section = shape.btf is not None and shape.btf[shape.id].kind == Kind.DATASEC
            return shape.encode(value, where, (self.raw.lookup(key) or b"") if section and key else b"")
        stride, cpus = _stride(shape.size), self._cpus(key)
        if isinstance(value, (bytes, bytearray)) and len(value) == stride * cpus:
            return bytes(value)
        values = value if isinstance(value, list) else [value] * cpus
        if len(values) != cpus:
            raise InputError(f"{len(values)} values", where=where, hint=f"one for each of {cpus} CPUs")
        return b"".join(shape.encode(one, f"{where}[{i}]").ljust(stride, b"\0") for i, one in enumerate(values))

    def decode_value(self, raw: bytes) -> Any:
        """Return the typed value of its bytes; a list, one for each CPU, for a per-CPU map; it refuses changes."""
        if not self.per_cpu:
            return copied(self.value_shape.decode(raw))
        size = self.value_shape.size
        return copied([self.value_shape.decode(raw[at : at + size]) for at in range(0, len(raw), _stride(size))])

    def _cpus(self, key: bytes) -> int:
        """Return how many CPUs a value is for: as many as an element of the map has, else as this machine may have."""
        raw = self.raw.lookup(key) if key else None
        if raw is None and (first := self.raw.next_key(None)) is not None:
            raw = self.raw.lookup(first)
        return len(raw) // _stride(self.spec.value_size) if raw else possible_cpus()

    def _prefix(self, text: str) -> bytes:
        """Return the key of an LPM trie for "address/length"."""
        address, _, length = text.partition("/")
        size = self.spec.key_size - _PREFIX_SIZE
        raw = address_bytes(address, size)
        bits = int(length) if length.isdigit() else size * 8
        if raw is None or (length and not length.isdigit()) or bits > size * 8:
            raise InputError(
                f"{text!r} is not a prefix", where=f"map {self.spec.name} key", hint=f"ADDRESS/LENGTH, of {size} bytes"
            )
        return bits.to_bytes(_PREFIX_SIZE, "little") + raw


def _stride(size: int) -> int:
    """Return the bytes from one CPU's value to the next."""
    return -(-size // 8) * 8

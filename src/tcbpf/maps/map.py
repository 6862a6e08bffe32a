"""A map of either datapath, as Python sees it: bytes underneath, BTF-typed keys and values on top."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from tcbpf.obj.program import MapSpec

BPF_ANY, BPF_NOEXIST, BPF_EXIST = 0, 1, 2


class RawMap(Protocol):
    """What a datapath gives for one map: bpf(2)'s element commands on bytes.

    Units:   keys are spec.key_size bytes. Values are spec.value_size bytes, or for a per-CPU type that size rounded up to 8
             times the number of possible CPUs (SPEC 61).
    Raises:  MapError with bpf(2)'s errno.
    """

    @property
    def spec(self) -> MapSpec: ...
    @property
    def id(self) -> int: ...
    def lookup(self, key: bytes) -> bytes | None: ...
    def update(self, key: bytes, value: bytes, flags: int = BPF_ANY) -> None: ...
    def delete(self, key: bytes) -> bool: ...                      # False when there was none
    def next_key(self, key: bytes | None) -> bytes | None: ...     # None starts, and ends
    def freeze(self) -> None: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...


class Map:
    """A live map. Subscripts take and give typed values (an IP address as "10.0.0.1", a struct as a dict, an int as an int)."""

    def __init__(self, raw: RawMap) -> None:
        self.raw = raw

    @property
    def spec(self) -> MapSpec:
        """What the map is."""
        return self.raw.spec

    def __getitem__(self, key: Any) -> Any:
        raise NotImplementedError

    def __setitem__(self, key: Any, value: Any) -> None:
        raise NotImplementedError

    def __delitem__(self, key: Any) -> None:
        raise NotImplementedError

    def items(self) -> Iterator[tuple[Any, Any]]:
        """Yield typed pairs; an element that vanishes on the way is passed over."""
        raise NotImplementedError

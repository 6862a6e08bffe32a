"""Records that programs write to a ring buffer or a perf event array, read from Python."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol, Self

from tcbpf.errors import InputError, ObjectError
from tcbpf.maps.typed import decode
from tcbpf.obj.program import MapSpec
from tcbpf.tables.maps import having

READABLE = having(lambda row: bool(row.records))
PAUSE_S = 0.001  # between two looks at an empty buffer


class RawRecords(Protocol):
    """A datapath's reader of one map; a perf event array takes records from when this is made until it is closed."""

    @property
    def lost(self) -> int: ...  # records that found no room
    def take(self) -> bytes | None: ...  # the next one; None when there is none now
    def close(self) -> None: ...


class Records:
    """The records of one map. Iterating takes those that are there now, in their order (of each CPU, for a perf event array).

    A perf event array pads a record to four bytes short of a multiple of eight.
    """

    def __init__(self, raw: RawRecords, decode: Callable[[bytes], Any]) -> None:
        self._raw, self._decode = raw, decode

    def __iter__(self) -> Iterator[Any]:
        while (record := self._raw.take()) is not None:
            yield self._decode(record)

    def wait(self, timeout: float | None = None) -> Any:
        """Take the next record, waiting for it at most `timeout` seconds; None when there came none."""
        until = None if timeout is None else time.monotonic() + timeout
        while (record := self._raw.take()) is None:
            if until is not None and time.monotonic() >= until:
                return None
            time.sleep(PAUSE_S)
        return self._decode(record)

    @property
    def lost(self) -> int:
        """Number of records dropped so far because the buffer was full."""
        return self._raw.lost

    def close(self) -> None:
        """Stop reading."""
        self._raw.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def decoder(spec: MapSpec, type: str) -> Callable[[bytes], Any]:
    """Return what turns a record into a value of the C type `type` ("struct event", "event"), or leaves it bytes for "".

    Raises:  InputError when the map's BTF has no such type.
    """
    if not type:
        return bytes
    name = type.split()[-1]
    found = next((t for t in range(1, len(spec.btf)) if spec.btf[t].name == name), 0) if spec.btf else 0
    if not found or spec.btf is None:
        raise InputError(
            f"no type {type!r} in the BTF",
            where=f"map {spec.name}",
            hint="a type that no map, global or function has is left out by the compiler",
        )
    btf = spec.btf
    try:
        size = btf.sizeof(found)
    except ObjectError as error:
        raise InputError(f"{type!r} has no size", where=f"map {spec.name}", hint=error.what) from None

    def typed(record: bytes) -> Any:
        if len(record) < size:
            raise InputError(f"a record of {len(record)} bytes", where=f"map {spec.name}", hint=f"{type} has {size}")
        return decode(btf, found, record[:size])

    return typed

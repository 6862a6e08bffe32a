"""BTF of a whole kernel: some hundred thousand types, of which a program asks for a few. Only those are made.

Source:  /sys/kernel/btf/vmlinux.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import overload

from tcbpf.errors import NotSupported, ObjectError
from tcbpf.obj.btf import VOID, Btf, Type
from tcbpf.obj.btf_parse import extent, read_type, record_size

VMLINUX = "/sys/kernel/btf/vmlinux"


class _Records(Sequence[Type]):
    """The types of a blob, each made when it is asked for."""

    def __init__(self, raw: bytes, starts: Sequence[int], strings: tuple[int, int]) -> None:
        self.raw, self.starts, self.strings = raw, starts, strings
        self.made: dict[int, Type] = {0: VOID}

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, id: int) -> Type: ...
    @overload
    def __getitem__(self, id: slice) -> Sequence[Type]: ...

    def __getitem__(self, id: int | slice) -> Type | Sequence[Type]:
        if isinstance(id, slice):
            return [self[i] for i in range(*id.indices(len(self)))]
        row = self.made.get(id)
        if row is None:
            row = self.made[id] = read_type(self.raw, id, self.starts[id], self.strings)
        return row


class KernelBtf(Btf):
    """BTF whose types are found by the place of their name in the string section, without making the others."""

    def __init__(self, raw: bytes) -> None:
        (at, end), strings = extent(raw)
        starts, names = [0], [0]
        try:
            while at < end:
                starts.append(at)
                names.append(struct.unpack_from("<I", raw, at)[0])
                at += record_size(raw, at)
        except struct.error:
            raise ObjectError("a type is cut off", section=".BTF", offset=at) from None
        self.known: dict[str, tuple[Type, ...]] = {}
        self.by_place: dict[int, list[int]] = {}
        for id, place in enumerate(names):
            if place:
                self.by_place.setdefault(place, []).append(id)
        super().__init__(raw, _Records(raw, starts, strings), strings)

    def named(self, name: str) -> Iterator[Type]:
        """Yield every type of that name."""
        rows = self.known.get(name)
        if rows is None:
            rows = self.known[name] = tuple(self._search(name))
        return iter(rows)

    def _search(self, name: str) -> Iterator[Type]:
        start, size = self._strings
        text = b"\0" + name.encode() + b"\0"
        place = self.raw.find(text, start, start + size)
        while place >= 0:
            yield from (self.types[id] for id in self.by_place.get(place + 1 - start, ()))
            place = self.raw.find(text, place + 1, start + size)


@lru_cache(maxsize=1)
def kernel_btf() -> KernelBtf:
    """Return the running kernel's types.

    Raises:  NotSupported when the kernel does not show them.
    """
    try:
        return KernelBtf(Path(VMLINUX).read_bytes())
    except OSError as error:
        raise NotSupported(f"no BTF of the running kernel: {VMLINUX}: {error.strerror}") from None

"""A packet for a program: its bytes, its context fields, and what came of them (struct tcbpf_skb)."""

from __future__ import annotations

import ctypes
from functools import cache

from tcbpf.errors import InputError
from tcbpf.native.library import constant, function, struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from tcbpf.tables.skb import Field

LOOPBACK = 1  # the interface that BPF_PROG_TEST_RUN gives a packet
_BYTES = {1: ctypes.c_uint8, 4: ctypes.c_uint32, 8: ctypes.c_uint64}


class Skb:
    """A packet buffer with room before and behind, used again and again."""

    def __init__(self) -> None:
        self.struct: Any = struct("tcbpf_skb")()
        self._buffer = ctypes.create_string_buffer(constant("BUFFER"))
        self.struct.spare = ctypes.addressof(self._buffer)
        self.struct.spare_end = self.struct.spare + constant("BUFFER")
        self.struct.u.ifindex = LOOPBACK

    @property
    def address(self) -> int:
        """Address of the struct: a program's context."""
        return ctypes.addressof(self.struct)

    def load(self, packet: bytes, ctx: Mapping[str, int] | None = None) -> Skb:
        """Lay out a packet as BPF_PROG_TEST_RUN does, and set context fields by their names in tables.skb.

        Raises:  InputError for a packet that no buffer holds, a field that does not exist or that no number sets.
        """
        headroom = constant("HEADROOM")
        largest = constant("BUFFER") - 3 * headroom
        if len(packet) > largest:
            raise InputError(f"a packet of {len(packet)} bytes", hint=f"at most {largest}")
        skb, u = self.struct, self.struct.u
        skb.head, skb.end, skb.readonly, skb.at_ingress = skb.spare, skb.spare_end, 0, 0
        u.mark = u.priority = u.ingress_ifindex = 0
        u.ifindex, skb.dev = LOOPBACK, 0
        ctypes.memmove(skb.head + headroom, packet, len(packet))
        _set()(self.address, skb.head + headroom, len(packet), len(packet))
        for name, number in (ctx or {}).items():
            self.set(name, number)
        return self

    def set(self, name: str, number: int) -> None:
        """Set one context field.

        Raises:  InputError when there is no such field, or it holds a pointer, or the number does not fit.
        """
        row = _fields().get(name)
        if row is None:
            raise InputError(f"no context field {name!r} that a number sets", hint=", ".join(_fields()))
        _, size = row.native if row.native != (0, 0) else (0, row.size)
        if not 0 <= number < 1 << 8 * size:
            raise InputError(f"{name} has {8 * size} bits; {number} does not fit")
        _BYTES[row.size].from_address(self.address + row.off).value = number

    def get(self, name: str) -> int:
        """Return one context field.

        Raises:  KeyError.
        """
        row = _fields()[name]
        return int(_BYTES[row.size].from_address(self.address + row.off).value)

    def ctx(self) -> dict[str, int]:
        """Return every context field that is a number, by name."""
        return {name: self.get(name) for name in _fields()}

    def packet(self) -> bytes:
        """Return the packet's bytes, from the link header on."""
        return ctypes.string_at(self.struct.data, self.struct.u.len)


@cache
def _fields() -> dict[str, Field]:
    """Return the fields that are numbers, by name; a packet that goes through the loop needs none of them."""
    from tcbpf.tables.skb import SKB

    return {row.name: row for row in SKB if not row.pointer}


def _set() -> Any:
    return function("tcbpf_skb_set", None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32)

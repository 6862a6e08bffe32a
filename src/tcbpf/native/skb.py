"""A packet as a program's context: its bytes and fields, before and after a run (struct tcbpf_skb)."""

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
    """A reusable packet buffer with head room and tail room."""

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

    def load(self, packet: bytes, ctx: Mapping[str, Any] | None = None, *, link_header: bool = True) -> Skb:
        """Lay out a packet as BPF_PROG_TEST_RUN does, and set context fields by their names in tables.skb.

        A run starts from nothing: what the last one left, in whatever field, is gone. Without `link_header` data starts behind
        it, as for a program that is not traffic control's.

        Raises:  InputError for a packet that is not bytes or that no buffer holds, a field that does not exist or that no
                 number sets, a number that does not fit.
        """
        from tcbpf.control.given import numbers_of, packet_of  # a packet that goes through the loop needs none of them
        from tcbpf.uapi.packet import ETH_HLEN

        packet = packet_of(packet)
        largest = constant("BUFFER") - 3 * constant("HEADROOM")
        if len(packet) > largest:
            raise InputError(f"a packet of {len(packet)} bytes", hint=f"at most {largest}")
        numbers, skb = numbers_of(ctx, len(packet)), self.clear().struct
        ctypes.memmove(skb.data, packet, len(packet))
        _set()(self.address, skb.data, len(packet), len(packet))
        if not link_header:
            self._pull(min(ETH_HLEN, len(packet)))
        for name, number in numbers.items():
            self.set(name, number)
        if not skb.u.ifindex:
            skb.u.ifindex = LOOPBACK
        return self

    def clear(self) -> Skb:
        """Hold an empty packet on the loopback, and nothing of the last one."""
        skb, room = self.struct, (self.struct.spare, self.struct.spare_end)
        ctypes.memset(self.address, 0, ctypes.sizeof(skb))
        skb.spare, skb.spare_end = skb.head, skb.end = room
        skb.u.ifindex = LOOPBACK
        _set()(self.address, skb.head + constant("HEADROOM"), 0, 0)
        return self

    def _pull(self, size: int) -> None:
        """Start behind the link header, which stays where it is; the network header is what data starts with."""
        skb = self.struct
        skb.data += size
        skb.data_meta, skb.mac_back, skb.network, skb.mac_len = skb.data, size, 0, 0
        skb.u.len -= size
        skb.u.wire_len -= size

    def set(self, name: str, number: int) -> None:
        """Set one context field to a number that was checked.

        Raises:  KeyError.
        """
        row = _fields()[name]
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

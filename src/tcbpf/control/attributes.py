"""Netlink attributes, packed and read: kind, length and payload, padded to 4 bytes.

Source:  include/uapi/linux/netlink.h; netlink(7).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tcbpf.uapi import netlink as uapi

TCA_KIND, TCA_OPTIONS, TCA_XSTATS, TCA_STATS2, TCA_CHAIN = 1, 2, 4, 7, 11  # linux/rtnetlink.h, which gives them no BTF name
TCA_INGRESS_BLOCK, TCA_EGRESS_BLOCK = 13, 14

_ATTR = struct.Struct("=HH")


def attr(kind: int, payload: bytes) -> bytes:
    """Return one attribute, padded to 4 bytes."""
    size = _ATTR.size + len(payload)
    return _ATTR.pack(size, kind) + payload + bytes(-size % 4)


def nest(kind: int, *attrs: bytes) -> bytes:
    """Return a nested attribute."""
    return attr(kind | uapi.NLA_F_NESTED, b"".join(attrs))


def text(kind: int, value: str) -> bytes:
    """Return a string attribute, with its final zero."""
    return attr(kind, value.encode() + b"\0")


def u16(kind: int, value: int) -> bytes:
    """Return a 16-bit attribute in host order."""
    return attr(kind, struct.pack("=H", value))


def u32(kind: int, value: int) -> bytes:
    """Return a 32-bit attribute in host order."""
    return attr(kind, struct.pack("=I", value))


def pairs(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (kind, payload) of each attribute; a damaged rest ends it."""
    at = 0
    while at + _ATTR.size <= len(raw):
        size, kind = _ATTR.unpack_from(raw, at)
        if size < _ATTR.size or at + size > len(raw):
            return
        yield kind & uapi.NLA_TYPE_MASK, raw[at + _ATTR.size : at + size]
        at += (size + 3) & ~3


def attrs(raw: bytes) -> dict[int, bytes]:
    """Return the attributes by kind; the last of a repeated one counts."""
    return dict(pairs(raw))


def number(raw: bytes | None, default: int = 0) -> int:
    """Return an unsigned host-order number of any size, or `default` for none."""
    return default if raw is None else int.from_bytes(raw, "little" if struct.pack("=H", 1)[0] else "big")


def string(raw: bytes | None) -> str:
    """Return a string attribute without its final zero."""
    return "" if raw is None else raw.split(b"\0", 1)[0].decode(errors="replace")

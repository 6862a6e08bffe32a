"""The Internet checksum: of bytes, of a transport segment with its pseudo header, and its incremental update.

Source:  RFC 1071, RFC 1624, RFC 8200 section 8.1.
"""

from __future__ import annotations

import socket
import struct


def ones_sum(data: bytes, start: int = 0) -> int:
    """Return the 16-bit ones' complement sum of `data`; an odd last byte is the upper half of a word."""
    if len(data) % 2:
        data += b"\0"
    total = start + int(sum(struct.unpack(f"!{len(data) // 2}H", data)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def checksum(data: bytes, start: int = 0) -> int:
    """Return the Internet checksum of `data`: the complement of its sum, starting from `start`."""
    return ~ones_sum(data, start) & 0xFFFF


def pseudo_header(source: str, destination: str, protocol: int, length: int) -> bytes:
    """Return the pseudo header of a segment of `length` bytes between two addresses of either IP version."""
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    addresses = socket.inet_pton(family, source) + socket.inet_pton(family, destination)
    if family == socket.AF_INET6:
        return addresses + struct.pack("!IxxxB", length, protocol)
    return addresses + struct.pack("!BBH", 0, protocol, length)


def segment_checksum(source: str, destination: str, protocol: int, segment: bytes) -> int:
    """Return the checksum of a TCP, UDP or ICMPv6 segment whose own checksum field is zero; UDP's 0 is sent as
    0xffff.
    """
    value = checksum(pseudo_header(source, destination, protocol, len(segment)) + segment)
    return 0xFFFF if value == 0 and protocol == socket.IPPROTO_UDP else value


def update(old_sum: int, old: bytes, new: bytes) -> int:
    """Return the checksum after `old` bytes (at an even offset) became `new`. Source: RFC 1624, equation 3."""
    return ~ones_sum(new, (~old_sum & 0xFFFF) + (~ones_sum(old) & 0xFFFF)) & 0xFFFF

"""Build packets from headers, with correct lengths and checksums, for generators and tests.

Each function takes a header's fields and its payload and returns bytes; calls nest.
"""

from __future__ import annotations

import socket
import struct

from tcbpf.net.checksum import checksum, segment_checksum
from tcbpf.uapi.packet import ETH_P_8021Q, ETH_P_IP

SYN, ACK, PSH, FIN, RST = 0x02, 0x10, 0x08, 0x01, 0x04


def mac(text: str) -> bytes:
    """Return the six bytes of an address like aa:bb:cc:dd:ee:ff."""
    return bytes.fromhex(text.replace(":", ""))


def ether(
    payload: bytes,
    *,
    protocol: int = ETH_P_IP,
    source: str = "02:00:00:00:00:01",
    destination: str = "02:00:00:00:00:02",
    vlan: int | None = None,
    pad: int = 0,
) -> bytes:
    """Return an Ethernet frame, with a tag when `vlan` (a TCI) is given, zero-padded to `pad` bytes."""
    tag = struct.pack("!HH", ETH_P_8021Q, vlan) if vlan is not None else b""
    frame = mac(destination) + mac(source) + tag + struct.pack("!H", protocol) + payload
    return frame + bytes(max(0, pad - len(frame)))


def ipv4(
    payload: bytes,
    *,
    source: str = "10.0.0.1",
    destination: str = "10.0.0.2",
    protocol: int = socket.IPPROTO_UDP,
    ttl: int = 64,
    tos: int = 0,
    ident: int = 0,
    fragment: int = 0x4000,
    options: bytes = b"",
) -> bytes:
    """Return an IPv4 packet; `fragment` is the flags and offset word (0x4000: don't fragment)."""
    words = 5 + len(options) // 4
    head = (
        struct.pack(
            "!BBHHHBBH4s4s",
            0x40 | words,
            tos,
            words * 4 + len(payload),
            ident,
            fragment,
            ttl,
            protocol,
            0,
            socket.inet_aton(source),
            socket.inet_aton(destination),
        )
        + options
    )
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def ipv6(
    payload: bytes,
    *,
    source: str = "fd00::1",
    destination: str = "fd00::2",
    protocol: int = socket.IPPROTO_UDP,
    hops: int = 64,
    label: int = 0,
) -> bytes:
    """Return an IPv6 packet; `protocol` is the next header, of an extension header or a segment."""
    ends = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, destination)
    return struct.pack("!IHBB", 6 << 28 | label, len(payload), protocol, hops) + ends + payload


def udp(
    payload: bytes,
    *,
    sport: int = 40000,
    dport: int = 53,
    source: str = "10.0.0.1",
    destination: str = "10.0.0.2",
) -> bytes:
    """Return a UDP segment between two addresses of either IP version."""
    raw = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload
    return raw[:6] + struct.pack("!H", segment_checksum(source, destination, socket.IPPROTO_UDP, raw)) + payload


def tcp(
    payload: bytes,
    *,
    sport: int = 40000,
    dport: int = 80,
    seq: int = 0,
    ack: int = 0,
    flags: int = ACK,
    window: int = 65535,
    source: str = "10.0.0.1",
    destination: str = "10.0.0.2",
) -> bytes:
    """Return a TCP segment between two addresses of either IP version."""
    raw = struct.pack("!HHIIBBHHH", sport, dport, seq, ack, 5 << 4, flags, window, 0, 0) + payload
    return raw[:16] + struct.pack("!H", segment_checksum(source, destination, socket.IPPROTO_TCP, raw)) + raw[18:]


def dns_query(name: str, *, ident: int = 1, kind: int = 1) -> bytes:
    """Return a DNS question for `name` (kind 1: A, 28: AAAA)."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.rstrip(".").split("."))
    return struct.pack("!HHHHHH", ident, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)

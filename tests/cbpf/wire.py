"""A veth pair in a namespace of its own, with a packet socket's filter at one end: the kernel's verdict on whole frames.

Unlike a Unix datagram such a packet has a device, a protocol, a type, tags and headers, which the extensions read.
"""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from netns import netns, within
from tcbpf.cbpf import Classic, sockets
from tcbpf.control.objects import Link
from tcbpf.control.request import Op, Request

ETH_P_ALL, SOL_PACKET, PACKET_AUXDATA, PACKET_IGNORE_OUTGOING, TP_STATUS_VLAN_VALID = 3, 263, 8, 23, 0x10
ADDRESS = "02:00:00:00:00:05"
AUXDATA = struct.Struct("=IIIHHHH")


@dataclass
class Wire:
    """Frames go in at `near`; `plain` gets them all, `filtered` those that its filter passes, at `index`'s end."""

    near: socket.socket
    plain: socket.socket
    filtered: socket.socket
    index: int

    def attach(self, program: Sequence[Classic]) -> None:
        """Let the filtered socket have this filter, and nothing that came before it."""
        sockets.attach(self.filtered, program)

    def send(self, frame: bytes) -> tuple[int, bytes, dict[str, int]]:
        """Return what the filter returned, at most the frame's length; the frame as it arrived and the context it came with."""
        self.near.send(frame)
        arrived, notes, _, (_, _, kind, *_) = self.plain.recvmsg(65536, 256)
        status, *_, tci, tpid = AUXDATA.unpack(notes[0][2])
        context = {"ifindex": self.index, "pkt_type": kind}
        if status & TP_STATUS_VLAN_VALID:
            context |= {"vlan_present": 1, "vlan_tci": tci, "vlan_proto": socket.htons(tpid)}
        try:
            return len(self.filtered.recv(65536)), arrived, context
        except BlockingIOError:
            return 0, arrived, context


@contextmanager
def wire() -> Iterator[Wire]:
    """Lay the wire."""
    from tcbpf.datapath.kernel import Kernel

    def packet_socket(dev: str, *, receives: bool) -> socket.socket:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        sock.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        sock.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        sock.bind((dev, ETH_P_ALL if receives else 0))
        return sock

    with netns() as path, Kernel(netns=path) as dp:
        dp.apply(Request(Op.ADD, Link("em1", kind="veth", peer="em2", address=ADDRESS)))
        for dev in "em1", "em2":
            dp.apply(Request(Op.CHANGE, Link(dev, mtu=9100, up=True)))
        near, plain, filtered = within(
            path,
            lambda: [
                packet_socket("em2", receives=False),
                packet_socket("em1", receives=True),
                packet_socket("em1", receives=True),
            ],
        )
        index = within(path, lambda: socket.if_nametoindex("em1"))
        plain.settimeout(5)
        filtered.setblocking(False)  # the kernel serves it before `plain`, which was there first
        with near, plain, filtered:
            yield Wire(near, plain, filtered, index)


# --- frames whose headers a flow dissector has to follow ---------------------------------------------------------------

ETHER = {
    "ip": 0x0800,
    "ip6": 0x86DD,
    "vlan": 0x8100,
    "qinq": 0x88A8,
    "pppoe": 0x8864,
    "mpls": 0x8847,
    "batman": 0x4305,
    "tipc": 0x88CA,
    "fcoe": 0x8906,
    "ptp": 0x88F7,
    "hsr": 0x892F,
    "prp": 0x88FB,
    "cfm": 0x8902,
    "arp": 0x0806,
    "other": 0x1234,
}
INNER = {
    "tcp": 6,
    "udp": 17,
    "udplite": 136,
    "icmp": 1,
    "icmp6": 58,
    "igmp": 2,
    "sctp": 132,
    "dccp": 33,
    "gre": 47,
    "ipip": 4,
    "ip6in": 41,
    "mplsip": 137,
    "hop": 0,
    "routing": 43,
    "dest": 60,
    "frag": 44,
    "esp": 50,
    "ah": 51,
    "x": 200,
}


def frame(rng: random.Random) -> bytes:
    """Return an Ethernet frame of random headers one in another, now and then cut short or damaged."""
    made = bytes.fromhex(ADDRESS.replace(":", "")) + b"\x02\0\0\0\0\x06" + _network(rng, 0)
    if rng.random() < 0.3 and len(made) > 20:
        made = made[: rng.randrange(20, len(made) + 1)]  # the kernel drops a tag without what it tags
    if rng.random() < 0.3 and len(made) > 20:
        at = rng.randrange(20, len(made))
        made = made[:at] + rng.randbytes(1) + made[at + 1 :]
    return made[:8000].ljust(20, b"\0")


def _network(rng: random.Random, depth: int) -> bytes:
    """Return an EtherType and what follows it."""
    names = list(ETHER) if depth < 18 else ["ip", "other"]
    name = rng.choice([*names, *["ip", "ip6", "vlan", "hsr"] * 4]) if depth < 18 else rng.choice(names)
    kind = struct.pack("!H", ETHER[name])
    match name:
        case "ip":
            return kind + _ipv4(rng, depth)
        case "ip6":
            return kind + _ipv6(rng, depth)
        case "vlan" | "qinq":
            return kind + rng.randbytes(2) + _network(rng, depth + 1)
        case "hsr" | "prp":
            return kind + rng.randbytes(4) + _network(rng, depth + 1)
        case "pppoe":
            ppp = rng.choice([0x21, 0x57, 0x281, 0x283, 0xC021, 0x0100])
            rest = {0x21: _ipv4, 0x57: _ipv6}.get(ppp, _rest)
            code = rng.choice([b"\x11\0", b"\x11\0", b"\x11\x09", b"\x21\0"])
            return kind + code + rng.randbytes(4) + struct.pack("!H", ppp) + rest(rng, depth + 1)
        case "batman":
            head = rng.choice([b"\x40\x0f", b"\x40\x0f", b"\x40\x0e", b"\x41\x0f"])
            return kind + head + rng.randbytes(8 + 12) + _network(rng, depth + 1)
    return kind + rng.randbytes(rng.randrange(50))


def _rest(rng: random.Random, depth: int) -> bytes:
    return rng.randbytes(rng.randrange(40))


def _ipv4(rng: random.Random, depth: int) -> bytes:
    name, words = rng.choice(list(INNER)), rng.choice([5, 5, 5, 6, 15, 4])
    fragment = rng.choice([0, 0, 0, 0x4000, 0x2000, 0x2001, 0x0FFF])
    head = struct.pack("!BBHHHBBH", 0x40 | words, 0, 0, 0, fragment, 64, INNER[name], 0)
    return head + rng.randbytes(8 + 4 * max(0, words - 5)) + _transport(rng, name, depth + 1)


def _ipv6(rng: random.Random, depth: int) -> bytes:
    name = rng.choice([*INNER, *["hop", "dest", "frag"] * 3])
    return b"\x60\0\0\0\0\0" + bytes([INNER[name], 64]) + rng.randbytes(32) + _transport(rng, name, depth + 1)


def _transport(rng: random.Random, name: str, depth: int) -> bytes:
    if depth > 18:
        return rng.randbytes(20)
    match name:
        case "tcp":
            return rng.randbytes(12) + bytes([rng.choice([0x50, 0x80, 0xF0, 0x20])]) + rng.randbytes(rng.randrange(60))
        case "ipip":
            return _ipv4(rng, depth)
        case "ip6in":
            return _ipv6(rng, depth)
        case "gre":
            return _gre(rng, depth)
        case "hop" | "dest" | "routing":
            size, after = rng.choice([0, 0, 1, 3]), rng.choice(list(INNER))
            return bytes([INNER[after], size]) + rng.randbytes(6 + 8 * size) + _transport(rng, after, depth + 1)
        case "frag":
            after = rng.choice(list(INNER))
            return (
                bytes([INNER[after], 0])
                + struct.pack("!H", rng.choice([0, 1, 8, 0xFFF9]))
                + rng.randbytes(4)
                + _transport(rng, after, depth + 1)
            )
    return rng.randbytes(rng.randrange(40))


def _gre(rng: random.Random, depth: int) -> bytes:
    version = rng.choice([0, 0, 0, 1, 1, 2])
    flags = rng.choice([0, 0x8000, 0x2000, 0x1000, 0xB000, 0x4000, 0x2080, 0x3080, 0x3000]) | version
    options = 4 * sum(bool(flags & bit) for bit in (0x8000, 0x2000, 0x1000)) + (4 if version == 1 and flags & 0x80 else 0)
    head, body = struct.pack("!H", flags), rng.randbytes(options)
    if version == 1:
        ppp, rest = rng.choice([(0x21, _ipv4), (0x57, _ipv6), (0xC021, _rest)])
        kind = rng.choice([0x880B, 0x880B, 0x0800])
        return head + struct.pack("!H", kind) + body + struct.pack("!HH", 0xFF03, ppp) + rest(rng, depth + 1)
    if rng.random() < 0.4:
        return head + struct.pack("!H", 0x6558) + body + rng.randbytes(12) + _network(rng, depth + 1)
    inner = _network(rng, depth + 1)
    return head + inner[:2] + body + inner[2:]

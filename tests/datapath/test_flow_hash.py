"""bpf_get_hash_recalc(): which packets share a hash is the same as on the live kernel, whose numbers have a secret in them."""

from __future__ import annotations

import random
from itertools import combinations
from struct import pack

import pytest

from tcbpf.datapath.kernel import Kernel
from tcbpf.datapath.user import User
from tcbpf.isa.asm import assemble
from tcbpf.obj.program import Program

ETH = bytes(12)
A, B, C = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2)), bytes((10, 0, 0, 3))
A6, B6 = bytes(15) + b"\1", bytes(15) + b"\2"
PROGRAM = Program("hash", "sched_cls", tuple(assemble("call bpf_get_hash_recalc\nexit")))
TAGGED = "r6 = r1\nr2 = 0x0081\nr3 = {tci}\ncall bpf_skb_vlan_push\nr1 = r6\ncall bpf_get_hash_recalc\nexit"


def udp(sport: int = 1, dport: int = 2) -> bytes:
    return pack(">4H", sport, dport, 8, 0)


def ip(src: bytes = A, dst: bytes = B, proto: int = 17, rest: bytes = b"", frag: int = 0, ihl: int = 5) -> bytes:
    body = rest or udp()
    return (
        pack(">BBHHHBBH", 0x40 | ihl, 0, ihl * 4 + len(body), 1, frag, 64, proto, 0)
        + src
        + dst
        + bytes(max(0, ihl * 4 - 20))
        + body
    )


def ip6(src: bytes = A6, dst: bytes = B6, proto: int = 17, rest: bytes = b"", label: int = 0) -> bytes:
    body = rest or udp()
    return pack(">IHBB", 0x60000000 | label, len(body), proto, 64) + src + dst + body


def frame(ethertype: int, rest: bytes) -> bytes:
    return ETH + pack(">H", ethertype) + rest


def tag(tci: int, ethertype: int, rest: bytes) -> bytes:
    return pack(">HH", tci, ethertype) + rest


def pppoe(proto: bytes, rest: bytes, code: int = 0) -> bytes:
    return pack(">BBHH", 0x11, code, 5, len(rest) + 2) + proto + rest


def gre(flags: int, proto: int, *more: bytes) -> bytes:
    return pack(">HH", flags, proto) + b"".join(more)


IP, IP6, Q, AD, MPLS, TEB, PPP = 0x800, 0x86DD, 0x8100, 0x88A8, 0x8847, 0x6558, 0x880B
PLAIN = [
    frame(IP, body)
    for body in (
        ip(), ip(B, A, rest=udp(2, 1)), ip(B, A), ip(rest=udp(2, 1)), ip(dst=C), ip(rest=udp(1, 3)), ip(proto=6), ip(proto=136),
        ip(proto=132), ip(proto=50), ip(proto=50, rest=udp(9, 9)), ip(proto=51), ip(proto=51, rest=udp(9, 9)), ip(proto=1),
        ip(proto=1, rest=b"\x08\0\0\0\0\1\0\1"), ip(proto=1, rest=b"\x08\0\0\0\0\2\0\1"), ip(proto=33), ip(proto=89),
        ip(frag=0x2000), ip(frag=0x2000, rest=udp(7, 7)), ip(frag=5), ip(frag=0x4000), ip(ihl=6), ip(ihl=7), ip(ihl=4),
        ip(rest=b"\0\1"), ip()[:18] + bytes(30), ip(proto=4, rest=ip(B, C)), ip(proto=4, rest=ip(B, C, rest=udp(5, 6))),
        ip(proto=41, rest=ip6()), ip(C, A, proto=41, rest=ip6()), ip(proto=137, rest=bytes(8)), ip(proto=137, rest=bytes(12)),
        ip(proto=0), ip(proto=44), ip(proto=4, rest=ip(B, C, frag=0x2000)),
    )
]  # fmt: skip
GRES = [
    frame(IP, ip(proto=47, rest=body))
    for body in (
        gre(0, IP, ip(B, C)), gre(0, IP, ip(B, C, rest=udp(5, 6))), gre(0x2000, IP, b"\0\0\0\1", ip(B, C)),
        gre(0x2000, IP, b"\0\0\0\2", ip(B, C)), gre(0x8000, IP, bytes(4), ip(B, C)), gre(0x1000, IP, bytes(4), ip(B, C)),
        gre(0xB000, IP, bytes(4), b"\0\0\0\1", bytes(4), ip(B, C)), gre(0x4000, IP, ip(B, C)), gre(2, IP, ip(B, C)),
        gre(0, TEB, frame(IP, ip(B, C))), gre(0, TEB, frame(IP6, ip6())), gre(0, TEB, b"\0\0"),
        gre(0x2001, PPP, b"\0\0\0\1", b"\xff\3\0\x21", ip(B, C)), gre(0x2001, PPP, b"\1\0\0\1", b"\xff\3\0\x21", ip(B, C)),
        gre(0x3081, PPP, b"\0\0\0\1", bytes(8), b"\xff\3\0\x57", ip6()), gre(0x0001, PPP, bytes(8)), gre(0x2001, IP, bytes(8)),
        gre(0x2000, IP), gre(0, IP6, ip6()), gre(0, 0x806, bytes(28)),
    )
]  # fmt: skip
SIX = [
    frame(IP6, body)
    for body in (
        ip6(), ip6(B6, A6, rest=udp(2, 1)), ip6(rest=udp(3, 4)), ip6(label=5), ip6(label=5, rest=udp(3, 4)), ip6(label=6),
        ip6(proto=0, rest=b"\x11\0" + bytes(6) + udp()), ip6(proto=60, rest=b"\x11\1" + bytes(14) + udp()),
        ip6(proto=43, rest=b"\x11\0" + bytes(6) + udp(5, 6)), ip6(proto=44, rest=b"\x11\0\0\1" + bytes(4) + udp()),
        ip6(proto=44, rest=b"\x11\0\0\1" + bytes(4) + udp(7, 8)), ip6(proto=44, rest=b"\x11\0\1\0" + bytes(4) + udp()),
        ip6(proto=0, rest=b"\x11"), ip6(proto=58), ip6(proto=4, rest=ip()), ip6(proto=41, rest=ip6(B6, A6)), ip6()[:30],
        ip6(proto=47, rest=gre(0, IP, ip())), ip6(proto=59), ip6(proto=0, rest=(b"\0\0" + bytes(6)) * 20 + udp()),
    )
]  # fmt: skip
LINKS = [
    frame(*body)
    for body in (
        (Q, tag(5, IP, ip())), (Q, tag(6, IP, ip())), (Q, tag(0x2005, IP, ip())), (Q, tag(0x1005, IP, ip())),
        (AD, tag(5, IP, ip())), (Q, tag(5, IP6, ip6())), (AD, tag(5, Q, tag(6, IP, ip()))), (AD, tag(5, Q, tag(7, IP, ip()))),
        (AD, tag(4, Q, tag(6, IP, ip()))), (AD, tag(5, Q, tag(6, IP, ip(rest=udp(9, 8))))), (Q, tag(5, 0x806, bytes(28))),
        (Q, tag(5, Q, tag(6, Q, tag(7, IP, ip())))), (Q, tag(5, Q, tag(6, Q, tag(8, IP, ip())))), (Q, b"\0\5"),
        (MPLS, bytes(4) + ip()), (MPLS, b"\0\1\1\1" + ip()), (0x8848, bytes(4) + ip()), (0x806, bytes(28)),
        (0x806, b"\1" * 28), (0x8035, bytes(28)), (0x8864, pppoe(b"\0\x21", ip())), (0x8864, pppoe(b"\0\x57", ip6())),
        (0x8864, pppoe(b"\0\x21", ip(rest=udp(9, 8)))), (0x8864, pppoe(b"\xc0\x21", ip())), (0x8864, pppoe(b"\x21", ip())),
        (0x8864, pppoe(b"\x21", ip(rest=udp(9, 8)))), (0x8864, pppoe(b"\0\x21", ip(), code=9)), (0x8864, b"\x11\0"),
        (0x8864, pppoe(b"\2\x81", bytes(8))), (0x88CA, bytes(12) + b"\0\0\0\1"), (0x88CA, bytes(12) + b"\0\0\0\2"),
        (0x88CA, bytes(8)),
        (0x4305, b"\x40\x0f" + bytes(8) + frame(IP, ip())), (0x4305, b"\x40\x0f" + bytes(8) + frame(IP, ip(C))),
        (0x4305, b"\x41\x0f" + bytes(8) + frame(IP, ip())), (0x892F, pack(">HHH", 1, 2, IP) + ip()),
        (0x88FB, pack(">HHH", 1, 2, IP) + ip(rest=udp(9, 8))), (0x88F7, bytes(40)), (0x8906, bytes(40)), (0x8902, bytes(8)),
        (0x88B5, bytes(46)), (0x88B6, bytes(46)), (46, b"\x42\x42\3" + bytes(43)), (46, b"\xff\xff" + bytes(44)),
        (46, bytes(46)),
    )
]  # fmt: skip
PACKETS = [packet.ljust(60, b"\0") for packet in (*PLAIN, *GRES, *SIX, *LINKS)]
SHORT = [packet for packet in (*PLAIN, *GRES, *LINKS) if 40 < len(packet) < 60]


def sharing(hashes: list[int]) -> list[tuple[int, int]]:
    """Return the pairs of packets that share a hash."""
    assert all(hashes)
    return [(i, j) for (i, a), (j, b) in combinations(enumerate(hashes), 2) if a == b]


def hashes(dp: User | Kernel, program: Program, packets: list[bytes]) -> list[int]:
    prog = dp.prog_load(program)
    return [prog.run(packet).verdict for packet in packets]


@pytest.mark.kernel
@pytest.mark.parametrize(
    "program", [PROGRAM, *(Program("hash", "sched_cls", tuple(assemble(TAGGED.format(tci=tci)))) for tci in (5, 0x2006))]
)
def test_the_same_packets_share_a_hash(program: Program) -> None:
    packets = [*PACKETS, *SHORT]
    with User() as user, Kernel() as kernel:
        mine, theirs = (sharing(hashes(dp, program, packets)) for dp in (user, kernel))
    assert 10 < len(theirs) < 10 * len(packets)
    assert mine == theirs


@pytest.mark.kernel
def test_changed_packets_share_a_hash_with_theirs_where_the_kernel_says_so() -> None:
    """A byte changed at random makes another flow of a packet, or does not: which bytes are part of the key."""
    rng, packets = random.Random(7), []
    for packet in PACKETS:
        for _ in range(6):
            at = rng.randrange(12, len(packet))
            packets += [packet, packet[:at] + bytes([packet[at] ^ 1 << rng.randrange(8)]) + packet[at + 1 :]]
    packets = [p for p in packets if p[12:14] not in (b"\x08\0", b"\x86\xdd") or len(p) >= 54]
    with User() as user, Kernel() as kernel:
        mine, theirs = (hashes(dp, PROGRAM, packets) for dp in (user, kernel))
    same = [[a == b for a, b in zip(side[::2], side[1::2], strict=True)] for side in (mine, theirs)]
    assert [i for i, (a, b) in enumerate(zip(*same, strict=True)) if a != b] == []
    assert 50 < sum(same[1]) < len(same[1]) - 50
    assert all(mine)


def test_both_directions_share_a_hash() -> None:
    with User() as user:
        there, back, other = hashes(user, PROGRAM, [PLAIN[0], PLAIN[1], PLAIN[4]])
    assert there == back != other

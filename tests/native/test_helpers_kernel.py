"""Every helper that reads or changes a packet, against the live kernel: r0, memory, context, bytes."""

from __future__ import annotations

import random

import pytest

from native import packets
from native.script import Call, Out, call, differences

pytestmark = pytest.mark.kernel

ETH_P_IP, ETH_P_IPV6, Q, AD = 0x0008, 0xDD86, 0x0081, 0xA888  # network order
GROW = tuple(
    flags
    for flags in (
        0,
        1,
        2,
        4,
        6,
        2 | 8,
        4 | 16,
        2 | 8 | 16,
        2 | 64,
        2 | 16 | 64 | 14 << 56,
        4 | 14 << 56,
        32,
        128,
        256,
        512,
        2 | 255 << 56,
    )
)


def script(*calls: Call) -> tuple[Call, ...]:
    return calls


LOADS = script(
    *(call("skb_load_bytes", at, Out(n), n) for at, n in ((0, 14), (12, 2), (13, 8), (30, 40), (1 << 31, 4), (0xFFFFFFFF, 4))),
    *(
        call("skb_load_bytes_relative", at, Out(n), n, head)
        for at, n, head in ((0, 8, 0), (0, 8, 1), (6, 8, 1), (46, 2, 1), (65536, 2, 0), (0, 2, 2), (0, 14, 0))
    ),
    call("skb_pull_data", 0),
    call("skb_pull_data", 14),
    call("skb_pull_data", 60),
    call("skb_pull_data", 5000),
)
STORES = script(
    *(
        call("skb_store_bytes", at, b"\x01\x02\x03\x04\x05\x06", n, flags)
        for at, n, flags in ((0, 6, 0), (20, 6, 1), (21, 5, 1), (30, 4, 2), (50, 6, 3), (70, 6, 0), (0, 6, 4), (1 << 31, 1, 0))
    ),
)
CSUMS = script(
    *(
        call("l3_csum_replace", at, old, new, flags)
        for at, old, new, flags in (
            (24, 0xC0A8, 0x0A00, 2),
            (24, 0x0100A8C0, 0x0100000A, 4),
            (24, 0, 0x12345, 0),
            (24, 1, 5, 0),
            (24, 1, 5, 3),
            (25, 1, 5, 2),
            (1000, 1, 5, 2),
            (65536, 1, 5, 2),
            (24, 0, 0, 2),
            (24, 0xFFFF, 0, 2),
            (24, 1, 5, 16),
        )
    ),
    *(
        call("l4_csum_replace", at, old, new, flags)
        for at, old, new, flags in (
            (50, 0xC0A8, 0x0A00, 2),
            (50, 0x0100A8C0, 0x0100000A, 4 | 16),
            (50, 0, 0x12345, 0),
            (50, 1, 5, 0),
            (50, 0, 0x98765432, 16),
            (50, 1, 5, 3),
            (51, 1, 5, 2),
            (2000, 1, 5, 2),
            (50, 5, 6, 2 | 32),
            (50, 5, 6, 2 | 96),
            (52, 5, 6, 2 | 32),
            (52, 5, 6, 2 | 96),
            (50, 1, 5, 256),
            (50, 7, 9, 4 | 128),
        )
    ),
    *(
        call("csum_diff", a, len(a), b, len(b), seed, bare=True)
        for a, b, seed in (
            (b"\1\2\3\4", b"\5\6\7\x08", 0),
            (b"\1\2\3\4", b"\xff\xff\xff\xff" * 2, 7),
            (b"\xff" * 16, b"\0" * 16, 0xFFFFFFFF),
            (b"\0" * 8, b"\0" * 8, 0),
            (b"\1\2\3\4", b"\1\2\3\4", 0xFFFF),
        )
    ),
    call("csum_diff", 0, 0, b"\1\2\3\4", 4, 3, bare=True),
    call("csum_diff", b"\1\2\3\4", 4, 0, 0, 3, bare=True),
    call("csum_diff", 0, 0, 0, 0, 0x12345678, bare=True),
    call("csum_diff", b"\1\2\3", 3, 0, 0, 0, bare=True),
    call("csum_update", 5),
    *(call("csum_level", level) for level in (0, 1, 0, 1, 0, 1, 1, 0, 2, 0, 3, 0, 4)),
)
VLANS = (
    script(call("skb_vlan_pop"), call("skb_load_bytes_relative", 0, Out(4), 4, 1), call("skb_vlan_pop"), call("skb_vlan_pop")),
    script(
        call("skb_vlan_push", Q, 5),
        call("skb_load_bytes_relative", 0, Out(4), 4, 1),
        call("skb_vlan_push", AD, 0xFFFF),
        call("skb_load_bytes_relative", 0, Out(4), 4, 1),
        call("skb_vlan_push", 0x1234, 7),
        call("skb_vlan_pop"),
        call("skb_load_bytes_relative", 0, Out(4), 4, 1),
        call("skb_vlan_pop"),
        call("skb_vlan_pop"),
        call("skb_vlan_pop"),
    ),
    script(
        call("skb_vlan_push", Q, 5),
        call("skb_change_tail", 100, 0),
        call("skb_vlan_push", Q, 6),
        call("skb_change_head", 8, 0),
        call("skb_load_bytes", 0, Out(24), 24),
    ),
)
SHAPES = (
    script(
        *(
            call("skb_change_tail", n, flags)
            for n, flags in ((60, 0), (14, 0), (13, 0), (200, 0), (200, 1), (16064, 0), (16065, 0), (40, 0), (0, 0))
        )
    ),
    script(
        *(call("skb_change_head", n, flags) for n, flags in ((0, 0), (14, 0), (1, 0), (14, 1), (400, 0), (0xFFFFFFF0, 0))),
        call("skb_load_bytes_relative", 0, Out(8), 8, 1),
        call("skb_change_head", 15000, 0),
        call("skb_change_head", 900, 0),
    ),
    script(
        call("skb_change_proto", ETH_P_IPV6, 0),
        call("skb_load_bytes", 0, Out(40), 40),
        call("skb_change_proto", ETH_P_IP, 0),
        call("skb_change_proto", ETH_P_IP, 0),
        call("skb_change_proto", ETH_P_IPV6, 1),
        call("skb_change_proto", 0x0608, 0),
    ),
    script(*(call("skb_change_type", kind) for kind in (0, 1, 2, 3, 4, 0xFFFFFFFF))),
    script(call("set_hash", 0x1234567), call("get_hash_recalc"), call("set_hash_invalid"), call("skb_ecn_set_ce")),
)


@pytest.mark.parametrize("packet", packets.ALL, ids=range(len(packets.ALL)))
@pytest.mark.parametrize("calls", [LOADS, STORES, CSUMS[:11], CSUMS[11:25], CSUMS[25:], *VLANS, *SHAPES], ids=range(13))
def test_same(calls: tuple[Call, ...], packet: bytes) -> None:
    assert not differences(calls, packet)


@pytest.mark.parametrize("packet", [packets.TCP4, packets.UDP6, packets.VLAN], ids=["tcp4", "udp6", "vlan"])
@pytest.mark.parametrize("mode", [0, 1, 2])
@pytest.mark.parametrize("flags", GROW)
def test_adjust_room(packet: bytes, mode: int, flags: int) -> None:
    for size in (8, 40, -4, -20, 0, 4096):
        calls = (
            call("skb_adjust_room", size, mode, flags),
            call("skb_load_bytes_relative", 0, Out(8), 8, 1),
            call("skb_change_tail", 40, 0),
            call("skb_adjust_room", 8, 1, flags),
        )
        assert not differences(calls, packet), size


@pytest.mark.parametrize("packet", [packets.TCP4, packets.UDP6], ids=["tcp4", "udp6"])
@pytest.mark.parametrize("mode", [0, 1])
def test_room_in_a_packet_that_ends_inside_its_headers(packet: bytes, mode: int) -> None:
    for cut in (14, 20, 33, 34, 40, 53, 54, 60):
        for size in (8, 60, -4):
            calls = (call("skb_change_tail", cut, 0), call("skb_adjust_room", size, mode, 0))
            assert not differences(calls, packet), (cut, size)


ECT = packets.IPV4[:1] + b"\x02" + packets.IPV4[2:]


@pytest.mark.parametrize("tags", range(10))
@pytest.mark.parametrize("room", [0, 4, 8, 14])
def test_congestion_behind_tags(tags: int, room: int) -> None:
    rest = ECT + packets.TCP + packets.BODY
    packet = packets.tagged(0x0800, rest, *((0x8100, i) for i in range(tags)))
    change = (call("skb_change_head", room, 0),) if room else ()
    calls = (*change, call("skb_ecn_set_ce"), call("skb_ecn_set_ce"), call("skb_load_bytes_relative", 0, Out(12), 12, 1))
    assert not differences(calls, packet)


def test_gso_and_wire_len() -> None:
    calls = (
        call("skb_adjust_room", 8, 1, 0),
        call("skb_adjust_room", 8, 1, 1),
        call("skb_change_tail", 80, 0),
        call("skb_adjust_room", 8, 1, 0),
        call("skb_change_head", 40, 0),
    )
    ctx = {"gso_size": 100, "gso_segs": 4, "wire_len": 500, "mark": 9}
    assert not differences(calls, packets.TCP4, ctx)


KEY = bytes.fromhex("2a0000000102030405060708090a0b0c0d0e0f1003400000000000001112131415161718191a1b1c1d1e1f20")
LABEL = KEY[:24] + b"\xff\xff\xff\x7f" + KEY[28:]
EXT = KEY[:22] + b"\1\0" + KEY[24:]


@pytest.mark.parametrize("key", [KEY, LABEL, EXT], ids=["key", "label", "ext"])
@pytest.mark.parametrize("flags", [0, 1, 2, 4, 8, 16, 31, 32])
@pytest.mark.parametrize("size", [44, 28, 24, 22, 8, 20, 4])
def test_tunnel(key: bytes, flags: int, size: int) -> None:
    calls = (
        call("skb_set_tunnel_opt", bytes(8), 8),
        call("skb_set_tunnel_key", key, size, flags),
        *(call("skb_get_tunnel_key", Out(n), n, f) for n in (44, 28, 24, 22, 8, 12) for f in (0, 1, 16)),
        call("skb_get_tunnel_opt", Out(8), 8),
        call("skb_set_tunnel_opt", b"abcdefgh", 8),
        call("skb_get_tunnel_opt", Out(16), 16),
        call("skb_get_tunnel_opt", Out(4), 4),
        call("skb_set_tunnel_opt", b"abc", 3),
        call("skb_get_tunnel_key", Out(44), 44, 16 | flags & 1),
    )
    assert not differences(calls, packets.TCP4)


def test_redirect_codes() -> None:
    calls = (
        *(call("redirect", 1, flags, bare=True) for flags in (0, 1, 2, 8, 1 << 32)),
        *(call("redirect_peer", 1, flags, bare=True) for flags in (0, 1)),
        call("redirect_neigh", 1, 0, 0, 0, bare=True),
        call("redirect_neigh", 1, b"\2" + bytes(19), 20, 0, bare=True),
        call("redirect_neigh", 1, b"\2" + bytes(15), 16, 0, bare=True),
        call("redirect_neigh", 1, 0, 0, 1, bare=True),
        call("clone_redirect", 4095, 0),
        call("clone_redirect", 1, 2),
        call("clone_redirect", 4095, 1),
        call("get_cgroup_classid"),
        call("get_route_realm"),
        call("skb_set_tstamp", 5, 1),
        call("skb_set_tstamp", 0, 0),
        call("skb_set_tstamp", 0, 1),
        call("skb_set_tstamp", 5, 2),
        call("skb_set_tstamp", 5, 0),
        call("skb_set_tstamp", 5, 3),
    )
    assert not differences(calls, packets.TCP4)


@pytest.mark.parametrize("seed", range(60))
def test_random(seed: int) -> None:
    chance = random.Random(seed)
    calls = tuple(_any_call(chance) for _ in range(12))
    packet = chance.choice(packets.ALL)
    assert not differences(calls, packet)


def _any_call(chance: random.Random) -> Call:
    at, n = chance.choice((0, 2, 12, 14, 24, 34, 50, 60, 90)), chance.randrange(1, 20)
    return chance.choice(
        (
            call("skb_store_bytes", at, chance.randbytes(n), n, chance.randrange(4)),
            call("skb_load_bytes", at, Out(n), n),
            call("skb_load_bytes_relative", at, Out(n), n, chance.randrange(3)),
            call("l3_csum_replace", at, chance.getrandbits(32), chance.getrandbits(32), chance.choice((2, 4))),
            call(
                "l4_csum_replace",
                at,
                chance.getrandbits(32),
                chance.getrandbits(32),
                chance.choice((2, 4)) | chance.choice((0, 16, 32)),
            ),
            call("skb_vlan_push", chance.choice((Q, AD)), chance.getrandbits(16)),
            call("skb_vlan_pop"),
            call("skb_change_proto", chance.choice((ETH_P_IP, ETH_P_IPV6)), 0),
            call("skb_change_type", chance.randrange(5)),
            # Not below the headers: there the kernel's limit follows an offset that its own reallocation made up.
            call("skb_change_tail", chance.randrange(600, 900), 0),
            call("skb_change_head", chance.choice((0, 1, 14, 40, 100)), 0),
            call(
                "skb_adjust_room",
                chance.choice((-40, -20, -8, -4, 4, 8, 20, 40, 100)),
                chance.randrange(2),
                chance.choice((0, 2, 4, 2 | 8, 4 | 16, 32, 128, 256)),
            ),
            call("csum_level", chance.randrange(4)),
        )
    )

"""Generate large, reproducible captures for benchmarks."""

from __future__ import annotations

import os
import random
import struct

from tcbpf.errors import InputError
from tcbpf.net import build
from tcbpf.net.pcap import Writer, enhanced_block
from tcbpf.uapi.packet import ETH_P_IPV6

MIN_SIZE, MAX_SIZE = 60, 9018
_BATCH = 8192


def generate(
    path: str | os.PathLike[str],
    count: int = 1_000_000,
    *,
    size: int = 64,
    flows: int = 1024,
    seed: int = 1,
    format: str = "",
) -> None:
    """Write a capture of `count` frames of `size` bytes over `flows` flows; equal arguments give equal bytes.

    Of the flows 60 % are TCP (ports 80, 443 and others), 25 % UDP (DNS and others), 10 % IPv6 UDP and 5 % in a VLAN;
    flow
    sizes follow a power law, so that a few flows have most packets. Packets are a microsecond apart.

    Raises:  InputError for a size outside 60 to 9018 bytes.
    """
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise InputError(f"frames of {size} bytes cannot be generated", hint=f"{MIN_SIZE} to {MAX_SIZE} bytes")
    if flows < 1 or count < 0:
        raise InputError(f"{flows} flows, {count} packets", hint="at least one flow")
    rng = random.Random(seed)
    frames = [_frame(rng, index, size) for index in range(flows)]
    weights = [1 / (rank + 4) for rank in range(flows)]
    second = 1_700_000_000 * 1_000_000_000
    with Writer(path, format=format) as out:
        if out.format == "pcap":
            head = struct.Struct("<IIII")

            def record(index: int, ts_ns: int) -> bytes:
                return head.pack(*divmod(ts_ns, 1_000_000_000), size, size) + frames[index]
        else:
            blocks = [enhanced_block(frame, 0, size) for frame in frames]
            stamp = struct.Struct("<II")

            def record(index: int, ts_ns: int) -> bytes:
                block = blocks[index]
                return block[:12] + stamp.pack(ts_ns >> 32, ts_ns & 0xFFFFFFFF) + block[20:]

        for start in range(0, count, _BATCH):
            picks = rng.choices(range(flows), weights, k=min(_BATCH, count - start))
            out.append(b"".join([record(pick, second + (start + i) * 1000) for i, pick in enumerate(picks)]), len(picks))


def _frame(rng: random.Random, index: int, size: int) -> bytes:
    share = rng.random()
    sport = rng.randrange(1024, 65536)
    host = f"10.{index >> 16 & 255}.{index >> 8 & 255}.{index & 255}"
    server = f"192.0.2.{rng.randrange(1, 255)}"
    if share < 0.60:
        dport = rng.choice((80, 443, 443, 443, 22, 8080, rng.randrange(1024, 65536)))
        room = size - 54
        return build.ether(
            build.ipv4(
                build.tcp(
                    rng.randbytes(room),
                    sport=sport,
                    dport=dport,
                    seq=rng.getrandbits(32),
                    source=host,
                    destination=server,
                ),
                source=host,
                destination=server,
                protocol=6,
            )
        )
    if 0.85 <= share < 0.95 and size >= 62:
        room = size - 62
        six, far = f"2001:db8::{index + 1:x}", f"2001:db8:1::{rng.randrange(1, 255):x}"
        segment = build.udp(rng.randbytes(room), sport=sport, dport=rng.choice((53, 443)), source=six, destination=far)
        return build.ether(build.ipv6(segment, source=six, destination=far), protocol=ETH_P_IPV6)
    vlan = 100 + index % 8 if share >= 0.95 else None
    room = size - 42 - (4 if vlan is not None else 0)
    dport = rng.choice((53, 53, 123, 443, 4789))
    segment = build.udp(rng.randbytes(room), sport=sport, dport=dport, source=host, destination=server)
    return build.ether(build.ipv4(segment, source=host, destination=server), vlan=vlan)

"""Reading captures: every record of a good file; of a damaged one, what is wrong and where."""

from __future__ import annotations

import ctypes
import struct
from typing import Any

import pytest

from native import packets
from tcbpf.native.library import function
from tcbpf.native.library import struct as c_struct

END, MORE, FULL, TRUNCATED, BAD, LINKTYPE = range(6)
NO_CAPTURE, LENGTH, BLOCK, NO_INTERFACE, MANY = range(1, 6)
FRAMES = (packets.TCP4, packets.ARP, packets.UDP6)


def pcap(
    order: str = "<", magic: int = 0xA1B2C3D4, linktype: int = 1, version: tuple[int, int] = (2, 4), snaplen: int = 65535
) -> bytes:
    head = struct.pack(f"{order}IHHiIII", magic, *version, 0, 0, snaplen, linktype)
    rest = bytes(8 if magic == 0xA1B2CD34 else 0)
    lengths = [(len(p), len(p) + i)[:: -1 if version < (2, 3) or version == (543, 0) else 1] for i, p in enumerate(FRAMES)]
    records = (struct.pack(f"{order}IIII", 100 + i, 7 + i, *lengths[i]) + rest + p for i, p in enumerate(FRAMES))
    return head + b"".join(records)


def block(order: str, kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    size = struct.pack(f"{order}I", len(body) + 12)
    return struct.pack(f"{order}I", kind) + size + body + size


def pcapng(order: str = "<", resolution: bytes = b"", linktype: int = 1) -> bytes:
    option = struct.pack(f"{order}HH", 9, 1) + resolution + bytes(3) if resolution else b""
    out = block(order, 0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1))
    out += block(order, 1, struct.pack(f"{order}HHI", linktype, 0, 0) + option)
    out += block(order, 0xBAD, b"what is not known is passed over")
    for i, packet in enumerate(FRAMES):
        out += block(order, 6, struct.pack(f"{order}IIIII", 0, 1, 1000 + i, len(packet), len(packet)) + packet)
    return out + block(order, 3, struct.pack(f"{order}I", len(packets.ARP)) + packets.ARP)


def read(raw: bytes, *, more_follows: bool = False) -> tuple[list[tuple[bytes, int, int]], int, Any]:
    """Return the packets (bytes, length on the wire, time), the status that ended the reading, and the capture."""
    buffer = ctypes.create_string_buffer(raw, len(raw))
    capture, packet = c_struct("tcbpf_capture")(), c_struct("tcbpf_packet")()
    capture.base, capture.size = ctypes.addressof(buffer), len(raw)
    capture.file_size = len(raw) + more_follows
    status = function("tcbpf_capture_open", ctypes.c_uint32, ctypes.c_void_p)(ctypes.addressof(capture))
    take = function("tcbpf_capture_next", ctypes.c_uint32, ctypes.c_void_p, ctypes.c_void_p)
    found = []
    while status == MORE:
        status = take(ctypes.addressof(capture), ctypes.addressof(packet))
        if status != MORE or not packet.data:
            break
        found.append((ctypes.string_at(packet.data, packet.caplen), packet.len, packet.ns))
    return found, status, capture


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("magic", "unit"), [(0xA1B2C3D4, 1000), (0xA1B23C4D, 1), (0xA1B2CD34, 1000)])
def test_pcap(order: str, magic: int, unit: int) -> None:
    found, status, _ = read(pcap(order, magic))
    assert status == END
    assert found == [(p, len(p) + i, (100 + i) * 10**9 + (7 + i) * unit) for i, p in enumerate(FRAMES)]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("resolution", "second"),
    [
        (b"", 10**6),
        (b"\x09", 10**9),
        (b"\x0c", 10**12),
        (b"\x00", 1),
        (b"\x13", 10**19),
        (b"\x7f", 10**127),
        (b"\x80", 1),
        (b"\x94", 1 << 20),
        (b"\x9e", 1 << 30),
        (b"\xa0", 1 << 32),
        (b"\xbf", 1 << 63),
        (b"\xc0", 1 << 64),
        (b"\xff", 1 << 127),
    ],
)
def test_pcapng(order: str, resolution: bytes, second: int) -> None:
    found, status, _ = read(pcapng(order, resolution))
    ticks = [(1 << 32) + 1000 + i for i in range(3)] + [0]
    assert status == END
    assert [packet for packet, _, _ in found] == [*FRAMES, packets.ARP]
    assert [ns for _, _, ns in found] == [t * 10**9 // second % 2**64 for t in ticks]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("version", [(2, 0), (2, 2), (2, 3), (543, 0)])
def test_old_versions_have_the_lengths_the_other_way_round(order: str, version: tuple[int, int]) -> None:
    assert read(pcap(order, version=version))[0] == read(pcap(order))[0]
    assert read(pcap(version=(1, 4)))[1] == BAD and read(pcap(version=(543, 1)))[1] == BAD


def test_a_packet_is_not_longer_than_the_file_says() -> None:
    assert [p for p, _, _ in read(pcap(snaplen=20))[0]] == [p[:20] for p in FRAMES]
    assert [p for p, _, _ in read(pcap(snaplen=0))[0]] == [*FRAMES]


@pytest.mark.parametrize("whole", [pcap(), pcapng()], ids=["pcap", "pcapng"])
def test_every_cut_is_noticed(whole: bytes) -> None:
    every = read(whole)[0]
    for size in range(len(whole)):
        found, status, capture = read(whole[:size])
        assert found == every[: len(found)]
        if status == END:
            assert capture.pos == size  # cut between two records
        else:
            assert status == TRUNCATED
        assert read(whole[:size], more_follows=True)[1] in (MORE, BAD, TRUNCATED)


def test_lengths_that_lie() -> None:
    big = bytearray(pcap())
    struct.pack_into("<I", big, 24 + 8, 300_000)
    assert read(bytes(big))[1:2] == (BAD,) and read(bytes(big))[2].error == LENGTH
    one = block("<", 6, struct.pack("<IIIII", 0, 0, 0, 33, 33) + bytes(32))
    first = block("<", 6, struct.pack("<IIIII", 0, 1, 1000, len(FRAMES[0]), len(FRAMES[0])) + FRAMES[0])
    head = pcapng()[: pcapng().index(first)]
    found, status, capture = read(head + one)
    assert (found, status, capture.error, capture.pos) == ([], BAD, LENGTH, len(head))
    assert read(head + one[:4] + b"\xfc\xff\xff\xff" + one[8:])[1] == TRUNCATED
    for damage in (b"\x09\0\0\0", b"\x0b\0\0\0", b"\xff\xff\xff\xff"):
        raw = head + one[:4] + damage + one[8:]
        assert read(raw)[1] == BAD and read(raw)[2].error == BLOCK
    assert read(head + one[:-4] + b"\0\0\0\0")[2].error == BLOCK
    stranger = block("<", 6, struct.pack("<IIIII", 5, 0, 0, 4, 4) + bytes(4))
    assert read(head + stranger)[2].error == NO_INTERFACE
    assert read(b"not a capture at all")[2].error == NO_CAPTURE

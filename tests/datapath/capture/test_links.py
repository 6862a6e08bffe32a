"""Captures as they come: any link type, several in a file, through a pipe, cut anywhere; what tcpdump says of them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from native import packets
from tcbpf.cli import main
from tcbpf.net.pcap import read

pytestmark = pytest.mark.usefixtures("libpcap")

IP4, IP6 = packets.TCP4[14:], packets.UDP6[14:]
COOKED = struct.pack(">HHH8sH", 0, 1, 6, bytes(8), 0x800)
COOKED2 = struct.pack(">HHIHBB8s", 0x800, 0, 3, 1, 0, 6, bytes(8))
LINKS: dict[int, tuple[bytes, ...]] = {
    0: (b"\x02\0\0\0" + IP4, b"\0\0\0\x02" + IP4, *(bytes([family, 0, 0, 0]) + IP6 for family in (10, 24, 28, 30))),
    1: (packets.TCP4, packets.UDP6, packets.ARP),
    9: (b"\xff\x03\0\x21" + IP4, b"\0\x21" + IP4, b"\xff\x03\0\x57" + IP6),
    12: (IP4, IP6),
    101: (IP4, IP6, b""),
    104: (b"\x0f\0\x08\0" + IP4,),
    108: (b"\0\0\0\x02" + IP4, b"\0\0\0\x18" + IP6),
    113: (COOKED + IP4,),
    228: (IP4,),
    229: (IP6,),
    276: (COOKED2 + IP4,),
}
FILTERS = (
    "tcp port 80",
    "udp",
    "ip6",
    "ip",
    "len > 60",
    "not tcp",
    "ip protochain 6",
    "ip6 protochain 17",
    "inbound",
    "ifindex 1",
)


def pcap(link: int, frames: tuple[bytes, ...], order: str = "<", magic: int = 0xA1B2C3D4) -> bytes:
    head = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, link)
    rest = bytes(8 if magic == 0xA1B2CD34 else 0)
    return head + b"".join(struct.pack(order + "IIII", 9, 9, len(f), len(f)) + rest + f for f in frames)


def block(order: str, kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    size = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + size + body + size


def section(order: str = "<") -> bytes:
    return block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))


def interface(link: int, order: str = "<", options: bytes = b"", snaplen: int = 0) -> bytes:
    return block(order, 1, struct.pack(order + "HHI", link, 0, snaplen) + options)


def packet(index: int, frame: bytes, order: str = "<", ticks: int = 0, options: bytes = b"") -> bytes:
    head = struct.pack(order + "5I", index, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), len(frame))
    return block(order, 6, head + frame + bytes(-len(frame) % 4) + options)


def pcapng(link: int, frames: tuple[bytes, ...], order: str = "<") -> bytes:
    return section(order) + interface(link, order) + b"".join(packet(0, frame, order) for frame in frames)


def tcpdump(path: Path, text: str) -> int | str:
    """Return how many packets tcpdump shows, or what it complains of."""
    if not shutil.which("tcpdump"):
        pytest.skip("no tcpdump to compare with")
    done = subprocess.run(["tcpdump", "-r", str(path), "-w", "-", text], capture_output=True)
    if done.returncode:
        return done.stderr.decode().splitlines()[-1].removeprefix("tcpdump: ")
    (path.parent / "theirs").write_bytes(done.stdout)
    return len(list(read(path.parent / "theirs", link_type=None)))


def ours(path: Path | str, text: str, *words: str) -> tuple[int, int | None, str]:
    """Return the exit status, how many packets match, and what was said."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(["cbpf", "run", text, str(path), "--json", *words])
    return status, json.loads(out.getvalue())["matches"] if out.getvalue() else None, err.getvalue()


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("form", [pcap, pcapng])
def test_a_filter_matches_what_tcpdump_has_it_match(tmp_path: Path, link: int, form: object) -> None:
    for order in "<>":
        (tmp_path / "x").write_bytes(form(link, LINKS[link], order))  # type: ignore[operator]
        for text in FILTERS:
            theirs, (status, found, said) = tcpdump(tmp_path / "x", text), ours(tmp_path / "x", text)
            if isinstance(theirs, int):
                assert (status, found, said) == (0, theirs, ""), (order, text)
            elif "rejects all packets" in theirs:
                assert (status, found) == (0, 0) and "rejects all packets" in said
            else:
                assert (status, found) == (2, None) and theirs in said, (order, text)


@pytest.fixture
def stdin() -> Iterator[object]:
    """A function that makes bytes a pipe on standard input."""
    kept, feeders = os.dup(0), list[threading.Thread]()

    def feed(raw: bytes) -> None:
        out, into = os.pipe()
        os.dup2(out, 0)
        os.close(out)
        feeders.append(threading.Thread(target=lambda: (os.write(into, raw[:3]), io.FileIO(into, "w").write(raw[3:]))))
        feeders[-1].start()

    yield feed
    os.dup2(kept, 0)
    os.close(kept)
    for feeder in feeders:
        feeder.join()


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("path", ["-", "/dev/stdin"])
def test_a_pipe_is_what_its_file_is(tmp_path: Path, link: int, path: str, stdin: object) -> None:
    for raw in pcap(link, LINKS[link], ">"), pcapng(link, LINKS[link]):
        (tmp_path / "x").write_bytes(raw)
        stdin(raw)  # type: ignore[operator]
        assert ours(path, "ip") == ours(tmp_path / "x", "ip")
        stdin(raw[:-1])  # type: ignore[operator]
        (tmp_path / "x").write_bytes(raw[:-1])
        (status, found, said), file = ours(path, "ip"), ours(tmp_path / "x", "ip")
        assert (status, found) == file[:2] and status == 3 and "cut short" in said


def test_each_link_type_of_a_file_has_its_own_program(tmp_path: Path) -> None:
    raw = section() + interface(113) + interface(1) + packet(1, packets.TCP4) + packet(0, COOKED + IP4)
    raw += (
        interface(228)
        + packet(2, IP4)
        + packet(1, packets.ARP)
        + section(">")
        + interface(0, ">")
        + packet(0, b"\0\0\0\x02" + IP4, ">")
    )
    (tmp_path / "x").write_bytes(raw)
    assert ours(tmp_path / "x", "tcp port 80", "--out", str(tmp_path / "out.pcapng")) == (0, 4, "")
    kept = list(read(tmp_path / "out.pcapng", link_type=None))
    assert [(p.link_type, p.interface) for p in kept] == [(1, 0), (113, 1), (228, 2), (0, 3)]
    assert [p.data for p in kept] == [packets.TCP4, COOKED + IP4, IP4, b"\0\0\0\x02" + IP4]
    status, _, said = ours(tmp_path / "x", "tcp port 80", "--out", str(tmp_path / "out.pcap"))
    assert status == 2 and "link types 1 and 113 do not fit one pcap" in said and not (tmp_path / "out.pcap").exists()
    status, found, said = ours(tmp_path / "x", "ip6")
    assert (status, found) == (0, 0) and said == "'ip6' rejects all packets of link type 228\n"
    assert ours(tmp_path / "x", "ip", "--limit", "2") == (0, 2, "")


@pytest.mark.parametrize("form", [pcap, pcapng])
def test_a_capture_cut_at_any_byte_gives_its_whole_packets(tmp_path: Path, form: object) -> None:
    frames = LINKS[1]
    whole = form(1, frames)  # type: ignore[operator]
    ends = [len(form(1, frames[:count])) for count in range(4)]  # type: ignore[operator]
    sound = {*ends, *([24] if form is pcap else [28])}  # a section without interfaces is whole
    for size in range(0, len(whole) + 1, 3 if len(whole) % 3 else 1):
        (tmp_path / "x").write_bytes(whole[:size])
        status, found, said = ours(tmp_path / "x", "ip", "--out", str(tmp_path / "out"))
        before = sum(end <= size for end in ends[1:])
        assert status == (0 if size in sound else 3) and bool(said) == bool(status), size
        assert found == (min(before, 1) if size >= 4 else None), size
        if size >= 4:
            assert [p.data for p in read(tmp_path / "out")] == [packets.TCP4][:found]
        assert "cut short" in said or not status


TEXT = block("<", 0xBAD, b"c" * 3_000_000)
COMMENT = struct.pack("<HH", 1, 65000) + b"c" * 65000


def test_blocks_of_any_length(tmp_path: Path) -> None:
    """Names, secrets, comments: what is no packet is passed over, what is one is read."""
    inner = [TEXT, block("<", 10, b"s" * 17_000_000), packet(0, packets.TCP4, options=20 * COMMENT + bytes(4)), TEXT]
    raw = section() + interface(1, options=30 * COMMENT) + packet(0, packets.ARP) + b"".join(inner) + packet(0, packets.TCP4)
    (tmp_path / "x").write_bytes(raw)
    assert ours(tmp_path / "x", "tcp") == (0, 2, "")
    assert len(list(read(tmp_path / "x"))) == 3
    for end in (1, len(packet(0, packets.TCP4)) + 1, len(packet(0, packets.TCP4)) + len(TEXT) - 9):
        (tmp_path / "x").write_bytes(raw[:-end])
        assert ours(tmp_path / "x", "tcp")[:2] == (3, 1)


def test_time_stamps_of_every_resolution(tmp_path: Path) -> None:
    second = 1_700_000_000
    raw = section()
    for index, (code, unit) in enumerate(
        [(6, 10**6), (9, 10**9), (0, 1), (3, 10**3), (0x94, 1 << 20), (0x9E, 1 << 30), (0xA0, 1 << 32)]
    ):
        offset = struct.pack("<HHq", 14, 8, -index)
        raw += interface(1, options=struct.pack("<HHB3x", 9, 1, code) + offset + bytes(4), snaplen=100 + index)
        raw += packet(index, packets.TCP4, ticks=(second + index) * unit + unit // 2)
    (tmp_path / "x").write_bytes(raw)
    assert ours(tmp_path / "x", "ip", "--out", str(tmp_path / "out.pcap")) == (0, 7, "")
    stamps = [p.ts_ns for p in read(tmp_path / "out.pcap")]
    assert stamps == [p.ts_ns for p in read(tmp_path / "x")]
    assert stamps == [second * 10**9 + (0 if index == 2 else 500_000_000) for index in range(7)]


CLASSIFIER = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
SEC("tc") int l3(struct __sk_buff *skb)
{
    unsigned char *d = (void *)(long)skb->data, *e = (void *)(long)skb->data_end;
    if (d + 20 > e) return 3;
    if (skb->protocol == bpf_htons(0x800)) return d[0] >> 4 == 4 ? 4 : 1;
    return skb->protocol == bpf_htons(0x86dd) && d[0] >> 4 == 6 ? 6 : 5;
}
char _license[] SEC("license") = "GPL";
"""


@pytest.mark.parametrize("engine", ["0", "1"])
@pytest.mark.parametrize("link", [12, 101, 228, 229])
def test_a_classifier_on_packets_without_link_header(
    tmp_path: Path, link: int, engine: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if engine == "0":
        monkeypatch.setenv("TCBPF_JIT_ENABLE", engine)
    (tmp_path / "x.c").write_text(CLASSIFIER)
    (tmp_path / "x.pcap").write_bytes(pcap(link, (*LINKS[link], b"\x70" + bytes(30))))
    assert main(["run", str(tmp_path / "x.c"), str(tmp_path / "x.pcap"), "--json"]) == 0
    assert (
        json.loads(capsys.readouterr().out)["verdicts"]
        == {
            12: {"4": 1, "5": 1, "6": 1},
            101: {"3": 1, "4": 1, "5": 1, "6": 1},
            228: {"1": 1, "4": 1},
            229: {"5": 1, "6": 1},
        }[link]
    )


@pytest.mark.parametrize("link", [0, 9, 105, 108, 113, 127, 276])
def test_a_classifier_refuses_other_links_in_words(tmp_path: Path, link: int, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.c").write_text(CLASSIFIER)
    (tmp_path / "x.pcap").write_bytes(pcap(link, (bytes(40),)))
    assert main(["run", str(tmp_path / "x.c"), str(tmp_path / "x.pcap")]) == 2
    said = capsys.readouterr()
    assert said.out == "" and f"packets of link type {link} (" in said.err and "record on the device itself" in said.err


def test_the_byte_order_of_a_swapped_link_is_the_files(tmp_path: Path) -> None:
    assert sys.byteorder == "little"
    (tmp_path / "x").write_bytes(pcap(0, (struct.pack(">I", 30) + IP6,), ">"))
    assert ours(tmp_path / "x", "ip6 and udp") == (0, 1, "")

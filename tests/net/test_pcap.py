"""Captures: both formats, both byte orders, and what is said of a damaged one."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcbpf.errors import InputError
from tcbpf.net.pcap import Packet, Writer, capture_header, enhanced_block, read

FRAME = bytes(range(60))


def pcap(order: str, magic: int, *packets: tuple[int, int, bytes], link: int = 1) -> bytes:
    out = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, link)
    return out + b"".join(struct.pack(order + "IIII", s, t, len(d), len(d)) + d for s, t, d in packets)


def block(order: str, kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    return struct.pack(order + "II", kind, len(body) + 12) + body + struct.pack(order + "I", len(body) + 12)


def section(order: str) -> bytes:
    return block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("magic", "ns"), [(0xA1B2C3D4, 5_000), (0xA1B23C4D, 5)])
def test_pcap_in_both_orders_and_resolutions(tmp_path: Path, order: str, magic: int, ns: int) -> None:
    (tmp_path / "x.pcap").write_bytes(pcap(order, magic, (7, 5, FRAME), (8, 0, b"ab")))
    assert list(read(tmp_path / "x.pcap")) == [
        Packet(FRAME, 7_000_000_000 + ns, 60, number=1),
        Packet(b"ab", 8_000_000_000, 2, number=2),
    ]


@pytest.mark.parametrize("order", "<>")
def test_pcapng_blocks(tmp_path: Path, order: str) -> None:
    interface = block(order, 1, struct.pack(order + "HHI", 1, 0, 40))
    nanoseconds = block(order, 1, struct.pack(order + "HHIHHB3xHH", 1, 0, 0, 9, 1, 9, 0, 0))
    enhanced = block(order, 6, struct.pack(order + "IIIII", 1, 1, 2, 60, 61) + FRAME)
    simple = block(order, 3, struct.pack(order + "I", 60) + FRAME[:40])
    obsolete = block(order, 2, struct.pack(order + "HHIIII", 0, 9, 0, 3, 2, 2) + b"ab")
    unknown = block(order, 0x1234, b"skip me!")
    (tmp_path / "x.pcapng").write_bytes(section(order) + interface + nanoseconds + unknown + enhanced + simple + obsolete)
    assert list(read(tmp_path / "x.pcapng")) == [
        Packet(FRAME, (1 << 32) + 2, 61, interface=1, number=1),
        Packet(FRAME[:40], 0, 60, number=2),
        Packet(b"ab", 3000, 2, number=3),
    ]


def test_a_new_section_begins_afresh(tmp_path: Path) -> None:
    one = section("<") + block("<", 1, struct.pack("<HHI", 1, 0, 0)) + block("<", 6, struct.pack("<5I", 0, 0, 0, 2, 2) + b"ab")
    two = section(">") + block(">", 1, struct.pack(">HHI", 1, 0, 0)) + block(">", 6, struct.pack(">5I", 0, 0, 0, 2, 2) + b"cd")
    (tmp_path / "x").write_bytes(one + two)
    assert [p.data for p in read(tmp_path / "x")] == [b"ab", b"cd"]


@given(
    st.lists(st.tuples(st.binary(min_size=0, max_size=99), st.integers(0, 2**62)), max_size=5),
    st.sampled_from(["pcap", "pcapng"]),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, packets: list[tuple[bytes, int]], format: str
) -> None:
    path = tmp_path_factory.mktemp("w") / "x"
    packets = [(data, ts % (2**32 * 10**9)) for data, ts in packets]
    with Writer(path, format=format) as out:
        for data, ts in packets:
            out.write(data, ts)
    assert [(p.data, p.ts_ns) for p in read(path)] == packets


NG = capture_header("pcapng", 1, ("",), 0)
DAMAGED: list[tuple[bytes, str]] = [
    (b"", "offset 0: cut short"),
    (b"MZ\0\0", "offset 0: is not a capture: it starts with 4d5a0000"),
    (pcap("<", 0xA1B2C3D4, (0, 0, FRAME))[:-1], "packet 1, offset 40: cut short: packet needs 60 bytes, 59 are left"),
    (pcap("<", 0xA1B2C3D4, (0, 0, FRAME), (0, 0, b""))[:-3], "packet 2, offset 100: cut short: packet header"),
    (pcap("<", 0xA1B2C3D4) + b"\xff" * 16, "packet 1, offset 24: a captured length of 4294967295 bytes is damage"),
    (NG + enhanced_block(FRAME, 0, 60)[:-5], "cut short: block"),
    (NG + enhanced_block(FRAME, 0, 60)[:-1] + b"\1", "packet 1, offset 148: block length 92 is closed by"),
    (NG + enhanced_block(FRAME, 0, 60, interface=3), "interface 3 is not described"),
    (NG + struct.pack("<II", 6, 7), "a block length of 7 is damage"),
    (NG + block("<", 6, struct.pack("<5I", 0, 0, 0, 99, 99)), "a captured length of 99 in a block of 20 bytes"),
    (pcap("<", 0xA1B2C3D4, (0, 0, FRAME), link=113), "packet 1: packets of link type 113 (Linux cooked) are not"),
]


@pytest.mark.parametrize(("raw", "words"), DAMAGED)
def test_a_damaged_file_says_where(tmp_path: Path, raw: bytes, words: str) -> None:
    (tmp_path / "bad").write_bytes(raw)
    with pytest.raises(InputError) as caught:
        list(read(tmp_path / "bad"))
    assert words in str(caught.value) and str(tmp_path / "bad") in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.data())
def test_no_damage_raises_anything_else(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    raw = bytearray(NG + enhanced_block(FRAME, 0, 60, direction="in") + enhanced_block(b"", 1, 0))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("f") / "x"
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
    with contextlib.suppress(InputError):
        assert all(isinstance(packet, Packet) for packet in read(path))


def full_disk(work: Callable[[], object]) -> OSError:
    """Run `work` with room for 4096 bytes a file and return what it raises."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError) as caught:
            work()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    return caught.value


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    def work() -> None:
        with Writer(tmp_path / "x.pcapng") as out:
            for _ in range(100_000):
                out.write(FRAME)

    error = full_disk(work)
    assert error.filename == str(tmp_path / "x.pcapng") and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("tmpfile", [True, False])
def test_a_writer_that_is_killed_leaves_no_name(tmp_path: Path, tmpfile: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not tmpfile:
        monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY)  # what a file system without it makes of it: EISDIR
    (tmp_path / "x").write_bytes(b"old")
    if (child := os.fork()) == 0:
        out = Writer(tmp_path / "x")
        out.write(FRAME)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert (tmp_path / "x").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == (1 if tmpfile else 2)
    with Writer(tmp_path / "x") as out:
        out.write(FRAME)
    assert len(list(read(tmp_path / "x"))) == 1 and (tmp_path / "x").stat().st_mode & 0o777 == 0o666 & ~umask()


def umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def test_an_error_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), Writer(tmp_path / "x") as out:
        out.write(FRAME)
        raise ZeroDivisionError
    assert (tmp_path / "x").read_bytes() == b"old" and len(os.listdir(tmp_path)) == 1


@pytest.mark.parametrize("name", ["a.pcap", "a.pcapng"])
def test_tcpdump_reads_what_we_write(tmp_path: Path, name: str) -> None:
    from tcbpf.net.generate import generate

    try:
        subprocess.run(["tcpdump", "--version"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no tcpdump")
    generate(tmp_path / name, 500, flows=64)
    shown = subprocess.run(["tcpdump", "-nvr", str(tmp_path / name)], capture_output=True, text=True, check=True).stdout
    assert "incorrect" not in shown and "bad" not in shown and shown.count("\n") >= 500


def test_generate_is_deterministic(tmp_path: Path) -> None:
    from tcbpf.net.generate import generate

    for name in "a", "b":
        generate(tmp_path / name, 1000, size=60)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    packets = list(read(tmp_path / "a"))
    assert len(packets) == 1000 and {len(p.data) for p in packets} == {60}
    assert len({p.data for p in packets}) > 300

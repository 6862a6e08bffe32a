"""Every example, by every compiler there is, on the live kernel: it loads, and it does what its first lines say."""

from __future__ import annotations

import ipaddress
import shutil
import struct
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tcbpf.lang import compile
from tcbpf.net.checksum import ones_sum, pseudo_header
from tcbpf.net.pcap import read
from tcbpf.obj import programs
from tcbpf.obj.program import PIN_NONE, Object

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.c"))
MIXED = ROOT / "examples/captures/mixed.pcapng"
COMPILERS = [name for name in ("clang", "ziglang") if name == "ziglang" or shutil.which(name)]
OK, SHOT, REDIRECT = 0, 2, 7


@pytest.fixture
def bpffs(tmp_path) -> Iterator[Path]:
    """A bpf fs of the test's own."""
    subprocess.run(["mount", "-t", "bpf", "none", tmp_path], check=True)
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


def example(name: str) -> Object:
    return compile(ROOT / "examples" / f"{name}.c")


def frames() -> list[bytes]:
    return [packet.data for packet in read(MIXED) if 14 <= len(packet.data) <= 3712]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_an_example_teaches(path):
    head = path.read_text().split("*/")[0]
    assert head.startswith("// SPDX-License-Identifier: Apache-2.0\n/* ") and len(head.split()) > 40


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_every_program_of_an_example_loads(path, compiler, datapath, monkeypatch):
    monkeypatch.setenv("TCBPF_CC", compiler)
    obj = compile(path)
    obj = replace(obj, maps={name: replace(spec, pinning=PIN_NONE) for name, spec in obj.maps.items()})
    for listed in programs(obj):
        with datapath.load(obj, program=listed.name) as prog:
            assert prog.insns_processed > 0 and prog.type == listed.type
            prog.run(bytes(64))


def test_dns_guard_drops_the_resolver_marks_https_and_counts(datapath):
    packets = frames()
    prog = datapath.load(example("dns_guard"), section="tc")
    runs = [prog.run(packet) for packet in packets]
    flows = dict(datapath.maps["flows"].items())
    ipv4 = [p for p in packets if p[12:14] == b"\x08\x00" and len(p) >= 34]
    sources = Counter(str(ipaddress.ip_address(p[26:30])) for p in ipv4)
    assert {address: flow["packets"] for address, flow in flows.items()} == sources
    dropped = [p for p, run in zip(packets, runs, strict=True) if run.verdict == SHOT]
    assert dropped and all(p[30:34] == bytes([10, 0, 0, 53]) and p[36:38] == b"\0\x35" for p in dropped)
    marked = [p for p, run in zip(packets, runs, strict=True) if run.ctx["mark"] == 443]
    assert marked and all(b"\x01\xbb" in (p[34:36], p[36:38]) for p in marked)


def good_checksums(frame: bytes) -> bool:
    """Whether the IPv4 header and the TCP, UDP or ICMP checksum behind it are right."""
    ip = frame[14:34]
    (length,) = struct.unpack("!H", ip[2:4])
    segment = frame[34 : 14 + length]
    if ip[9] == 17 and segment[6:8] == b"\0\0":
        return ones_sum(ip) == 0xFFFF
    source, target = (str(ipaddress.ip_address(part)) for part in (ip[12:16], ip[16:20]))
    start = ones_sum(pseudo_header(source, target, ip[9], len(segment))) if ip[9] in (6, 17) else 0
    return ones_sum(ip) == 0xFFFF and ones_sum(segment, start) == 0xFFFF


def whole(protocol: int) -> list[bytes]:
    """The unfragmented IPv4 packets of a protocol whose checksums are right as recorded."""
    alike = [p for p in frames() if p[12:15] == b"\x08\0\x45" and p[23] == protocol]
    return [p for p in alike if p[20] & 0x3F == p[21] == 0 and good_checksums(p)]


def test_nat_changes_addresses_and_keeps_checksums_right(datapath):
    changed = 0
    prog = datapath.load(example("nat"))
    datapath.maps["services"][{"daddr": "10.0.0.53", "dport": 53}] = {"daddr": "10.0.0.99", "dport": 5353}
    for packet in (*whole(6), *whole(17)):
        run = prog.run(packet)
        assert run.verdict == OK and good_checksums(run.packet)
        if run.packet != packet:
            changed += 1
            port = 5353 if packet[36:38] == b"\0\x35" else 8080
            wanted = (bytes([10, 0, 0, 99]), port.to_bytes(2, "big"))
            assert (run.packet[30:34], run.packet[36:38]) == wanted
    assert changed > 10


def test_echo_answers_pings(datapath):
    answered = 0
    prog = datapath.load(example("echo"))
    for packet in whole(1):
        run = prog.run(packet)
        if packet[34] == 8:
            answered += 1
            assert run.verdict == REDIRECT and run.packet[34] == 0 and good_checksums(run.packet)
            assert run.packet[26:34] == packet[30:34] + packet[26:30] and run.packet[:12] == packet[6:12] + packet[:6]
        else:
            assert run.verdict == OK and run.packet == packet
    assert answered


def test_encap_puts_a_right_header_in_front_and_decap_takes_it_away(datapath):
    packet = whole(6)[0]
    obj = example("resize")
    outer = datapath.load(obj, program="encap").run(packet).packet
    assert len(outer) == len(packet) + 20 and outer[23] == 4 and outer[26:34] == bytes([192, 0, 2, 1, 192, 0, 2, 2])
    assert ones_sum(outer[14:34]) == 0xFFFF and outer[34:] == packet[14:]
    assert datapath.load(obj, program="decap").run(outer).packet == packet
    cut = datapath.load(obj, program="cut").run(max(frames(), key=len))
    assert len(cut.packet) == 96


def test_tail_calls_go_through_every_slot(datapath):
    prog = datapath.load(example("tail_calls"), section="classifier")
    four, six = (bytes(12) + kind + bytes(50) for kind in (b"\x08\0", b"\x86\xdd"))
    verdicts = [prog.run(packet).verdict for packet in (four, four, six, bytes(64))]
    assert verdicts == [OK] * 4 and [datapath.maps["seen"][i] for i in range(4)] == [0, 2, 1, 0]


def test_dispatch_jumps_by_protocol(datapath):
    prog = datapath.load(example("dispatch"), section="tc")
    found = {number: prog.run(bytes(12) + b"\x08\0" + bytes(9) + bytes([number]) + bytes(40)) for number in (6, 17, 1)}
    assert [(run.verdict, run.ctx["mark"]) for run in found.values()] == [(0, 6), (0, 17), (-1, 0)]


def test_the_blocklist_takes_the_longest_prefix(datapath):
    prog = datapath.load(example("blocklist"))
    blocked = datapath.maps["blocked4"]
    blocked["10.0.0.0/8"], blocked["10.0.0.2/32"] = 1, 0
    datapath.maps["blocked6"]["fd00::/16"] = 1

    def verdict(source: str) -> int:
        raw = ipaddress.ip_address(source).packed
        body = bytes(12) + raw if len(raw) == 4 else bytes(8) + raw
        return prog.run(bytes(12) + (b"\x08\0" if len(raw) == 4 else b"\x86\xdd") + body.ljust(64, b"\0")).verdict

    assert [verdict(a) for a in ("10.0.0.1", "10.0.0.2", "11.0.0.1", "fd00::1", "fe80::1")] == [SHOT, OK, OK, SHOT, OK]
    assert [sum(datapath.maps["outcomes"][i]) for i in range(3)] == [3, 2, 0]
    assert dict(blocked.items()) == {"10.0.0.0/8": 1, "10.0.0.2/32": 0}


def test_talkers_counts_in_its_globals_and_evicting_table(datapath):
    packets = whole(6)[:20]
    prog = datapath.load(example("talkers"))
    for packet in (*packets, bytes(64)):
        prog.run(packet)
    assert datapath.maps[".bss"][0] == {"packets": 21, "foreign": 1} and datapath.maps[".data"][0] == {"threshold": 1000}
    assert sum(value["packets"] for _, value in datapath.maps["talks"].items()) == 20


def test_the_classifier_answers_with_classes(datapath):
    prog = datapath.load(example("classifier"), section="classifier")
    found = [prog.run(bytes(12) + b"\x08\0" + bytes(9) + bytes([n]) + bytes(40)).verdict for n in (6, 17, 1, 99)]
    assert found == [0x1000A, 0x10014, -1, 0] and datapath.maps["protocols"][6] == 1


@pytest.mark.kernel
def test_both_directions_share_a_pinned_map(bpffs):
    from tcbpf.datapath.kernel import Kernel

    with Kernel() as first, Kernel() as second:
        first.load(example("shared_map"), section="ingress", pin_root=str(bpffs)).run(bytes(64))
        second.load(example("shared_map"), section="egress", pin_root=str(bpffs)).run(bytes(100))
        assert [second.maps["traffic"][i] for i in range(2)] == [64, 100] and (bpffs / "traffic").exists()


def test_vlan_tags_go_in_and_out(datapath):
    run = datapath.load(example("vlan"), program="tag").run(bytes(12) + b"\x08\0" + bytes(50), ctx={"mark": 42})
    assert run.verdict == OK
    retag = datapath.load(example("vlan"), program="retag").run(bytes(12) + b"\x08\0" + bytes(50))
    assert retag.verdict == OK

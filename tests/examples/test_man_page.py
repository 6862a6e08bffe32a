"""What the manual page of tc's bpf classifier shows, as commands and programs of our own, on both datapaths."""

from __future__ import annotations

import json
import subprocess
import uuid
from pathlib import Path

import pytest

from cli.test_tc_objects import Bench, bench
from tcbpf.cli import main
from tcbpf.control.handles import HOOKS
from tcbpf.control.objects import Bpf, Filter
from tcbpf.control.request import Op, Request
from tcbpf.datapath.base import Datapath, Prog
from tcbpf.lang import find_compiler
from tcbpf.maps.map import Map
from tcbpf.net import build
from tcbpf.net.checksum import checksum
from tcbpf.net.pcap import Writer

__all__ = ["bench"]

MARKS = """
#include <bpf_api.h>
#define MARKS 16
struct seen { uint64_t packets, bytes; };
BPF_ARRAY(STATS, 0, sizeof(struct seen), PIN_GLOBAL_NS, MARKS);

__section("cls") int by_mark(struct __sk_buff *skb)
{
    uint32_t mark = skb->mark;
    struct seen *seen;

    if (mark >= MARKS)
        return 0;
    seen = map_lookup_elem(&STATS, &mark);
    if (likely(seen)) {
        lock_xadd(&seen->packets, 1);
        lock_xadd(&seen->bytes, skb->len);
    }
    return TC_H_MAKE(1 << 16, mark);
}
__section("act") int pass(struct __sk_buff *skb) { return TC_ACT_OK; }
BPF_LICENSE("GPL");
"""

DEMUX = """
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/tcp.h>
#include <bpf_api.h>

__section_cls_entry int demux(struct __sk_buff *skb)
{
    int at = ETH_HLEN;
    uint16_t from = htons(80), to = htons(8080 + (skb->queue_mapping & 7));

    if (skb->protocol != htons(ETH_P_IP) || load_byte(skb, at + offsetof(struct iphdr, protocol)) != IPPROTO_TCP)
        return BPF_H_DEFAULT;
    at += (load_byte(skb, at) & 0xf) << 2;
    if (load_half(skb, at + offsetof(struct tcphdr, dest)) != 80)
        return BPF_H_DEFAULT;
    l4_csum_replace(skb, at + offsetof(struct tcphdr, check), from, to, 2);
    skb_store_bytes(skb, at + offsetof(struct tcphdr, dest), &to, sizeof(to), 0);
    return TC_ACT_OK;
}
BPF_LICENSE("GPL");
"""


def by_hand(made: Bench, name: str, text: str) -> str:
    """Compile as the page does: clang -O2 -target bpf -o NAME.o -c NAME.c, with the directory that we name."""
    from tcbpf.lang.c import INCLUDE

    made.source(f"{name}.c", text)
    compiler = find_compiler()
    words = [*compiler.argv, "-O2", "-target", "bpf", f"-I{INCLUDE}", *(f"-isystem{d}" for d in compiler.includes)]
    subprocess.run([*words, "-o", f"{name}.o", "-c", f"{name}.c"], cwd=made.directory, check=True)
    return f"{name}.o"


def at(dp: Datapath, parent: int) -> Prog:
    """Return the program of the only filter there."""
    rows = dp.apply(Request(Op.SHOW, Filter("em1", parent, protocol=0)))
    (id,) = (row.options.id for row in rows if isinstance(row, Filter) and isinstance(row.options, Bpf) and row.handle)
    return next(prog for prog in dp.progs() if prog.id == id)


def tcp(port: int) -> bytes:
    return build.ether(build.ipv4(build.tcp(b"GET /", dport=port), protocol=6))


def test_a_classifier_by_mark_with_its_statistics(bench: tuple[Bench, Datapath]) -> None:
    made, dp = bench
    name = f"s_{uuid.uuid4().hex[:8]}"
    obj = by_hand(made, "marks", MARKS.replace("STATS", name))
    assert made.tc("qdisc", "add", "dev", "em1", "root", "handle", "1:", "htb").status == 0
    try:
        said = made.tc("filter", "add", "dev", "em1", "parent", "1:", "bpf", "obj", obj, "sec", "cls")
        assert (said.status, said.err) == (0, "")
        assert f"{obj}:[cls]" in made.tc("filter", "show", "dev", "em1").out
        prog, frame = at(dp, 0x10000), build.ether(build.ipv4(build.udp(b"")), pad=100)
        for mark, classid in (3, 0x10003), (3, 0x10003), (5, 0x10005), (16, 0), (0xFFFFFFFF, 0):
            assert prog.run(frame, {"mark": mark}).verdict == classid
        stats = dp.obj_get(f"/sys/fs/bpf/tc/globals/{name}")
        assert isinstance(stats, Map)
        seen = [stats.lookup(mark.to_bytes(4, "little")) for mark in (3, 4, 5)]
        assert seen == [bytes([n]) + bytes(7) + (n * len(frame)).to_bytes(8, "little") for n in (2, 0, 1)]
    finally:
        dp.obj_unpin(f"/sys/fs/bpf/tc/globals/{name}")


def test_port_80_is_spread_over_ports_by_queue(bench: tuple[Bench, Datapath]) -> None:
    made, dp = bench
    obj = by_hand(made, "demux", DEMUX)
    assert made.tc("filter", "add", "dev", "em1", "ingress", "bpf", "da", "obj", obj).status == 0
    prog = at(dp, HOOKS["ingress"])
    for queue in range(9) if dp.name == "user" else [0]:  # BPF_PROG_TEST_RUN takes no queue
        frame = tcp(80)
        run = prog.run(frame, {"queue_mapping": queue} if dp.name == "user" else None)
        assert run.verdict == 0
        assert run.packet[36:38] == (8080 + queue % 8).to_bytes(2, "big")
        pseudo = run.packet[26:34] + bytes([0, 6]) + (len(frame) - 34).to_bytes(2, "big")
        assert checksum(pseudo + run.packet[34:]) == 0
        assert run.packet[:36] + run.packet[38:50] + run.packet[52:] == frame[:36] + frame[38:50] + frame[52:]
    for frame in tcp(443), build.ether(build.ipv4(build.udp(b"", dport=80))):
        run = prog.run(frame)
        assert (run.verdict, run.packet) == (-1, frame)


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("ldh [12]\njne #0x806, drop\nret #-1\ndrop: ret #0\n", ["arp"]),
        ("ldh [12]\njne #0x800, drop\nldb [23]\njneq #6, drop\nret #-1\ndrop: ret #0\n", ["tcp", "ssh"]),
        ("tcp port 22 or arp", ["arp", "ssh"]),
    ],
    ids=["arp", "ipv4-tcp", "expression"],
)
def test_bytecode_from_an_assembler_and_from_an_expression(
    bench: tuple[Bench, Datapath], text: str, matches: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    made, dp = bench
    (tmp_path / "source").write_text(text)
    assert main(["cbpf", *(["asm", str(tmp_path / "source")] if "\n" in text else ["compile", text])]) == 0
    printed = capsys.readouterr().out
    made.source("code", printed)
    code = printed.strip().rstrip(",").replace("\n", ",")  # as `tr '\n' ','` makes of tcpdump -ddd
    for mode in (["bytecode", code], ["bytecode-file", "code"]):
        said = made.tc("filter", "add", "dev", "em1", "ingress", "bpf", *mode, "flowid", "1:1")
        assert (said.status, said.err) == (0, "")
        assert f"flowid 1:1 not_in_hw bytecode '{code}'" in made.tc("filter", "show", "dev", "em1", "ingress").out
        assert made.tc("filter", "del", "dev", "em1", "ingress").status == 0
    frames = {
        "arp": build.ether(bytes(46), protocol=0x806),
        "udp": build.ether(build.ipv4(build.udp(b""))),
        "tcp": tcp(80),
        "ssh": tcp(22),
    }
    for name, frame in frames.items():
        with Writer(tmp_path / "one.pcap") as writer:
            writer.write(frame)
        words = [str(made.directory / "code"), str(tmp_path / "one.pcap"), "--json", "--datapath", dp.name]
        assert main(["cbpf", "run", *words]) == 0
        assert (json.loads(capsys.readouterr().out)["matches"] == 1) is (name in matches), name

"""`tcbpf run`, `prog-run`, `verify` and `diff`: what they print, what they return, and what they say of bad input."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tcbpf.cli import diff, main
from tcbpf.lang import compile_c
from tcbpf.net.pcap import read

ROOT = Path(__file__).parents[2]
GUARD, MIXED, DNS = (str(ROOT / "examples" / name) for name in ("dns_guard.c", "captures/mixed.pcapng", "captures/dns.pcapng"))
DATAPATHS = ["user", pytest.param("kernel", marks=pytest.mark.kernel)]
Capture = pytest.CaptureFixture[str]
FRAME = bytes.fromhex("020000000002020000000001 0800 45000028000100004011f96e0a0000010a000002") + bytes(26)
BAD_READ = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("tc") int f(struct __sk_buff *skb) { return *(char *)(long)skb->data; }
SEC("tc/fine") int g(struct __sk_buff *skb) { return 0; }
"""
LARGE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 2000000000); __type(key, __u32); __type(value, __u64[100]); }
    large SEC(".maps");
SEC("tc") int f(struct __sk_buff *skb) { __u32 k = 0; return !bpf_map_lookup_elem(&large, &k); }
"""


@pytest.fixture(params=DATAPATHS)
def on(request: pytest.FixtureRequest) -> list[str]:
    return ["--datapath", request.param]


def out(capsys: Capture, *words: str, status: int = 0) -> str:
    assert main(words) == status, capsys.readouterr().err
    said = capsys.readouterr()
    assert said.err == ""
    return said.out


def refused(capsys: Capture, *words: str) -> str:
    """Return the one line of a command that fails."""
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("tcbpf: ") and said.err.count("\n") == 1, said.err
    return said.err.rstrip("\n").removeprefix("tcbpf: ")


# ---------------------------------------------------------------- what they do


def test_run(capsys: Capture, on: list[str], tmp_path: Path) -> None:
    kept = tmp_path / "kept.pcapng"
    report = json.loads(out(capsys, "run", GUARD, MIXED, "--json", "--out", str(kept), *on))
    assert report["verdicts"] == {"0": 495, "2": 25} and (report["packets"], report["kept"]) == (520, 495)
    assert report["datapath"] == on[1] and report["program"] == "dns_guard" and report["duration_ns"] > 0
    assert json.loads(out(capsys, "run", GUARD, str(kept), "--json", *on))["verdicts"] == {"0": 495}
    text = out(capsys, "run", GUARD, MIXED, "--section", "tc", "--limit", "40", "--maps", *on)
    assert "40 packets" in text and "map flows" in text and "10.0.0." in text


def test_an_object_and_a_program_by_name(capsys: Capture, on: list[str], tmp_path: Path) -> None:
    obj = tmp_path / "vlan.o"
    obj.write_bytes(compile_c(ROOT / "examples/vlan.c"))
    for which in ("--section", "tc/egress"), ("--program", "tag"), ("--name", "tag"):
        assert json.loads(out(capsys, "run", str(obj), DNS, "--json", *which, *on))["program"] == "tag"


def test_prog_run(capsys: Capture, on: list[str], tmp_path: Path) -> None:
    (tmp_path / "frame").write_bytes(FRAME)
    for given in str(tmp_path / "frame"), FRAME.hex(), FRAME.hex(":"):
        report = json.loads(
            out(
                capsys,
                "prog-run",
                GUARD,
                "--data-in",
                given,
                "--ctx",
                "mark=7,cb=1:2:3:4:5",
                "--repeat",
                "9",
                "--data-out",
                str(tmp_path / "after"),
                "--json",
                *on,
            )
        )
        assert (report["verdict"], report["name"], report["ctx"]["mark"]) == (0, "ok", 7)
        assert report["ctx"]["cb"] == [1, 2, 3, 4, 5] and report["packet"] == FRAME.hex()
        assert (tmp_path / "after").read_bytes() == FRAME
    assert out(capsys, "prog-run", GUARD, "--data-in", FRAME.hex(), *on).startswith("verdict 0 (ok), ")


KEYS = {"object", "section", "program", "type", "verdict", "errno", "message", "insns", "insns_processed", "time_ms"}


def test_verify(capsys: Capture, on: list[str], tmp_path: Path) -> None:
    source = tmp_path / "two.c"
    source.write_text(BAD_READ)
    bad, fine = (json.loads(line) for line in out(capsys, "verify", str(source), "--json", *on, status=1).splitlines())
    assert bad.keys() >= KEYS and fine.keys() >= KEYS and "log" not in bad
    assert (bad["verdict"], bad["errno"], bad["section"], bad["program"]) == ("reject", 13, "tc", "f")
    assert bad["message"].startswith("invalid access to packet, off=0 size=1")
    assert (fine["verdict"], fine["errno"], fine["message"], fine["type"]) == ("accept", 0, "", "sched_cls")
    assert "log" in json.loads(out(capsys, "verify", str(source), "--json", "-v", "--section", "tc/fine", *on))
    assert "accept" in out(capsys, "verify", str(source), "--program", "g", *on)
    assert "invalid access to packet" in out(capsys, "verify", str(source), *on, status=1)


@pytest.mark.kernel
def test_diff_takes_every_program(capsys: Capture) -> None:
    lines = out(capsys, "diff", str(ROOT / "examples/vlan.c"), DNS, MIXED, "--json").splitlines()
    reports = [json.loads(line) for line in lines]
    assert [r["program"] for r in reports] == ["untag", "untag", "tag", "tag", "retag", "retag"]
    assert all(r["identical"] for r in reports)
    assert "retag: identical, 71 packets" in out(capsys, "diff", str(ROOT / "examples/vlan.c"), DNS, "--section", "tc")


DIFFERING = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct inner { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 9); __type(key, __u32); __type(value, __u32); }
    one SEC(".maps");
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); __uint(max_entries, 2); __type(key, __u32); __array(values, struct inner);
} outer SEC(".maps") = { .values = { &one } };
struct { __uint(type, BPF_MAP_TYPE_QUEUE); __uint(max_entries, 9); __type(value, __u32); } queue SEC(".maps");
struct stat { __u64 packets, time; };
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, struct stat); }
    stats SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 99); __type(key, __u32); __type(value, __u32); } any SEC(".maps");
#define HASH bpf_get_hash_recalc(skb)
#define CHANCE bpf_get_prandom_u32()
SEC("tc") int f(struct __sk_buff *skb)
{
    __u32 zero = 0, number = NUMBER;
    void *inner = bpf_map_lookup_elem(&outer, &zero);
    if (inner)
        bpf_map_update_elem(inner, &zero, &number, 0);
    bpf_map_push_elem(&queue, &number, BPF_EXIST);
    struct stat *stat = bpf_map_lookup_elem(&stats, &zero);
    if (stat)
        stat->packets += number, stat->time = bpf_ktime_get_ns();
    number = CHANCE;
    bpf_map_update_elem(&any, &number, &number, 0);
    skb->mark = MARK;
    return 0;
}
SEC("kprobe/x") int other(void *ctx) { return 0; }
SEC("xdp") int frames(struct xdp_md *ctx) { return 2; }
char _license[] SEC("license") = "GPL";
"""
"""The hash of a flow has a seed of the kernel's own, so that it differs between the datapaths."""


def compared(capsys: Capture, place: Path, number: str, mark: str, *words: str, status: int) -> str:
    (place / "x.c").write_text(DIFFERING.replace("NUMBER", number).replace("MARK", mark))
    return out(capsys, "diff", str(place / "x.c"), DNS, *words, status=status)


@pytest.mark.kernel
def test_diff_shows_the_first_difference(capsys: Capture, tmp_path: Path) -> None:
    text = compared(capsys, tmp_path, "7", "HASH | 1", status=1)
    assert "ctx.mark differs" in text and "  user    " in text and "  kernel  " in text


@pytest.mark.kernel
@pytest.mark.parametrize("map", ["outer", "queue", "stats"])
def test_diff_compares_what_maps_hold(capsys: Capture, tmp_path: Path, map: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each map by itself, the others empty: what queues hold, maps in maps, counts beside a time."""
    real = diff.contents
    monkeypatch.setattr(diff, "contents", lambda dp, found: real(dp, found) if found.spec.name in (map, "one") else {})
    assert f"afterwards: map {map} differs" in compared(capsys, tmp_path, "HASH", "0", status=1)


@pytest.mark.kernel
def test_diff_says_what_it_left_out(capsys: Capture, tmp_path: Path) -> None:
    text = compared(capsys, tmp_path, "7", "CHANCE", status=0)
    assert "f: identical, 71 packets; left out: what differs from run to run in ctx.mark, map stats, map any" in text
    assert "left out: other: a section kprobe/x is for programs of another type" in text
    assert "left out: frames: the user datapath runs programs on struct __sk_buff, not xdp" in text
    reports = [json.loads(line) for line in compared(capsys, tmp_path, "7", "0", "--json", status=0).splitlines()]
    assert reports[0]["unsteady"] == ["map stats", "map any"] and [r["program"] for r in reports if "left_out" in r] == [
        "other",
        "frames",
    ]
    jumbo = out(capsys, "diff", str(tmp_path / "x.c"), str(ROOT / "examples/captures/jumbo.pcapng"), "--program", "f")
    assert "identical, 26 packets; left out: 18 packets outside what BPF_PROG_TEST_RUN takes" in jumbo


# ---------------------------------------------------------------- bad input


def pcap(link_type: int) -> bytes:
    return struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, link_type) + struct.pack("<IIII", 1, 1, 20, 20) + bytes(20)


def test_bad_captures(capsys: Capture, on: list[str], tmp_path: Path) -> None:
    cases = {
        "cooked": (pcap(113), "packets of link type 113 (Linux cooked) are not what a device hands to a classifier"),
        "text": (b"hello there", "is not a capture"),
        "none": (None, "No such file or directory"),
    }
    for name, (raw, words) in cases.items():
        if raw is not None:
            (tmp_path / name).write_bytes(raw)
        said = refused(capsys, "run", GUARD, str(tmp_path / name), "--out", str(tmp_path / "out"), *on)
        assert words in said and str(tmp_path / name) in said and not (tmp_path / "out").exists()


def test_of_a_capture_that_is_cut_the_packets_before_count(capsys: Capture, on: list[str], tmp_path: Path) -> None:
    (tmp_path / "cut").write_bytes(Path(DNS).read_bytes()[:3000])
    words = ("run", GUARD, str(tmp_path / "cut"), *on)
    assert main([*words, "--json", "--out", str(tmp_path / "out")]) == 3
    said = capsys.readouterr()
    report = json.loads(said.out)
    assert "packet 24, offset 2836: cut short" in said.err and said.err.count("\n") == 1
    assert report["packets"] == sum(report["verdicts"].values()) == 23
    assert report["kept"] == len(list(read(tmp_path / "out"))) == report["verdicts"]["0"]
    assert main(words) == 3 and "23 packets" in capsys.readouterr().out
    assert main([*words, "--limit", "23"]) == 0


def test_packets_that_the_capture_cut_are_told(capsys: Capture, on: list[str], tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(pcap(1) + struct.pack("<IIII", 1, 1, 20, 1500) + bytes(20))
    assert main(["run", GUARD, str(tmp_path / "x"), *on]) == 0
    assert "1 of them were cut by the capture: skb->len is what was captured" in capsys.readouterr().out
    assert main(["run", GUARD, str(tmp_path / "x"), "--json", *on]) == 0
    assert json.loads(capsys.readouterr().out)["cut"] == 1


def test_bad_objects(capsys: Capture, on: list[str], tmp_path: Path) -> None:
    good = compile_c(GUARD)
    cases = {
        "machine.o": (good[:18] + struct.pack("<H", 62) + good[20:], "not for eBPF? (it is for x86-64"),
        "endian.o": (good[:5] + b"\2" + good[6:], "eBPF object is big endian!"),
        "cut.o": (good[:-100], "cut.o"),
        "text.o": (b"hello", "ELF"),
        "none.o": (None, "no such file"),
        "large.c": (LARGE.encode(), "create"),
        "refused.c": (BAD_READ.replace('SEC("tc/fine")', "").encode(), "tc: the verifier refuses it: pc 1"),
    }
    for name, (raw, words) in cases.items():
        if raw is not None:
            (tmp_path / name).write_bytes(raw)
        said = refused(capsys, "run", str(tmp_path / name), DNS, "--out", str(tmp_path / "out"), *on)
        assert words in said and not (tmp_path / "out").exists(), name
    assert "doesn't contain sec nope (it has tc (dns_guard))" in refused(capsys, "run", GUARD, DNS, "--section", "nope", *on)
    several = refused(capsys, "run", str(ROOT / "examples/vlan.c"), DNS, *on)
    assert "several programs, say which section (it has tc/ingress (untag)" in several


def test_a_source_that_does_not_compile(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "bad.c").write_text("int f( {\n")
    assert main(["run", str(tmp_path / "bad.c"), DNS]) == 2
    said = capsys.readouterr().err.splitlines()
    assert any("bad.c:1:8: error:" in line for line in said) and said[-1].startswith("tcbpf: ")


def test_bad_words(capsys: Capture, on: list[str]) -> None:
    for words, said in (
        (["--data-in", "zz"], "'zz' is neither a file nor hex digits"),
        (["--data-in", FRAME.hex(), "--ctx", "foo=1"], "foo"),
        (["--data-in", FRAME.hex(), "--ctx", "mark"], "'mark' is not FIELD=NUMBER"),
        (["--data-in", FRAME.hex(), "--ctx", "mark=99999999999"], "mark"),
        (["--data-in", FRAME.hex(), "--ctx", "cb=1:2"], "cb is 5 numbers"),
    ):
        assert said in refused(capsys, "prog-run", GUARD, *words, *on)


@pytest.mark.kernel
def test_a_short_frame_on_the_kernel(capsys: Capture) -> None:
    said = refused(capsys, "prog-run", GUARD, "--data-in", FRAME[:20].hex(), "--datapath", "kernel")
    assert "a packet of 20 bytes cannot run on the kernel datapath" in said and "the user datapath takes any" in said


def test_a_full_disk(tmp_path: Path, on: list[str]) -> None:
    """In a file system of its own where that can be mounted, else by a limit on a file's size."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(small)], capture_output=True, check=False
        ).returncode
    )
    try:
        limit = "" if mounted else "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536)); "
        program = f"{limit}import sys; from tcbpf.cli import main; sys.exit(main(sys.argv[1:]))"
        done = subprocess.run(
            [sys.executable, "-c", program, "run", GUARD, MIXED, "--out", str(small / "kept.pcapng"), *on],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
        assert str(small / "kept.pcapng") in done.stderr
        assert os.listdir(small) == []
    finally:
        if mounted:
            subprocess.run(["umount", str(small)], check=True)


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root can give up being it")
def test_without_privilege(tmp_path: Path) -> None:
    """Nobody may not: the line says so, and what to do."""
    (tmp_path / "guard.o").write_bytes(compile_c(GUARD))
    program = (
        "import os, sys, tcbpf.cli.run, tcbpf.datapath.kernel.maps, tcbpf.datapath.kernel.progs\n"
        "from tcbpf.cli import main\nfrom tcbpf.lang import compile\n"
        f"from tcbpf.obj import load\nobj = load({str(tmp_path / 'guard.o')!r})\nimport tcbpf.datapath.loader\n"
        "from tcbpf.datapath.kernel import Kernel\nfrom tcbpf.cli import guard\n"
        "os.setgid(65534); os.setuid(65534)\nsys.exit(guard(lambda: Kernel().load(obj) and 0))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "Operation not permitted" in done.stderr and "CAP_BPF" in done.stderr and "--datapath user" in done.stderr


UNLISTED = {
    "RINGBUF": "__uint(max_entries, 4096);",
    "PERF_EVENT_ARRAY": "__uint(max_entries, 4); __uint(key_size, 4); __uint(value_size, 4);",
    "QUEUE": "__uint(max_entries, 4); __type(value, __u32);",
    "STACK": "__uint(max_entries, 4); __type(value, __u32);",
    "BLOOM_FILTER": "__uint(max_entries, 4); __type(value, __u32);",
    "SK_STORAGE": "__uint(max_entries, 0); __uint(map_flags, 1); __type(key, int); __type(value, __u32);",
}


@pytest.mark.parametrize("type", UNLISTED)
def test_maps_without_elements_to_list(capsys: Capture, on: list[str], tmp_path: Path, type: str) -> None:
    (tmp_path / "x.c").write_text(
        f"""
        #include <linux/bpf.h>
        #include <bpf/bpf_helpers.h>
        struct {{ __uint(type, BPF_MAP_TYPE_{type}); {UNLISTED[type]} }} events SEC(".maps");
        struct {{
            __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, __u64);
        }} n SEC(".maps");
        SEC("tc") int p(struct __sk_buff *skb)
        {{
            __u32 k = 0;
            __u64 *v = bpf_map_lookup_elem(&n, &k);
            asm volatile("" :: "r"(&events));
            if (v) (*v)++;
            return 0;
        }}
        char _license[] SEC("license") = "GPL";
        """
    )
    words = ("run", str(tmp_path / "x.c"), DNS, "--maps", *on)
    shown = out(capsys, *words)
    assert f"map events is a {type.lower()}, which has no elements to list" in shown and "packets" in shown
    report = json.loads(out(capsys, *words, "--json"))
    assert report["maps"]["events"] is None and report["maps"]["n"] == [{"key": 0, "value": report["packets"]}]
    if on[1] == "kernel":
        compared = out(capsys, "diff", str(tmp_path / "x.c"), DNS)
        assert "identical, 71 packets" in compared
        assert ("left out: the contents of events" in compared) == (type not in ("QUEUE", "STACK"))

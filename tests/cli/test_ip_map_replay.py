"""`tcbpf ip`, `map` and `replay`: words in, words out, exit statuses, and bad input in one line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tcbpf.cli import main
from tcbpf.control.objects import Bpf, Filter, Qdisc
from tcbpf.control.request import Op, Request
from tcbpf.datapath.user import User
from tcbpf.isa import assemble, encode
from tcbpf.lang import compile
from tcbpf.net import build
from tcbpf.net.pcap import Writer
from tcbpf.obj.program import MapSpec, Program
from tcbpf.uapi.tc import TC_H_CLSACT

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TCBPF_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TCBPF_DATAPATH", raising=False)
    return tmp_path / "home"


def ok(capsys: Capture, *words: str) -> str:
    status = main(words)
    out, err = capsys.readouterr()
    assert (status, err) == (0, ""), words
    return out


def refused(capsys: Capture, status: int, *words: str) -> str:
    assert main(words) == status, words
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1, err
    return err.rstrip("\n")


# ---------------------------------------------------------------- ip


def test_links_as_ip_prints_them(capsys: Capture) -> None:
    ok(capsys, "ip", "link", "add", "em1", "address", "02:00:00:00:00:01", "type", "veth", "peer", "name", "em2")
    ok(capsys, "ip", "link", "add", "em3", "mtu", "9000", "type", "dummy")
    ok(capsys, "ip", "link", "set", "dev", "em1", "up")
    ok(capsys, "ip", "link", "set", "em3", "up", "address", "02:00:00:00:00:03")
    ok(capsys, "ip", "link", "set", "em2", "address", "02:00:00:00:00:02")
    assert ok(capsys, "ip", "link", "show").splitlines() == [
        "1: lo: <LOOPBACK> mtu 65536 qdisc noop state DOWN mode DEFAULT group default qlen 1000",
        "    link/loopback 00:00:00:00:00:00 brd 00:00:00:00:00:00",
        "2: em2@em1: <BROADCAST,MULTICAST> mtu 1500 qdisc noop state DOWN mode DEFAULT group default qlen 1000",
        "    link/ether 02:00:00:00:00:02 brd ff:ff:ff:ff:ff:ff",
        "3: em1@em2: <NO-CARRIER,BROADCAST,MULTICAST,UP,M-DOWN> mtu 1500 qdisc noqueue state LOWERLAYERDOWN mode DEFAULT "
        "group default qlen 1000",
        "    link/ether 02:00:00:00:00:01 brd ff:ff:ff:ff:ff:ff",
        "4: em3: <BROADCAST,NOARP,UP,LOWER_UP> mtu 9000 qdisc noqueue state UNKNOWN mode DEFAULT group default qlen 1000",
        "    link/ether 02:00:00:00:00:03 brd ff:ff:ff:ff:ff:ff",
    ]
    assert ok(capsys, "ip", "-br", "link", "show", "em3") == (
        "em3              UNKNOWN        02:00:00:00:00:03 <BROADCAST,NOARP,UP,LOWER_UP> \n"
    )
    row = json.loads(ok(capsys, "ip", "-j", "link", "show", "dev", "em2"))[0]
    assert (row["ifname"], row["link"], row["flags"], row["operstate"]) == ("em2", "em1", ["BROADCAST", "MULTICAST"], "DOWN")
    assert ok(capsys, "ip", "link", "show", "up", "type", "dummy").startswith("4: em3")
    ok(capsys, "ip", "link", "set", "em3", "name", "em4")
    ok(capsys, "ip", "link", "del", "em4")
    assert "em4" not in ok(capsys, "ip", "l")


@pytest.mark.parametrize(
    ("status", "words", "said"),
    [
        (2, "link add lo type dummy", "RTNETLINK answers: File exists"),
        (2, "link add x type foo", "Error: Unknown device type."),
        (1, "link del x", 'Cannot find device "x"'),
        (1, "link set x up", 'Cannot find device "x"'),
        (1, "link show x", 'Device "x" does not exist.'),
        (2, "link add a-name-longer-than-15 type veth", "Error: Attribute failed policy validation."),
        (255, "link add x", 'Not enough information: "type" argument is required'),
        (255, "link frob x", 'Command "frob" is unknown, try "tcbpf ip link help".'),
        (255, "address", 'Object "address" is unknown, try "tcbpf ip help".'),
        (255, "-z link", 'Option "-z" is unknown, try "tcbpf ip help".'),
    ],
)
def test_what_ip_refuses(capsys: Capture, status: int, words: str, said: str) -> None:
    assert refused(capsys, status, "ip", *words.split()) == said


def test_a_home_of_ones_own(capsys: Capture, tmp_path: Path) -> None:
    ok(capsys, "ip", "--home", str(tmp_path / "other"), "link", "add", "em9", "type", "dummy")
    assert "em9" not in ok(capsys, "ip", "link") and "em9" in ok(capsys, "ip", "link", f"--home={tmp_path / 'other'}")


# ---------------------------------------------------------------- map


def test_a_map_from_one_command_to_the_next(capsys: Capture) -> None:
    pin = "/sys/fs/bpf/tc/globals/table"
    ok(capsys, "map", "create", pin, "--type", "hash", "--key", "4", "--value", "8", "--entries", "16")
    ok(capsys, "map", "update", pin, "7", "0x10")
    ok(capsys, "map", "update", "name", "table", "key", "8", "value", "9", "noexist")
    assert ok(capsys, "map", "lookup", pin, "7").strip() == "16"
    assert ok(capsys, "map", "lookup", "id", "1", "08000000", "--hex").strip() == "09 00 00 00 00 00 00 00"
    rows = json.loads(ok(capsys, "map", "dump", "1", "--json"))
    assert sorted((row["key"], row["value"]) for row in rows) == [(7, 16), (8, 9)]
    ok(capsys, "map", "delete", "table", "7")
    assert refused(capsys, 1, "map", "lookup", "table", "7") == "tcbpf: map table: no element of key 7"
    assert refused(capsys, 1, "map", "delete", "table", "7") == "tcbpf: map table: no element of key 7"
    shown = json.loads(ok(capsys, "map", "show", "--json"))
    assert shown == [{"id": 1, "name": "table", "type": "hash", "key_size": 4, "value_size": 8, "max_entries": 16, "flags": 0}]
    ok(capsys, "map", "pin", "1", "/sys/fs/bpf/again")
    assert "table" in ok(capsys, "map", "show", "/sys/fs/bpf/again")
    for path in "/sys/fs/bpf/again", pin:
        ok(capsys, "map", "unpin", path)
    assert ok(capsys, "map", "show", "--json").strip() == "[]"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("show nothing", "no map 'nothing' (there are 1 table)"),
        ("lookup table", "KEY is missing"),
        ("lookup table 1 2", "unexpected argument '2'"),
        ("lookup table zz --hex", "'zz' is not hexadecimal"),
        ("update table 1", "VALUE is missing"),
        ("update table 1 2 sometimes", "flag 'sometimes' (any, noexist, exist)"),
        ("update table 1 2 exist", "update an element of table: No such file or directory"),
        ("update table 99999999999 2", "map table key"),
        ("dump /sys/fs/bpf/none", "open /sys/fs/bpf/none: No such file or directory"),
        ("create /sys/fs/bpf/huge --type array --value 1048576 --entries 16777216", "MiB are available"),
        ("create /sys/fs/bpf/bad --type hash --entries 0", "create bad: Invalid argument"),
        (
            "create /sys/fs/bpf/a.b --type hash",
            "pin /sys/fs/bpf/a.b: Operation not permitted (a name in the bpf fs has no dot)",
        ),
    ],
)
def test_what_map_refuses(capsys: Capture, words: str, said: str) -> None:
    ok(capsys, "map", "create", "/sys/fs/bpf/table", "--type", "hash")
    assert said in refused(capsys, 2, "map", *words.split())
    assert [m["id"] for m in json.loads(ok(capsys, "map", "show", "--json"))] == [1]


# ---------------------------------------------------------------- replay


@pytest.fixture
def capture(tmp_path: Path) -> str:
    path = tmp_path / "in.pcap"
    with Writer(path) as out:
        for size in range(60, 70):
            out.write(build.ether(build.ipv4(build.udp(b"")), pad=size))
    return str(path)


@pytest.fixture
def filtered(home: Path, capsys: Capture) -> None:
    ok(capsys, "ip", "link", "add", "em1", "type", "dummy")
    program = Program.from_bytes(encode(assemble("r0 = *(u32 *)(r1 +0)\nr0 &= 1\nr0 <<= 1\nexit")))
    with User(str(home)) as dp:
        dp.apply(Request(Op.ADD, Qdisc("em1", "clsact", parent=TC_H_CLSACT)))
        dp.apply(Request(Op.ADD, Filter("em1", 0xFFFFFFF2, "bpf", options=Bpf(prog=dp.prog_load(program), direct_action=True))))


@pytest.mark.usefixtures("filtered")
def test_a_replay_for_people_and_for_programs(capsys: Capture, capture: str, tmp_path: Path) -> None:
    shown = ok(capsys, "replay", capture, "--dev", "em1", "--ingress", "--out", str(tmp_path / "out"))
    assert re.search(r"^ +2  shot +5  50.0%$", shown, re.M) and "10 packets, 645 bytes" in shown
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["em1-ingress.pcapng"]
    report = json.loads(ok(capsys, "replay", capture, "--dev", "em1", "--ingress", "--json"))
    assert (report["packets"], report["verdicts"], report["devices"]["em1"]["rx_dropped"]) == (10, {"0": 5, "2": 5}, 5)
    assert json.loads(ok(capsys, "replay", capture, "--dev", "em1", "--egress", "--json"))["verdicts"] == {"-1": 10}


@pytest.mark.usefixtures("filtered")
def test_what_replay_refuses(capsys: Capture, capture: str, tmp_path: Path) -> None:
    said = refused(capsys, 2, "replay", capture, "--dev", "em7", "--ingress")
    assert said == "tcbpf: replay: no device 'em7' (there are lo, em1)"
    assert "No such file" in refused(capsys, 2, "replay", str(tmp_path / "none"), "--dev", "em1", "--ingress")
    (tmp_path / "cut").write_bytes(Path(capture).read_bytes()[:-1])
    assert main(["replay", str(tmp_path / "cut"), "--dev", "em1", "--ingress", "--out", str(tmp_path / "out"), "--json"]) == 3
    shown = capsys.readouterr()
    assert "packet 10, offset" in shown.err and "cut short" in shown.err and json.loads(shown.out)["packets"] == 9
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["em1-ingress.pcapng"]
    assert "user datapath" in refused(capsys, 2, "replay", capture, "--dev", "em1", "--ingress", "--datapath", "kernel")


# ---------------------------------------------------------------- maps without keys, and records


def test_queues_and_bloom_filters(capsys: Capture) -> None:
    with User() as dp:
        for spec in (MapSpec("q", "queue", 0, 4, 2), MapSpec("b", "bloom_filter", 0, 4, 9)):
            dp.obj_pin(f"/sys/fs/bpf/{spec.name}", dp.map_create(spec))
    ok(capsys, "map", "push", "q", "7")
    ok(capsys, "map", "push", "q", "value", "8")
    assert "Argument list too long" in refused(capsys, 2, "map", "push", "q", "9")
    assert ok(capsys, "map", "peek", "q") == ok(capsys, "map", "pop", "q") == "7\n"
    assert ok(capsys, "map", "pop", "q", "--hex") == "08 00 00 00\n"
    assert refused(capsys, 1, "map", "pop", "q") == "tcbpf: map q is empty"
    ok(capsys, "map", "push", "b", "5")
    refused(capsys, 2, "map", "pop", "b")
    refused(capsys, 2, "map", "dump", "b")


RING = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct event { __u32 number; __be32 saddr; };
const struct event *shown __attribute__((unused));
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 1); __uint(pinning, LIBBPF_PIN_BY_NAME); } ring SEC(".maps");
SEC("tc") int say(struct __sk_buff *skb)
{
	struct event e = {skb->len, 0x0100000a};
	return bpf_ringbuf_output(&ring, &e, sizeof(e), 0);
}
char _license[] SEC("license") = "GPL";
"""


def test_records(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "ring.c").write_text(RING)
    with User() as dp:
        prog = dp.load(compile(tmp_path / "ring.c"), section="tc")
        for size in 60, 61, 62:
            assert prog.run(bytes(size)).verdict == 0
    assert "no type 'struct nosuch'" in refused(capsys, 2, "map", "records", "ring", "struct nosuch")
    first, *others = ok(capsys, "map", "records", "ring", "event", "--json").splitlines()
    assert json.loads(first) == {"number": 60, "saddr": "10.0.0.1"} and len(others) == 2
    assert ok(capsys, "map", "records", "ring") == ""
    refused(capsys, 2, "map", "records", "ring", "event", "--hex")


def test_the_words_of_map_may_follow_its_options(capsys: Capture, home: Path) -> None:
    ok(capsys, "map", "create", "/sys/fs/bpf/m", "--type", "array", "--entries", "1")
    assert "map m, array" in ok(capsys, "map", "dump", "--home", str(home), "m")
    with pytest.raises(SystemExit):
        main(["map", "dump", "m", "--nosuch"])


def test_a_namespace_is_the_kernels(capsys: Capture) -> None:
    assert "only the kernel datapath has them" in refused(capsys, 2, "ip", "-n", "ns", "link", "show")
    said = refused(capsys, 2, "ip", "--datapath", "kernel", "-netns", "nosuch-namespace", "link", "show")
    assert said == "tcbpf: open network namespace 'nosuch-namespace': No such file or directory (ip netns list names them)"


@pytest.mark.kernel
def test_devices_of_a_namespace(capsys: Capture) -> None:
    from netns import netns

    with netns() as place:
        options = ("ip", "--datapath", "kernel", "-n", place, "link")
        ok(capsys, *options, "add", "em1", "type", "veth", "peer", "name", "em2")
        assert "em1@em2" in ok(capsys, *options, "show")
    assert "em1" not in ok(capsys, "ip", "--datapath", "kernel", "link", "show")

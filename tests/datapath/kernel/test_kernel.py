"""What only the kernel datapath has: its limits, its privileges, its wires."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from netns import netns, within
from tcbpf.control.handles import HOOKS
from tcbpf.control.objects import Action, Bpf, Filter, Link, Qdisc
from tcbpf.control.request import Op, Request
from tcbpf.datapath.kernel import Kernel, syscall
from tcbpf.datapath.kernel.maps import KernelMap, kernel_name
from tcbpf.datapath.kernel.progs import packet_sizes
from tcbpf.errors import InputError, NotSupported, SysError, VerifierError
from tcbpf.isa import assemble, encode
from tcbpf.net.pcap import Writer
from tcbpf.obj.program import MapSpec, Program
from tcbpf.uapi.tc import TC_H_CLSACT

pytestmark = pytest.mark.kernel


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with netns() as path, Kernel(netns=path) as made:
        yield made


def program(text: str, *maps: MapSpec) -> Program:
    insns = [insn._replace(src=5) if insn.code == 0x18 else insn for insn in assemble(text)]
    return Program.from_bytes(encode(insns), maps=maps, license="GPL")


# ---------------------------------------------------------------- running


def test_packets_that_test_run_does_not_take(kernel: Kernel, tmp_path: Path) -> None:
    shortest, longest = packet_sizes()
    low, high = shortest[0], longest + 1
    assert (low, longest) == (14, 3712) or os.sysconf("SC_PAGE_SIZE") != 4096
    assert shortest[0x86DD] - shortest[0x800] in (0, 20)  # either no header is asked for, or a whole one
    prog = kernel.prog_load(program("r0 = 0\nexit"))
    for size in (low - 1, high):
        with pytest.raises(InputError, match=f"a packet of {size} bytes cannot run on the kernel datapath"):
            prog.run(bytes(size))
    assert prog.run(bytes(high - 1)).verdict == 0
    for ethertype, size in shortest.items():
        frame = bytes(12) + ethertype.to_bytes(2) + bytes(size - 14)
        assert prog.run(frame).verdict == 0
        with pytest.raises(InputError, match=f"of {size} to {longest} bytes here"):
            prog.run(frame[:-1])
    with Writer(tmp_path / "in.pcap") as out:
        for size in (60, 9000, 100):
            out.write(bytes(size))
    stats = prog.run_pcap(str(tmp_path / "in.pcap"))
    assert (stats.packets, stats.bytes, stats.skipped) == (2, 160, 1)


@pytest.mark.parametrize("ctx", [{"protocol": 8}, {"nosuch": 1}, {"mark": 1 << 32}, {"mark": -1}, {"cb": [1]}])
def test_context_fields_that_test_run_does_not_take(kernel: Kernel, ctx: dict[str, object]) -> None:
    with pytest.raises(InputError):
        kernel.prog_load(program("r0 = 0\nexit")).run(bytes(64), ctx)


def test_a_long_log_is_whole(kernel: Kernel) -> None:
    text = "r0 = 0\n" * 3000 + "r0 = r9\nexit"
    with pytest.raises(VerifierError) as caught:
        kernel.prog_load(program(text))
    assert caught.value.message == "R9 !read_ok" and caught.value.pc == 3000
    assert len(caught.value.log) > syscall.LOG_START and caught.value.log.startswith("0: R1=ctx()")


def test_batches_give_what_single_look_ups_give(kernel: Kernel) -> None:
    m = kernel.map_create(MapSpec("many", "hash", 4, 8, 5000))
    wanted = {i.to_bytes(4, "little"): (i * i).to_bytes(8, "little") for i in range(5000)}
    for key, value in wanted.items():
        m.update(key, value)
    assert isinstance(m.raw, KernelMap) and dict(m.raw.elements()) == wanted


def test_names_are_cut_to_what_the_kernel_takes() -> None:
    assert kernel_name("a-name with.more_than_fifteen") == b"a_name_with.mor"


# ---------------------------------------------------------------- what is there


def test_what_the_kernel_lacks_is_said(kernel: Kernel) -> None:
    kernel.apply(Request(Op.ADD, Link("em1", kind="veth", peer="em2")))
    kernel.apply(Request(Op.ADD, Qdisc("em1", "clsact", 0xFFFF0000, TC_H_CLSACT)))
    everything = Bpf(bytecode=((6, 0, 0, 0xFFFFFFFF),))
    for what, words in (
        (Link("x1", kind="nosuch"), "this kernel has no nosuch devices"),
        (Qdisc("em1", "nosuch", 0x10000), "Specified qdisc kind is unknown"),
        (Filter("em1", HOOKS["ingress"], "nosuch"), "TC classifier not found"),
        (
            Filter("em1", HOOKS["ingress"], "bpf", options=everything, actions=(Action("nosuch"),)),
            "Failed to load TC action module",
        ),
    ):
        with pytest.raises(NotSupported, match=words):
            kernel.apply(Request(Op.ADD, what))


def test_without_privilege_the_error_says_what_is_needed(kernel: Kernel) -> None:
    code = (
        "import os, tcbpf.datapath.kernel.maps, tcbpf.datapath.kernel.progs\n"
        "from tcbpf.datapath.kernel import Kernel\nfrom tcbpf.obj.program import MapSpec, Program\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "for call in (lambda: Kernel().map_create(MapSpec('m', 'hash', 4, 4, 1)),\n"
        "             lambda: Kernel().prog_load(Program.from_bytes(bytes.fromhex('b700000000000000 9500000000000000')))):\n"
        "    try: call()\n"
        "    except OSError as error: print(type(error).__name__, error.errno, error)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)),
    )
    lines = ran.stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [["MapError", "1"], ["SysError", "1"]]
    assert all("CAP_BPF" in line and "--datapath user" in line for line in lines)


def test_a_namespace_that_is_not_there() -> None:
    with pytest.raises(SysError, match="nosuch-namespace"):
        Kernel(netns="nosuch-namespace").apply(Request(Op.SHOW, Link("")))


def test_places_that_hold_no_pins(kernel: Kernel, tmp_path: Path) -> None:
    m = kernel.map_create(MapSpec("m", "hash", 4, 4, 1))
    with pytest.raises(SysError, match="not in a bpf file system"):
        kernel.obj_pin(str(tmp_path / "m"), m)
    path = f"/sys/fs/bpf/tcbpf-test-{os.urandom(6).hex()}"
    kernel.obj_pin(path, m)
    try:
        with pytest.raises(SysError) as caught:
            kernel.obj_pin(f"{path}/below", m)
        assert caught.value.errno == errno.ENOTDIR
        with pytest.raises(SysError) as caught:
            kernel.obj_get("/sys/fs/bpf")
        assert caught.value.errno == errno.EACCES
    finally:
        os.unlink(path)


# ---------------------------------------------------------------- real packets


COUNT = """
r6 = r1
r1 = 0 ll
*(u32 *)(r10 - 4) = 0
r2 = r10
r2 += -4
call 1
if r0 == 0 goto pc+3
r1 = *(u32 *)(r6 + 0)
r2 = 1
lock *(u64 *)(r0 + 0) += r2
r0 = %d
exit
"""


def add_where_there_is(kernel: Kernel, link: Link) -> None:
    try:
        kernel.apply(Request(Op.ADD, link))
    except NotSupported as error:
        pytest.skip(str(error))


def send(path: str, device: str, frame: bytes, count: int) -> None:
    def go() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
            out.bind((device, 0))
            for _ in range(count):
                out.send(frame)

    within(path, go)


def test_filters_see_and_redirect_real_packets(kernel: Kernel) -> None:
    kernel.apply(Request(Op.ADD, Link("em1", kind="veth", peer="em2")))
    add_where_there_is(kernel, Link("ifb0", kind="ifb"))
    for name in ("em1", "em2", "ifb0"):
        kernel.apply(Request(Op.CHANGE, Link(name, up=True)))
    kernel.apply(Request(Op.ADD, Qdisc("em1", "clsact", 0xFFFF0000, TC_H_CLSACT)))
    counts = MapSpec("counts", "array", 4, 8, 1)
    seen = kernel.prog_load(program(COUNT % -1, counts))
    kernel.apply(
        Request(
            Op.ADD,
            Filter(
                "em1",
                HOOKS["ingress"],
                "bpf",
                pref=2,
                options=Bpf(prog=seen, name="x", classid=0x10001),
                actions=(Action("mirred", control="stolen", options={"dev": "ifb0"}),),
            ),
        )
    )
    kernel.apply(Request(Op.ADD, Qdisc("ifb0", "clsact", 0xFFFF0000, TC_H_CLSACT)))
    dropped = kernel.prog_load(program(COUNT % 2, counts))
    kernel.apply(
        Request(Op.ADD, Filter("ifb0", HOOKS["egress"], "bpf", options=Bpf(prog=dropped, name="y", direct_action=True)))
    )
    send(kernel.netns, "em2", bytes.fromhex("ffffffffffff020000000001 0800") + bytes(46), 5)
    deadline = time.monotonic() + 5
    while int(dropped.maps[0][0]) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert int(seen.maps[0][0]) == 5 and int(dropped.maps[0][0]) == 5
    time.sleep(0.05)  # some ticks, after which the kernel has a time of first use
    _, row = kernel.apply(Request(Op.SHOW, Filter("em1", HOOKS["ingress"], protocol=0)))
    assert isinstance(row, Filter) and row.actions[0].stats.packets == 5 and row.actions[0].first_used >= 0


def test_a_vxlan_device(kernel: Kernel) -> None:
    add_where_there_is(kernel, Link("vx0", kind="vxlan", options={"external": True, "dstport": 4790}))
    (row,) = kernel.apply(Request(Op.GET, Link("vx0")))
    assert isinstance(row, Link) and row.kind == "vxlan"
    kernel.apply(Request(Op.CHANGE, Link("vx0", mtu=1400, address="02:00:00:00:00:07")))
    (row,) = kernel.apply(Request(Op.GET, Link("vx0")))
    assert isinstance(row, Link) and (row.mtu, row.address, row.up) == (1400, "02:00:00:00:00:07", False)

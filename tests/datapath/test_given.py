"""What a caller gives a run is checked on every way in; what one run was given is gone in the next."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from tcbpf.datapath.base import Datapath
from tcbpf.datapath.kernel import Kernel
from tcbpf.datapath.user import User
from tcbpf.errors import InputError
from tcbpf.isa.asm import assemble
from tcbpf.native.skb import Skb
from tcbpf.obj.program import Program
from tcbpf.tables.skb import SKB, Field
from tcbpf.vm.executable import Options

PACKET = bytes.fromhex("020000000002 020000000001 0800 45000028 00010000 4011f96e 0a000001 0a000002") + bytes(30)
TEST_RUN = {
    "mark": 7, "priority": 8, "ingress_ifindex": 1, "ifindex": 1, "tstamp": 9, "wire_len": 77, "gso_segs": 0x1234,
    "gso_size": 0x2345, "hwtstamp": 10, "cb": [1, 2, 3, 4, 0x01020304],
}  # fmt: skip
EVERYTHING = TEST_RUN | {
    "pkt_type": 3, "queue_mapping": 4, "protocol": 5, "vlan_present": 1, "vlan_tci": 6, "vlan_proto": 0x81, "tc_index": 7,
    "hash": 8, "tc_classid": 9, "napi_id": 10, "tstamp_type": 2,
}  # fmt: skip
WRONG: tuple[tuple[Any, Any], ...] = (
    (PACKET, {"len": 70000}),
    (PACKET, {"len": 64}),
    (PACKET, {"data": 1}),
    (PACKET, {"nothing": 1}),
    (PACKET, {"mark": 1.5}),
    (PACKET, {"mark": "1"}),
    (PACKET, {"mark": -1}),
    (PACKET, {"mark": 1 << 32}),
    (PACKET, {"tstamp": 1 << 64}),
    (PACKET, {"gso_size": 1 << 16}),
    (PACKET, {"gso_segs": 1 << 16}),
    (PACKET, {"wire_len": 63}),
    (PACKET, {"cb": [1, 2]}),
    (PACKET, {"cb": 5}),
    (PACKET, {"cb": "12345"}),
    (PACKET, {"cb": [1, 2, 3, 4, 1 << 32]}),
    (PACKET, {7: 7}),
    (PACKET, [("mark", 1)]),
    ("ff" * 64, None),
    (64, None),
    ([1] * 64, None),
    (None, None),
)


def program(text: str, type: str = "sched_cls") -> Program:
    return Program("given", type, tuple(assemble(text)))


@pytest.fixture(params=["jit", "interp", pytest.param("kernel", marks=pytest.mark.kernel)])
def dp(request: pytest.FixtureRequest) -> Any:
    if request.param == "kernel":
        with Kernel() as kernel:
            yield kernel
    else:
        with User(options=Options(engine=request.param)) as user:
            yield user


@pytest.mark.parametrize(("packet", "ctx"), WRONG)
def test_refused(dp: Datapath, packet: Any, ctx: Any) -> None:
    prog = dp.prog_load(program("r0 = 7\nexit"))
    with pytest.raises(InputError):
        prog.run(packet, ctx)
    assert prog.run(PACKET).verdict == 7


@pytest.mark.parametrize("repeat", [-1, 1 << 32, 1.5, "2", None])
def test_repeat(dp: Datapath, repeat: Any) -> None:
    prog = dp.prog_load(program("r0 = 7\nexit"))
    with pytest.raises(InputError):
        prog.run(PACKET, None, repeat)
    assert prog.run(PACKET, None, 0).verdict == 7


def test_bytes_of_any_kind(dp: Datapath) -> None:
    prog = dp.prog_load(program("r0 = *(u32 *)(r1 +0)\nexit"))
    assert [prog.run(kind(PACKET)).verdict for kind in (bytes, bytearray, memoryview)] == [len(PACKET)] * 3


@pytest.mark.parametrize("ctx", ["len=200000000", "len=70000", "len=2147483648", "mark=1.5", "mark=1:2", "wire_len=5"])
def test_command_line(ctx: str, tmp_path: Any) -> None:
    source = tmp_path / "p.s"
    source.write_text("r0 = 0\nexit\n")
    command = [sys.executable, "-m", "tcbpf", "prog-run", str(source), "--data-in", PACKET.hex(), "--ctx", ctx]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("tcbpf: ")


def readers() -> list[Field]:
    return [row for row in SKB if not row.pointer and "sched_cls" in row.read]


def note_all(rows: list[Field]) -> str:
    """Return a program that leaves the sum of all fields, each times a number of its own, in the mark."""
    code = ["r6 = 0"]
    for i, row in enumerate(rows):
        code += [f"r2 = *(u{8 * row.size} *)(r1 +{row.off})", f"r2 *= {2 * i + 3}", "r6 += r2"]
    return "\n".join([*code, "*(u32 *)(r1 +8) = r6", "r0 = 0", "exit"])


def test_a_run_starts_from_nothing(dp: Datapath) -> None:
    """Every field after a run that set all of them, and whose program changed what it could."""
    reader = dp.prog_load(program(note_all(readers())))
    change = "r6 = r1\nr2 = 0x81\nr3 = 5\ncall bpf_skb_vlan_push\nr1 = r6\nr2 = 1\ncall bpf_skb_change_type\nr0 = 0\nexit"
    changer = dp.prog_load(program(change))
    fresh = reader.run(PACKET).ctx["mark"]
    everything = EVERYTHING if isinstance(dp, User) else TEST_RUN
    assert reader.run(PACKET, everything).ctx["mark"] != fresh
    assert reader.run(PACKET).ctx["mark"] == fresh
    changer.run(PACKET, everything)
    assert reader.run(PACKET).ctx["mark"] == fresh


def test_nothing_of_a_packet_is_left() -> None:
    skb, fresh = Skb(), Skb()
    skb.load(PACKET, EVERYTHING)
    for name in "csum", "ip_summed", "csum_level", "encapsulation", "gso_type", "at_ingress", "ns", "cut", "l4_hash":
        setattr(skb.struct, name, 1)
    skb.struct.tunnel.family = 4
    skb.load(PACKET)
    fresh.load(PACKET)
    for pointers in skb.struct, fresh.struct:
        for name in "data", "data_end", "data_meta", "head", "end", "spare", "spare_end":
            setattr(pointers, name, 0)
    assert bytes(skb.struct) == bytes(fresh.struct)


@pytest.mark.kernel
@pytest.mark.parametrize("size", [1, 2])
def test_narrow_reads(size: int) -> None:
    """A part of every field, at each place, of the packet's own fields and of those that are given."""
    places = [(row, row.off + at) for row in readers() if row.narrow for at in range(0, row.size, size)]
    with Kernel() as kernel, User() as jit, User(options=Options(engine="interp")) as interp:
        for row, off in places:
            for cast in f"u{8 * size}", f"s{8 * size}":
                code = program(f"r0 = *({cast} *)(r1 +{off})\nexit")
                theirs, *ours = (dp.prog_load(code).run(PACKET, TEST_RUN).verdict for dp in (kernel, jit, interp))
                assert ours == [theirs] * 2, (row.name, off - row.off, cast)


@pytest.mark.kernel
@pytest.mark.parametrize(
    "text",
    [
        "r0 = *(u32 *)(r1 +0)\nexit",
        "r0 = *(u32 *)(r1 +16)\nexit",
        "r6 = r1\nr0 = *(u8 *)skb[0]\nexit",
        "r6 = r1\nr0 = *(u32 *)skb[12]\nexit",
        "r6 = r1\nr0 = *(u16 *)skb[-2097140]\nexit",  # SKF_LL_OFF + 12
        "r6 = r1\nr0 = *(u16 *)skb[-1048574]\nexit",  # SKF_NET_OFF + 2
        "r6 = r1\nr0 = *(u8 *)skb[60]\nexit",
        *(
            f"r2 = {off}\nr3 = r10\nr3 += -8\nr4 = 4\nr5 = {start}\ncall bpf_skb_load_bytes_relative\n"
            "r6 = r0\nr0 = *(u32 *)(r10 -8)\nr0 += r6\nexit"
            for off, start in ((0, 0), (12, 0), (60, 0), (0, 1), (46, 1), (47, 1))
        ),
        "r2 = 0\nr3 = r10\nr3 += -8\nr4 = 4\ncall bpf_skb_load_bytes\nr0 = *(u32 *)(r10 -8)\nexit",
    ],
)
def test_a_socket_filter_is_run_behind_the_link_header(text: str) -> None:
    code = program(text, "socket_filter")
    with Kernel() as kernel, User() as jit, User(options=Options(engine="interp")) as interp:
        theirs, *ours = (dp.prog_load(code).run(PACKET) for dp in (kernel, jit, interp))
    assert [(run.verdict, run.packet, run.ctx["wire_len"]) for run in ours] == [
        (theirs.verdict, theirs.packet, theirs.ctx["wire_len"])
    ] * 2

"""The classic machine and its debugger, on libpcap's filters and captures."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from tcbpf.cbpf import Classic, assemble, check, parse
from tcbpf.cbpf.dbg import Debugger
from tcbpf.cbpf.step import State, run, step
from tcbpf.errors import FilterError, InputError
from tcbpf.net.pcap import Packet

VECTORS = Path(__file__).parent.parent / "vectors"
APPLY = json.loads(gzip.decompress((VECTORS / "libpcap_apply.json.gz").read_bytes()))
PACKETS = [
    Packet(bytes.fromhex("ffffffffffff 020000000001 0806 0001"), wire_len=16),
    Packet(bytes.fromhex("ffffffffffff 020000000001 0800 4500"), wire_len=60),
]
ARP = "4,40 0 0 12,21 0 1 2054,6 0 0 4294967295,6 0 0 0,"


def test_results_are_what_libpcap_declares():
    refused = 0
    for case in APPLY["tests"]:
        program = tuple(Classic(*fields) for fields in case["insns"])
        if case["kernel"] != "accept":
            refused += 1
            with pytest.raises(FilterError):
                check(program)
            continue
        check(program)
        packets = APPLY["savefiles"][case["savefile"]]["packets"]
        assert [run(program, bytes.fromhex(data)) for data, _ in packets] == case["results"], case["label"]
    assert refused == 26  # the looping ones, which the kernel refuses too


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("ld [100] ret #1", 0),  # out of range
        ("ldx #0 ld #5 div x ret #1", 0),  # division by a zero X
        ("ldi 7 st M[3] ldx M[3] txa add x ret a", 14),
        ("ld #1 neg rsh #31 ret a", 1),
        ("ldh [0xfff00000] ret a", 0x0001),  # SKF_NET_OFF: behind the Ethernet header
        ("ldb [0xffe00006] ret a", 0x02),  # SKF_LL_OFF: the frame
        ("ldxb 4*([15]&0xf) txa ret a", 4),
        ("ld len ret a", 16),
        ("ld #2 ldx #3 ldb [x+3] ret a", 2),
        ("ja skip_ ret #1 skip_: ret #2", 2),
    ],
)
def test_semantics(text, result):
    assert run(assemble(text), PACKETS[0].data) == result


def test_a_step_says_what_it_read():
    assert step(assemble("ldh [12] ret a"), PACKETS[0].data, State()) == State(pc=1, a=0x0806, read=(12, 2))


def debugger():
    session = Debugger(parse, read_capture=lambda path: PACKETS)
    list(session.execute(f"load bpf {ARP}"))
    list(session.execute("load pcap any.pcap"))
    return session


def test_run_counts_and_starts_over():
    session = debugger()
    assert list(session.execute("run 1")) == ["bpf passes:1 fails:0"]
    for _ in "twice":
        assert list(session.execute("run")) == ["bpf passes:1 fails:1"]
    list(session.execute("select 2"))
    assert list(session.execute("run")) == ["bpf passes:0 fails:1"]


def test_breakpoint_stops_each_packet_and_run_goes_on():
    session = debugger()
    assert list(session.execute("breakpoint 1")) == ["breakpoint at: l1:\tjeq #0x806, l2, l3"]
    shown = list(session.execute("run"))
    assert shown[-1] == "(breakpoint)" and "A:        [0x000806][2054]" in shown
    assert any("[08 06]" in line for line in shown)  # the bytes that the load read
    assert "A:        [0x000800][2048]" in list(session.execute("run"))
    assert list(session.execute("run")) == ["bpf passes:1 fails:1"]
    assert list(session.execute("breakpoint")) == ["breakpoints: 1"]
    list(session.execute("breakpoint reset"))
    list(session.execute("breakpoint 0"))
    assert [list(session.execute("run"))[1] for _ in PACKETS] == ["pc:       [0]"] * 2
    assert list(session.execute("run")) == ["bpf passes:1 fails:1"]


def test_step_back_undoes():
    session = debugger()
    before = list(session.execute("step"))
    list(session.execute("step 2"))
    assert session.state.result == 0xFFFFFFFF
    assert list(session.execute("step -2")) == before == list(session.execute("step 0"))
    list(session.execute("step -9"))
    assert session.state == State()


def test_what_bpf_dbg_shows():
    """Recorded from tools/bpf/bpf_dbg of Linux 6.12: commands, and all that it printed."""
    recorded = json.loads(gzip.decompress((VECTORS / "bpf_asm.json.gz").read_bytes()))
    packets = [Packet(bytes.fromhex(packet), wire_len=len(packet) // 2) for packet in recorded["packets"]]
    for case in recorded["bpf_dbg"]:
        session = Debugger(parse, read_capture=lambda path: packets)
        shown = [line for command in case["commands"] for line in session.execute(command)]
        assert [plain(line) for line in shown] == case["shown"], case["commands"][0]
    assert len(recorded["bpf_dbg"]) == 40


def plain(line):
    """Return a line without what only ours marks: the bytes read, in a packet's dump."""
    return line.replace("[", " ").replace("]", " ").rstrip() if line[:4].strip().rstrip(":").isdigit() else line


def test_select_disassemble_dump_quit():
    session = debugger()
    list(session.execute("select 2"))
    list(session.execute("step 3"))
    assert session.state.result == 0
    shown = list(session.execute("disassemble"))
    assert shown == ["l0:\tldh [12]", "l1:\tjeq #0x806, l2, l3", "l2:\tret #0xffffffff", "l3:\tret #0"]
    assert list(session.execute("dis 2")) == shown[2:3]
    assert "{ 0x28,  0,  0, 0x0000000c }," in list(session.execute("dump"))
    list(session.execute("quit"))
    assert session.done


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("frob", "'frob' is no command"),
        ("s", "'s' is select and step"),
        ("load x", "load what"),
        ("load pcap", "load what"),
        ("select 3", "no packet 3"),
        ("breakpoint 9", "no instruction 9"),
        ("disassemble -1", "no instruction -1"),
        ("step x", "'x' is not a number"),
        ("load bpf 1,0 0 0 0,", "last instruction is not ret"),
        ("run 0", "0 packets"),
    ],
)
def test_bad_commands(command, words):
    with pytest.raises(InputError, match=words):
        list(debugger().execute(command))


def test_a_packet_that_was_cut_keeps_its_length():
    session = debugger()
    list(session.execute("load bpf 2,128 0 0 0,22 0 0 0,"))
    list(session.execute("select 2"))
    shown = list(session.execute("step 2"))
    assert session.state.result == 60 and "cap: 16, len: 60" in shown


def test_breakpoints_have_an_end():
    session = Debugger(parse, read_capture=lambda path: PACKETS)
    list(session.execute("load bpf 70," + "0 0 0 0," * 69 + "6 0 0 0,"))
    for pc in range(64):
        list(session.execute(f"breakpoint {pc}"))
    with pytest.raises(InputError, match="breakpoint 3 is set already"):
        list(session.execute("breakpoint 3"))
    with pytest.raises(InputError, match="64 breakpoints are set"):
        list(session.execute("breakpoint 64"))

"""`tcbpf cbpf`, by its output."""

from __future__ import annotations

import html
import io
import json
import re
from pathlib import Path

import pytest

from tcbpf import cbpf
from tcbpf.cli import main
from tcbpf.net.pcap import read

CAPTURES = Path(__file__).parents[2] / "examples" / "captures"
ARP = "ldh [12]\njne #0x806, drop\nret #-1\ndrop: ret #0\n"


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main(["cbpf", *words])
    return status, *capsys.readouterr()


def test_the_page_shows_every_stage_and_needs_no_network(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page = tmp_path / "arp.html"
    bytecode = cbpf.to_decimal(cbpf.assemble(ARP))
    assert run(capsys, "convert", bytecode, "--html", str(page)) == (0, "", "")
    text = page.read_text()
    shown = html.unescape(re.sub(r"<[^>]*>", "", text))
    assert bytecode in shown
    for stage in ("(001) jeq      #0x806", "3: r0 = *(u16 *)skb[12]", "call i64 @tcbpf_ld_abs(", "llvm.module.flags", "retq"):
        assert stage in shown, stage
    assert "http" not in text and "src=" not in text


@pytest.fixture
def arp(tmp_path: Path) -> str:
    (tmp_path / "arp.bpf").write_text(ARP)
    return str(tmp_path / "arp.bpf")


DECIMAL = "4,40 0 0 12,21 0 1 2054,6 0 0 4294967295,6 0 0 0,"


def test_asm_and_disasm(capsys: pytest.CaptureFixture[str], arp: str, tmp_path: Path) -> None:
    assert run(capsys, "asm", arp) == (0, DECIMAL + "\n", "")
    c = run(capsys, "asm", "-c", arp)[1]
    assert c.splitlines()[3] == "{ 0x06,  0,  0, 0000000000 },"
    (tmp_path / "arp.c").write_text(c)
    back = run(capsys, "disasm", str(tmp_path / "arp.c"))[1]
    assert cbpf.assemble(back) == cbpf.assemble(ARP) and run(capsys, "disasm", DECIMAL)[1] == back
    assert run(capsys, "disasm", "-d", DECIMAL)[1].splitlines()[1] == "(001) jeq      #0x806           jt 2\tjf 3"


def test_asm_reads_standard_input(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(ARP))
    assert run(capsys, "asm")[1] == DECIMAL + "\n"


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["asm", "/nonexistent"], 2, "/nonexistent: No such file or directory"),
        (["disasm", "2,6 0 0 0,"], 2, "Parsed program length is less than encoded length parameter!"),
        (["check", "2,96 0 0 1,6 0 0 0,"], 1, r"instruction 0: M\[1\] is loaded before every path has stored it"),
        (["check", "1,5 0 0 3,"], 1, "instruction 0: ja goes out of the program"),
        (["convert", "1,5 0 0 3,"], 2, "instruction 0: ja goes out of the program"),
        (["run", DECIMAL, "/nonexistent"], 2, "/nonexistent: No such file or directory"),
        (["run", DECIMAL, __file__], 2, "is not a capture"),
    ],
)
def test_errors_are_one_line(capsys: pytest.CaptureFixture[str], words: list[str], status: int, said: str) -> None:
    got, out, err = run(capsys, *words)
    assert (got, out) == (status, "") and re.fullmatch(f"tcbpf: .*{said}.*\n", err), err


def test_check_and_convert(capsys: pytest.CaptureFixture[str], arp: str) -> None:
    assert run(capsys, "check", arp) == (0, "4 instructions: the kernel would load it\n", "")
    lines = run(capsys, "convert", arp)[1].splitlines()
    assert lines[0].split() == ["0:", "w0", "=", "0"]
    assert lines[3] == f"{'(000) ldh      [12]':<52}   3: r0 = *(u16 *)skb[12]"
    assert "call bpf_classic_pay_offset#" in run(capsys, "convert", "2,32 0 0 4294963252,22 0 0 0")[1]


@pytest.mark.usefixtures("libpcap")
def test_compile(capsys: pytest.CaptureFixture[str]) -> None:
    optimized = run(capsys, "compile", "ip and tcp port 80")[1]
    assert run(capsys, "compile", "ip", "and", "tcp", "port", "80", "-ddd")[1] == optimized
    unoptimized = run(capsys, "compile", "-O0", "ip and tcp port 80")[1]
    assert len(unoptimized.splitlines()) > len(optimized.splitlines()) == int(optimized.splitlines()[0]) + 1
    assert run(capsys, "compile", "--link-type", "RAW", "ip")[1] != run(capsys, "compile", "--link-type", "ETHERNET", "ip")[1]
    assert run(capsys, "compile", "-dd", "ip")[1].startswith("{ 0x28, 0, 0, 0x0000000c },\n")
    assert run(capsys, "compile", "ip", "--link-type", "FOO")[0] == 2


def test_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    capture, out = str(CAPTURES / "dns.pcapng"), tmp_path / "arps.pcapng"
    status, said, _ = run(capsys, "run", DECIMAL, capture, "--out", str(out))
    kept = list(read(out))
    assert status == 0 and said.startswith(f"{len(kept)} of 71 packets match, ")
    assert kept and all(packet.data[12:14] == b"\x08\x06" for packet in kept)
    report = json.loads(run(capsys, "run", DECIMAL, capture, "--json")[1])
    assert (report["packets"], report["matches"]) == (71, len(kept))


def test_a_debugging_session(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    commands = [
        f"load bpf {DECIMAL}",
        "breakpoint 2",
        "run",
        "step -1",
        "frob",
        "load bpf 2,32 0 0 4294963252,22 0 0 0",
        "step 2",
        "quit",
        "run",
    ]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(commands)))
    status, out, err = run(capsys, "dbg", DECIMAL, str(CAPTURES / "dns.pcapng"))
    assert status == 2 and "'frob' is no command" in err
    shown = re.findall(r"^pc: +\[(\d+)\]", out, re.MULTILINE)
    assert shown == ["2", "1", "1"] and "A:        [0x000806][2054]" in out
    assert re.findall(r"^ret: .*", out, re.MULTILINE) == ["ret:      [0x00000e][14]!"]  # ld #poff of an ARP packet
    assert "passes" not in out  # nothing after quit

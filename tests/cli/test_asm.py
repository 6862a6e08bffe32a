"""`tcbpf asm` and `tcbpf disasm`, by their output."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from tcbpf.cli import main
from tcbpf.isa import assemble, encode

TEXT = "r0 = 2\nr1 = 0x500000001 ll\nif r0 != r1 goto pc+1\nr0 = 0\nexit\n"
SOURCE = """
#include <linux/bpf.h>
static void *(*lookup)(void *map, const void *key) = (void *)1;
struct { int (*type)[2]; unsigned *key; unsigned long long *value; int (*max_entries)[4]; }
    counts __attribute__((section(".maps"), used));
int limit = 1500;
static __attribute__((noinline)) int third(int a) { volatile int x = a; return x * 3; }
__attribute__((section("tc"), used)) int cls(struct __sk_buff *skb)
{
    unsigned key = skb->protocol & 3;
    unsigned long long *count = lookup(&counts, &key);
    if (count)
        __sync_fetch_and_add(count, 1);
    return skb->len > limit ? 2 : third(skb->mark);
}
char _license[] __attribute__((section("license"), used)) = "GPL";
"""


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main(list(words))
    out, err = capsys.readouterr()
    return status, out, err


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "prog.s"
    path.write_text(TEXT)
    return path


def test_hex_is_read_back(capsys: pytest.CaptureFixture[str], text: Path) -> None:
    status, out, _ = run(capsys, "asm", str(text))
    assert status == 0 and out.splitlines()[0] == "b7 00 00 00 02 00 00 00"
    assert run(capsys, "disasm", out)[1].splitlines() == [
        "    0:  r0 = 2",
        "    1:  r1 = 0x500000001 ll",
        "    3:  if r0 != r1 goto pc+1  ; to 5",
        "    4:  r0 = 0",
        "    5:  exit",
    ]


def test_disasm_is_assembled_back(capsys: pytest.CaptureFixture[str], text: Path) -> None:
    out = run(capsys, "disasm", encode(assemble(TEXT)).hex())[1]
    assert assemble(out) == assemble(TEXT)


@pytest.mark.parametrize("form", [[], ["--hex"], ["--c"]])
def test_every_form_of_file_is_read_back(
    capsys: pytest.CaptureFixture[str], text: Path, tmp_path: Path, form: list[str]
) -> None:
    out = tmp_path / "out"
    assert run(capsys, "asm", str(text), "-o", str(out), *form)[0] == 0
    assert form or out.read_bytes() == encode(assemble(TEXT))
    assert assemble(run(capsys, "disasm", str(out))[1]) == assemble(TEXT)


def test_standard_input(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("exit\n"))
    assert run(capsys, "asm")[1] == "95 00 00 00 00 00 00 00\n"


def test_an_object_shows_source_and_symbols(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    source = tmp_path / "cls.c"
    source.write_text(SOURCE)
    status, out, err = run(capsys, "disasm", str(source))
    assert status == 0, err
    lines = [line.strip() for line in out.splitlines()]
    assert "cls:  ; section tc, sched_cls" in out and "\nthird:" in out
    for words in ("r1 = map[counts]", "call bpf_map_lookup_elem#1", "call third", "map[.data]+0"):
        assert any(words in line for line in lines), words
    assert "; cls.c:11  unsigned long long *count = lookup(&counts, &key);" in lines

    functions = json.loads(run(capsys, "disasm", str(source), "--json", "--section", "tc")[1])
    assert [(f["function"], f["type"]) for f in functions] == [("cls", "sched_cls")]
    assert functions[0]["insns"][0]["pc"] == 0 and len(functions[0]["insns"][0]["bytes"]) == 16

    status, _, err = run(capsys, "disasm", str(source), "--section", "xdp")
    assert status == 2 and "no function in section 'xdp' (there is " in err


def test_text_with_directives_is_linked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    source = tmp_path / "two.s"
    source.write_text(
        ".map m array 4 8 1\n.section tc\na: r1 = map[m]\ncall b\nexit\n.section .text\nb: r0 = 0\nexit\n"
        ".section xdp\nc: r0 = 2\nexit\n"
    )
    out = run(capsys, "asm", str(source), "--section", "tc")[1]
    assert assemble(run(capsys, "disasm", out)[1]) == assemble("r1 = map[idx:0]\ncall pc+1\nexit\nr0 = 0\nexit")
    assert run(capsys, "asm", str(source), "--section", "xdp")[1] == "b7 00 00 00 02 00 00 00\n95 00 00 00 00 00 00 00\n"
    status, _, err = run(capsys, "asm", str(source))
    assert status == 2 and err.count("\n") == 1, err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["disasm", "nofile"], "nofile: no such file"),
        (["disasm", "b700"], "2 bytes are not whole instructions"),
        (["disasm", "b7", "--section", "tc"], "bare bytecode has no sections"),
        (["asm", "/nonexistent.s"], "/nonexistent.s: No such file or directory"),
    ],
)
def test_errors_are_one_line(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    status, out, err = run(capsys, *words)
    assert status == 2 and not out and err.startswith("tcbpf: ") and message in err and err.count("\n") == 1


def test_a_wrong_line_is_named_and_nothing_is_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    source, out = tmp_path / "bad.s", tmp_path / "out"
    out.write_text("before")
    source.write_text("r0 = 2\nr0 += \n")
    status, _, err = run(capsys, "asm", str(source), "-o", str(out))
    assert status == 2 and err == f"tcbpf: {source}:2:6: expected a register or a number, found the end of the line\n"
    assert out.read_text() == "before" and sorted(p.name for p in tmp_path.iterdir()) == ["bad.s", "out"]

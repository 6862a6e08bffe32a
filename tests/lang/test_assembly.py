"""Assembly text as a source: its Object, its messages, and that it runs."""

from __future__ import annotations

from pathlib import Path

import pytest

import tcbpf
from tcbpf.errors import AsmError, InputError
from tcbpf.isa import assemble
from tcbpf.lang import compile
from tcbpf.lang.assembly import read_text
from tcbpf.obj import Reloc, link

SOURCE = """
        .license GPL
        .map    counts array 4 8 256      ; by the low byte of the protocol
        .section tc
count:  r6 = r1
        r1 = *(u32 *)(r6 +16)
        r1 &= 255
        *(u32 *)(r10 -4) = r1
        r2 = r10
        r2 += -4
        r1 = map[counts]
        call bpf_map_lookup_elem
        if r0 == 0 goto out
        r1 = 1
        lock *(u64 *)(r0 +0) += r1
out:    r1 = *(u32 *)(r6 +0)
        call longer
        exit
        .section .text
longer: r0 = 0
        if r1 <= 100 goto done
        r0 = 2
done:   exit
"""


def test_the_object_that_text_says() -> None:
    obj = read_text(SOURCE, path="count.s")
    assert obj.entries == ("count",) and set(obj.functions) == {"count", "longer"} and obj.license == "GPL"
    counts = obj.maps["counts"]
    assert (counts.type, counts.key_size, counts.value_size, counts.max_entries) == ("array", 4, 8, 256)
    count = obj.functions["count"]
    assert count.relocs == (Reloc(6, "map", "counts"), Reloc(13, "call", "longer"))
    assert [(line.pc, line.line) for line in count.lines[:2]] == [(0, 5), (1, 6)]
    assert count.lines[0].text == "count:  r6 = r1" and 7 not in {line.pc for line in count.lines}


def test_linking_puts_the_functions_together() -> None:
    program = link(read_text(SOURCE), program="count")
    assert program.type == "sched_cls" and len(program.insns) == 19
    assert program.insns[13] == assemble("call pc+1")[0] and program.insns[6].src == 5


def test_it_verifies_and_runs(tmp_path: Path) -> None:
    path = tmp_path / "count.s"
    path.write_text(SOURCE)
    with tcbpf.User(home=tmp_path / "home") as dp:
        prog = dp.load(compile(path))
        assert [prog.run(bytes(size)).verdict for size in (60, 100, 101)] == [0, 0, 2]


def test_text_without_directives_is_one_program() -> None:
    obj = read_text("r0 = 2\nexit\n")
    assert obj.entries == ("prog",) and obj.functions["prog"].section == "tc"
    assert obj.functions["prog"].insns == assemble("r0 = 2\nexit")


def test_the_verifier_quotes_the_text() -> None:
    obj = read_text("f: r1 = *(u32 *)(r1 +0)\n   r0 = *(u8 *)(r1 +0)\n   exit\n", path="f.s")
    with pytest.raises(tcbpf.VerifierError) as caught:
        tcbpf.verify(link(obj))
    assert caught.value.source == "f.s:2: r0 = *(u8 *)(r1 +0)"


@pytest.mark.parametrize(
    ("text", "where", "words"),
    [
        (".map m array 4 8\nexit", "1:1", ".map NAME TYPE"),
        (".map m arry 4 8 1\nexit", "1:8", "no map type arry"),
        (".map m array 4 x 1\nexit", "1:16", "x is not a number"),
        (".map m array 4 8 1\n.map m hash 4 8 1\nexit", "2:6", "already defined"),
        (".sektion tc\nexit", "1:1", "no directive .sektion"),
        ("r1 = map[m]\nexit", "1:10", "no map `m`"),
        (".map flows array 4 8 1\nr1 = map[flow]\nexit", "2:10", "did you mean `flows`"),
        ("exit\n.section tc\nexit", "1:1", "before the first .section"),
        (".section tc\n.section xdp\nexit", "1:1", "section tc is empty"),
        (".section tc\na: goto b\n.section xdp\nb: exit", "2:1", "outside the function"),
        (".section tc\nr1 = map[idx:3]\nexit", "2:1", "no map 3"),
        (".section tc\na: exot", "2:4", "did you mean `exit`"),
    ],
)
def test_errors_say_where(text: str, where: str, words: str) -> None:
    with pytest.raises(AsmError) as caught:
        read_text(text, path="x.s")
    assert str(caught.value).startswith(f"x.s:{where}: ") and words in str(caught.value), str(caught.value)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(InputError, match="No such file"):
        compile("/nonexistent.s")

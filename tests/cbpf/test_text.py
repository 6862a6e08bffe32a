"""The assembler, the disassembler and the text forms, on libpcap's own table and on bpf_asm's grammar."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from tcbpf import cbpf
from tcbpf.cbpf import Classic
from tcbpf.errors import AsmError, InputError
from tcbpf.tables.cbpf import CLASSIC, EXTENSIONS, MNEMONICS

VECTORS = Path(__file__).parent.parent / "vectors"
ACCEPT = json.loads(gzip.decompress((VECTORS / "libpcap_accept.json.gz").read_bytes()))
BPF_ASM = json.loads(gzip.decompress((VECTORS / "bpf_asm.json.gz").read_bytes()))

OTHER_BYTE_ORDER = {f"accept_ip_broadcast_{bits}_{how}_0" for bits in (24, 30) for how in ("opt", "unopt")}
"""Cases whose bytecode holds a netmask in one byte order and whose listing in the other: they contradict themselves."""


def program(case):
    return tuple(Classic(*fields) for fields in case["insns"])


def test_assembles_what_bpf_asm_does():
    """Recorded from tools/bpf/bpf_asm of Linux 6.12: both output forms, and what it refuses."""
    for source, decimal, c in BPF_ASM["bpf_asm"]:
        assert (cbpf.to_decimal(cbpf.assemble(source)) + "\n", cbpf.to_c(cbpf.assemble(source))) == (decimal, c), source
    for source in BPF_ASM["bpf_asm_refuses"]:
        with pytest.raises(AsmError):
            cbpf.assemble(source)
    assert len(BPF_ASM["bpf_asm"]) == 100 and len(BPF_ASM["bpf_asm_refuses"]) == 60


def test_counts_of_the_paper():
    assert len(MNEMONICS) == 33
    assert len(EXTENSIONS) + 1 == 16  # and `len`


def test_listing_is_what_tcpdump_prints():
    for case in ACCEPT:
        if case["label"] not in OTHER_BYTE_ORDER:
            lines = [line.rstrip() for line in cbpf.listing(program(case)).splitlines()]
            assert lines == case["text"].splitlines(), case["label"]


def test_disassembly_assembles_back():
    for case in ACCEPT:
        assert cbpf.assemble(cbpf.disassemble(program(case))) == program(case), case["label"]


@pytest.mark.parametrize("form", [cbpf.to_decimal, cbpf.to_lines, cbpf.to_c, cbpf.to_dd])
def test_every_form_reads_back(form):
    for case in ACCEPT[::7]:
        assert cbpf.parse(form(program(case))) == program(case)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\n\n" + text.replace("\n", "\n\n"),
        lambda text: "/* a\n filter */" + text.replace("\n", " // read on\n"),
        lambda text: "# a filter\n" + text.replace("\n", " #\n"),
        lambda text: text.strip(),
    ],
    ids=["crlf", "blank lines", "C comments", "# comments", "no newline"],
)
@pytest.mark.parametrize("form", [cbpf.to_decimal, cbpf.to_lines, cbpf.to_c, cbpf.to_dd])
def test_files_are_read_however_they_are_laid_out(form, change):
    arp = cbpf.assemble("ldh [12] jne #0x806, drop ret #-1 drop: ret #0")
    assert cbpf.parse(change(form(arp) + "\n")) == arp


def test_c_arrays():
    arp = cbpf.assemble("ldh [12] jne #0x806, drop ret #-1 drop: ret #0")
    assert cbpf.parse("struct sock_filter arp[] = {\n" + cbpf.to_c(arp) + "};\n") == arp
    assert (
        cbpf.parse("""
        static const struct sock_filter arp[] = {
            BPF_STMT(BPF_LD | BPF_H | BPF_ABS, ETH_HLEN - 2),
            BPF_JUMP(BPF_JMP + BPF_JEQ + BPF_K, ETH_P_ARP, 0, 1),   /* or (drop) */
            BPF_STMT((BPF_RET | BPF_K), (u_int)-1),
            { 0x06u, 0, 00, 0UL },
        };""")
        == arp
    )
    assert cbpf.parse("BPF_STMT(BPF_LD+BPF_W+BPF_ABS, SKF_AD_OFF + SKF_AD_MARK), BPF_STMT(BPF_RET, 017)") == (
        *cbpf.assemble("ld mark"),
        Classic(6, 0, 0, 15),
    )


def test_forms_character_for_character():
    arp = cbpf.assemble("ldh [12] jne #0x806, drop ret #-1 drop: ret #0")
    assert cbpf.to_decimal(arp) == "4,40 0 0 12,21 0 1 2054,6 0 0 4294967295,6 0 0 0,"
    assert cbpf.to_c(arp).splitlines()[:2] == ["{ 0x28,  0,  0, 0x0000000c },", "{ 0x15,  0,  1, 0x00000806 },"]
    assert cbpf.to_dd(arp).splitlines()[0] == "{ 0x28, 0, 0, 0x0000000c },"
    assert cbpf.to_lines(arp).splitlines()[:2] == ["4", "40 0 0 12"]


@pytest.mark.parametrize("row", [row for row in CLASSIC if row.mode.value], ids=lambda row: f"{row.name} {row.mode.value}")
def test_every_row_assembles(row):
    operand = {"L": "end_", "#k": "#7", "[k]": "[7]", "[x+k]": "[x + 7]", "M[k]": "M[7]"}.get(row.mode.value, row.mode.value)
    text = f"{row.name} {operand.replace('[k]', '[7]')}{', end_' if row.branch else ''}\nend_: ret a"
    first, last = cbpf.assemble(text)
    assert first.code == row.code and last.code == 0x16


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("LDH [0x10]", (0x28, 0, 0, 16)),
        ("ld [010]", (0x20, 0, 0, 8)),
        ("ldi 0b101", (0x00, 0, 0, 5)),
        ("ldxi #3", (0x01, 0, 0, 3)),
        ("ldx 4*([14]&0xf)", (0xB1, 0, 0, 14)),
        ("ld #len", (0x80, 0, 0, 0)),
        ("ldx len", (0x81, 0, 0, 0)),
        ("ldb [%x + 3]", (0x50, 0, 0, 3)),
        ("ldb [x + -3]", (0x50, 0, 0, 0xFFFFFFFD)),
        ("ldb [x - 3]", (0x50, 0, 0, 0xFFFFFFFD)),
        ("ldb\r\n[x+3]\r\n", (0x50, 0, 0, 3)),
        ("ld vlan_pr", (0x20, 0, 0, 0xFFFFF030)),
        ("ldh #poff", (0x28, 0, 0, 0xFFFFF034)),
        ("/* a */ ret %a ; tail", (0x16, 0, 0, 0)),
        ("# a line\nret #-2", (0x06, 0, 0, 0xFFFFFFFE)),
    ],
)
def test_grammar(text, expected):
    assert cbpf.assemble(text) == (Classic(*expected),)


@pytest.mark.parametrize(
    ("opposite", "straight"),
    [
        ("jneq #1, over", "jeq #1, next, over"),
        ("jlt x, over", "jge x, next, over"),
        ("jle #1, over", "jgt #1, next, over"),
    ],
)
def test_opposite_conditions(opposite, straight):
    rest = "\nnext: ret #1\nover: ret #0"
    assert cbpf.assemble(opposite + rest) == cbpf.assemble(straight + rest)


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("ret #0\n  frob x", 2, 3, "expected an instruction, found 'frob'"),
        ("ld [4", 1, 6, "expected ']', found the end of the text"),
        ("jeq #1, nowhere", 1, 1, "no label 'nowhere'"),
        ("ldi [4]", 1, 1, "ldi takes no [k]"),
        ("st #4", 1, 1, "st takes no #k"),
        ("ldx 4*([0]&7)", 1, 5, "only 4*([k]&0xf) exists"),
        ("ld #0x100000000", 1, 5, "does not fit in 32 bits"),
        ("aa: ret #0 aa: ret #1", 1, 12, "defined twice"),
        ("aa: ret #0 jeq #1, aa", 1, 12, "lies behind"),
        ("ret #0 @", 1, 8, "unknown character '@'"),
        ("", 1, 1, "no instruction"),
    ],
)
def test_errors_say_where(text, line, column, words):
    with pytest.raises(AsmError) as caught:
        cbpf.assemble(text)
    assert (caught.value.line, caught.value.column) == (line, column)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2,6 0 0 0,", "Parsed program length is less than encoded length parameter!"),
        ("1,6 0 0 0,6 0 0 0,", "Real program length exceeds encoded length parameter!"),
        ("1,6 0 0,", "Error at instruction 0!"),
        ("1,6 0 256 0,", "Error at instruction 0!"),
        ("{ }", "Error at instruction 0!"),
        ("{ 0x28, 0, 0 }, { 6, 0, 0, 1 }", "Error at instruction 0!"),
        ("{ 6, 0, 0, 1 }, { 6, 0, 0, FOO }", "Error at instruction 1!.*'FOO' is neither"),
        ("{ 6, 0, 0, 1 2 }", "no sum of numbers"),
        ("{ 6, 0, 0, 0x1ffffffff }", "k has 32"),
        ("BPF_STMT(BPF_RET)", "Error at instruction 0!"),
        ("{", "no { code, jt, jf, k }"),
        ("", "no count"),
    ],
)
def test_bytecode_errors(text, words):
    with pytest.raises(InputError, match=words):
        cbpf.parse(text)

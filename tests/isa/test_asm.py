"""Text to instructions and back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isa.strategies import INSN, PROGRAM, SLOT
from tcbpf.errors import AsmError, InputError
from tcbpf.isa import assemble, decode, disassemble, encode, kernel_text
from tcbpf.isa.insn import Insn
from tcbpf.tables.insns import op_of


@given(PROGRAM)
def test_assemble_undoes_disassemble(program: tuple[Insn, ...]) -> None:
    text = disassemble(program)
    assert ".slot" not in text
    assert assemble(text) == program


@given(st.lists(SLOT, max_size=8).map(tuple))
@settings(max_examples=500)
def test_nothing_is_lost_of_any_slots(program: tuple[Insn, ...]) -> None:
    assert assemble(disassemble(program)) == program


@given(INSN)
def test_a_log_line_assembles_to_what_it_shows(program: tuple[Insn, ...]) -> None:
    """The kernel's words with their opcode are enough, save for what pseudo source registers and kfuncs stand for."""
    first = program[0]
    if (first.code == 0x18 and first.src) or (first.code == 0x85 and first.src == 2):
        return
    assert assemble(f"7: {kernel_text(program, 0)}          ; R1=ctx() R10=fp0") == program


@given(st.lists(SLOT, max_size=8).map(tuple))
def test_decode_undoes_encode(program: tuple[Insn, ...]) -> None:
    assert decode(encode(program)) == program


def test_decode_refuses_part_of_a_slot() -> None:
    with pytest.raises(InputError, match="9 bytes"):
        decode(bytes(9))


def test_every_opcode_that_exists_has_a_form() -> None:
    """No opcode that op_of knows is printed as a bare slot."""
    for code in range(256):
        for src, off, imm in ((0, 0, 0), (0, 0, 16), (1, 0, 0)):
            op = op_of(code, src, off, imm)
            if op is not None and code != 0x18:
                used = Insn(code, 0, src if code & 8 or code == 0x85 else 0, 0, imm)
                assert kernel_text([used], 0).startswith(f"({code:02x}) ")


def one(text: str) -> Insn:
    (insn,) = assemble(text)
    return insn


@pytest.mark.parametrize(
    ("text", "insn"),
    [
        ("r0 = 2", Insn(0xB7, 0, imm=2)),
        ("w1 += w2", Insn(0x0C, 1, 2)),
        ("w1 = 0xffffffff", Insn(0xB4, 1, imm=-1)),
        ("r1 s/= r2", Insn(0x3F, 1, 2, 1)),
        ("r1 = (s8)r2", Insn(0xBF, 1, 2, 8)),
        ("r1 = -r1", Insn(0x87, 1)),
        ("r1 = -5", Insn(0xB7, 1, imm=-5)),
        ("r0 = bswap16 r0", Insn(0xD7, 0, imm=16)),
        ("r1 = *(u32 *)(r6 +4)", Insn(0x61, 1, 6, 4)),
        ("r1 = *(u32*)( r6 )", Insn(0x61, 1, 6)),
        ("w1 = *(u8 *)(r6 + 0x10)", Insn(0x71, 1, 6, 16)),
        ("r1 = *(s16 *)(r6 -2)", Insn(0x89, 1, 6, -2)),
        ("*(u64 *)(r10 -8) = r1", Insn(0x7B, 10, 1, -8)),
        ("*(u32 *)(r10 -8) = 0xffffffff", Insn(0x62, 10, 0, -8, -1)),
        ("if r1 s> 5 goto pc+3", Insn(0x65, 1, 0, 3, 5)),
        ("if w1 & 0xf goto -1", Insn(0x46, 1, 0, -1, 15)),
        ("lock *(u64 *)(r1 +0) += r2", Insn(0xDB, 1, 2)),
        ("r2 = atomic64_fetch_add((u64 *)(r1 +0), r2)", Insn(0xDB, 1, 2, 0, 1)),
        ("r0 = atomic_cmpxchg((u32 *)(r1 +0), r0, r2)", Insn(0xC3, 1, 2, 0, 0xF1)),
        ("call bpf_map_lookup_elem#1", Insn(0x85, imm=1)),
        ("call map_lookup_elem", Insn(0x85, imm=1)),
        ("call 1", Insn(0x85, imm=1)),
        ("call pc+3", Insn(0x85, 0, 1, 0, 3)),
        ("gotol pc-70000", Insn(0x06, imm=-70000)),
        ("may_goto pc+2", Insn(0xE5, off=2)),
        ("r0 = *(u8 *)skb[r7 + 3]", Insn(0x50, 0, 7, 0, 3)),
        ("12: (95) exit", Insn(0x95)),
    ],
)
def test_words(text: str, insn: Insn) -> None:
    assert one(text) == insn


def test_sixty_four_bits_take_two_slots() -> None:
    assert assemble("r1 = 0x1122334455667788 ll") == (Insn(0x18, 1, imm=0x55667788), Insn(0, imm=0x11223344))
    assert assemble("r1 = -1 ll") == (Insn(0x18, 1, imm=-1), Insn(0, imm=-1))
    assert assemble("r1 = map[idx:2]+8") == (Insn(0x18, 1, 6, imm=2), Insn(0, imm=8))


def test_labels_count_slots() -> None:
    program = assemble("""
        start:  r1 = 7 ll               # two slots
                if r1 == 0 goto out
                call helper             ; a subprogram
                goto start
        out:    exit
        helper: r0 = 0
                exit
    """)
    assert [insn.off for insn in program if insn.code in (0x15, 0x05)] == [2, -5]
    assert program[3] == Insn(0x85, 0, 1, 0, 2)


def test_comments() -> None:
    assert assemble("# all of it\n\n r0 = 1 // one\nexit;two\nexit # three") == (Insn(0xB7, imm=1), Insn(0x95), Insn(0x95))


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("r0 = 2\n  exot", 2, 3, "did you mean `exit`"),
        ("r11 = 1", 1, 1, "registers are r0 to r10"),
        ("r1 = 0x123456789", 1, 6, "ll"),
        ("r1 = *(u32 *)(r2 +4", 1, 20, "expected `)`"),
        ("r1 = *(u24 *)(r2 +4)", 1, 8, "expected one of u8"),
        ("if r1 > w2 goto pc+1", 1, 9, "64-bit register"),
        ("if r1 >> 2 goto pc+1", 1, 8, "expected a register or a number"),
        ("goto nowhere", 1, 6, "no label `nowhere`"),
        ("a: exit\na: exit", 2, 1, "already defined"),
        ("call get_prandom", 1, 6, "did you mean `bpf_get_prandom_u32`"),
        ("call bpf_redirect#1", 1, 6, "helper 1 is bpf_map_lookup_elem"),
        ("call foo#9", 1, 6, "helper 9 is bpf_skb_store_bytes"),
        ("r1 = be16 r2", 1, 11, "in place"),
        ("r2 = atomic64_fetch_add((u64 *)(r1 +0), r3)", 1, 41, "returns its value in r3"),
        ("r2 = atomic64_xchg((u32 *)(r1 +0), r2)", 1, 20, "works on u64"),
        ("lock *(u8 *)(r1 +0) += r2", 1, 7, "u32 or u64"),
        ("(b7) r1 += 3", 1, 6, "opcode 07, not b7"),
        ("r1 = 5 6", 1, 8, "the end of the line"),
        ("w1 = (s32)w2", 1, 7, "s8, s16"),
        ("r1 ? 5", 1, 4, "no meaning"),
        ("*(u32 *)(r1 +40000) = 0", 1, 13, "16 bits"),
        ("w0 = *(u64 *)(r1 +0)", 1, 7, "64-bit register"),
        ("r1 = map[", 1, 10, "expected `fd` or `idx`, found the end of the line"),
        ("r1 = btf[", 1, 10, "expected `id`, found the end of the line"),
        ("r1 = subprog[", 1, 14, "or a label, found the end of the line"),
        ("call", 1, 5, "or a label, found the end of the line"),
    ],
)
def test_errors_say_where_and_what(text: str, line: int, column: int, words: str) -> None:
    with pytest.raises(AsmError) as caught:
        assemble(text, path="x.s")
    assert (caught.value.line, caught.value.column) == (line, column), str(caught.value)
    assert words in str(caught.value) and str(caught.value).startswith(f"x.s:{line}:{column}: ")


WORDS = (
    "r1",
    "w2",
    "=",
    "map",
    "btf",
    "subprog",
    "[",
    "]",
    "fd",
    ":",
    "7",
    "-",
    "if",
    "goto",
    "pc",
    "+",
    "call",
    "lock",
    "*",
    "(",
    "u32",
)


@given(
    st.text(alphabet="rw01 9=+-*/%&|^<>s()[]u32x64:#;,.@goticalexmp!\n", max_size=40)
    | st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join)
)
def test_any_text_assembles_or_says_where(text: str) -> None:
    try:
        assemble(text)
    except AsmError as error:
        assert error.line >= 1 and error.column >= 1

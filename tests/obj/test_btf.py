"""BTF: every kind, sizes and names, and what is put right for the kernel."""

from __future__ import annotations

import struct

import pytest

from tcbpf.errors import ObjectError
from tcbpf.lang import compile_c
from tcbpf.obj import load
from tcbpf.obj.btf import GLOBAL, MAGIC, STATIC, Btf, Kind
from tcbpf.obj.btf_index import KernelBtf
from tcbpf.obj.btf_parse import parse

SOURCE = """
#include <bpf_helpers.h>
typedef const volatile unsigned short word;
enum small { A = 1, B = -2 };
enum big { HUGE_ = 0x123456789abcdefULL };
struct later;
struct node {
	struct node *next; word words[3][4]; __u32 a:3, b:5; union { int i; float f; };
	struct later *l; __u64 (*fn)(int, char);
};
struct node node SEC(".data"); enum small small SEC(".data"); enum big big SEC(".data"); int last SEC(".data") = 3;
__hidden __noinline int hidden(int x) { return x * node.a; }
__noinline int open(int x) { return x + last; }
SEC("tc") int prog(struct __sk_buff *skb) { return hidden(skb->len) + open(1) + small + big; }
"""


@pytest.fixture(scope="module")
def btf() -> Btf:
    found = load(compile_c(SOURCE)).btf
    assert found is not None
    return found


def test_sizes_and_names(btf):
    node = btf.find("node", Kind.STRUCT)
    assert node is not None and btf.sizeof(node.id) == node.size == 56
    types = {m.name: m.type for m in node.members}
    assert (btf.name(types["next"]), btf.name(types["words"])) == ("struct node *", "word[3][4]")
    assert btf.sizeof(types["words"]) == 24 and btf.sizeof(types["fn"]) == 8
    assert btf.resolve(btf.find("word").id).name == "unsigned short"
    assert [(m.bits, m.offset) for m in node.members if m.name in ("a", "b")] == [(3, 256), (5, 259)]


def test_enumerations_of_both_widths(btf):
    values = {m.name: m.value & 0xFFFFFFFF for m in btf.find("small", Kind.ENUM).members}  # clang 14 knows no signed ones
    assert values == {"A": 1, "B": 0xFFFFFFFE}
    assert btf.find("HUGE_") is None and btf.find("big", Kind.ENUM, Kind.ENUM64) is not None


def test_a_type_without_a_size_is_refused(btf):
    with pytest.raises(ObjectError, match="struct later has no size"):
        btf.sizeof(btf.find("later").id)
    with pytest.raises(ObjectError, match="type id 99999 of"):
        btf[99999]


def test_sections_get_the_sizes_and_places_of_the_file(btf):
    data = btf.find(".data", Kind.DATASEC)
    assert data.size >= sum(m.value for m in data.members)
    assert [m.offset for m in data.members] == sorted({m.offset for m in data.members})
    assert {m.name for m in data.members} == {"node", "small", "big", "last"}


def test_hidden_functions_are_static(btf):
    assert btf.find("hidden", Kind.FUNC).linkage == STATIC and btf.find("open", Kind.FUNC).linkage == GLOBAL


def test_strings_are_found_again(btf):
    offset = btf.offset_of("hidden")
    assert offset and btf.string(offset) == "hidden" and btf.offset_of("no such string") == 0


def blob(*words: int, strings: bytes = b"\0") -> bytes:
    types = struct.pack(f"<{len(words)}I", *words)
    return struct.pack("<HBBIIIII", MAGIC, 1, 0, 24, 0, len(types), len(types), len(strings)) + types + strings


def test_an_enumeration_of_64_bits():
    row = parse(blob(0, Kind.ENUM64 << 24 | 1 << 31 | 1, 8, 1, 0xFFFFFFFE, 0xFFFFFFFF, strings=b"\0X\0"))[1]
    assert (row.members[0].name, row.members[0].value) == ("X", -2)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"\x9f\xeb", "shorter than its header"),
        (b"\0" * 24, "magic 0x0"),
        (blob(0, 31 << 24, 0), "unknown kind 31"),
        (blob(0, Kind.STRUCT << 24 | 3, 0), "is cut off"),
        (blob(0, Kind.PTR << 24), "is cut off"),
        (blob(0, Kind.PTR << 24, 7), "refers to type id 7 of 2"),
        (blob(9, Kind.INT << 24, 4, 32), "string at 0x9"),
        (blob(0, Kind.PTR << 24, 0)[:-8], "beyond its"),
        (blob(0, Kind.STRUCT << 24 | 1, 4, 0, 1, 0), "type 1 contains itself"),
        (blob(0, Kind.STRUCT << 24 | 1, 4, 0, 2, 0, 0, Kind.ARRAY << 24, 0, 1, 1, 3), "type 1 contains itself"),
    ],
)
def test_damage_is_found(raw, words):
    with pytest.raises(ObjectError) as caught:
        parse(raw)
    assert words in str(caught.value) and caught.value.section == ".BTF"


@pytest.mark.parametrize("ask", [Btf.resolve, Btf.sizeof, Btf.name])
def test_a_cycle_ends(ask):
    with pytest.raises(ObjectError, match="cycle"):
        ask(KernelBtf(blob(0, Kind.CONST << 24, 2, 0, Kind.VOLATILE << 24, 1)), 1)
    with pytest.raises(ObjectError, match="contains itself"):
        parse(blob(0, Kind.CONST << 24, 2, 0, Kind.VOLATILE << 24, 1))


def test_an_array_of_arrays_of_too_much_is_refused():
    big = blob(0, Kind.ARRAY << 24, 0, 2, 3, 1 << 30, 0, Kind.ARRAY << 24, 0, 3, 3, 1 << 30, 0, Kind.INT << 24, 4, 32)
    with pytest.raises(ObjectError, match="too large"):
        parse(big).sizeof(1)

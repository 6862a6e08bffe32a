"""Linking: which program is meant, where its functions come to lie, and what every reference becomes."""

from __future__ import annotations

import struct

import pytest

from tcbpf.errors import NotSupported, ObjectError
from tcbpf.isa.insn import Insn
from tcbpf.lang import compile_c
from tcbpf.obj import Code, MapSpec, Object, Reloc, SectionError, link, load, programs, tail_programs, tail_section
from tcbpf.obj.link import Listed

SOURCE = """
#include <bpf_helpers.h>
#include <linux/pkt_cls.h>
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");
const volatile int limits[2] = { 5, 6 };
int total = 9;

static __noinline int deep(struct __sk_buff *skb, __u32 x) { return skb->len + x + limits[1]; }
__noinline int shared(struct __sk_buff *skb) { __u32 k = 1; bpf_map_lookup_elem(&counts, &k); return deep(skb, 1); }
static long each(__u32 i, void *ctx) { total += i; return 0; }

SEC("tc") int first(struct __sk_buff *skb) { return shared(skb) + deep(skb, 2); }
SEC("tc") int second(struct __sk_buff *skb) { bpf_loop(3, each, 0, 0); return TC_ACT_OK; }
SEC("action") int act(struct __sk_buff *skb) { return TC_ACT_PIPE; }
SEC("xdp") int drop(struct xdp_md *ctx) { return XDP_DROP; }
char _license[] SEC("license") = "GPL";
"""
LD_IMM64, CALL, EXIT = 0x18, 0x85, 0x95


@pytest.fixture(scope="module")
def obj() -> Object:
    return load(compile_c(SOURCE), path="x.o")


def test_programs_are_listed_with_the_types_of_their_sections(obj):
    assert programs(obj) == (
        Listed("first", "tc", "sched_cls"),
        Listed("second", "tc", "sched_cls"),
        Listed("act", "action", "sched_act"),
        Listed("drop", "xdp", "xdp", 37),
    )


def test_a_program_is_meant_by_section_or_name(obj):
    assert link(obj, section="tc").name == "first"
    assert link(obj, program="second").name == "second"
    assert link(obj, section="action").type == "sched_act"
    assert link(obj, program="act", type="sched_cls").type == "sched_cls"


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        ({"section": "nosuch"}, "object file doesn't contain sec nosuch"),
        ({"program": "none"}, "object file doesn't contain prog none"),
        ({"section": "action", "program": "first"}, "object file doesn't contain prog first"),
        ({}, "object file has several programs, say which section"),
    ],
)
def test_a_program_that_is_not_there_lists_those_that_are(obj, ask, words):
    with pytest.raises(SectionError) as caught:
        link(obj, **ask)
    assert caught.value.what == words and "tc (first), tc (second), action (act)" in caught.value.hint


def test_functions_follow_their_callers_and_calls_reach_them(obj):
    program = link(obj, program="first")
    assert [f.name for f in program.funcs] == ["first", "shared", "deep"]
    assert [f.is_global for f in program.funcs] == [True, True, False]
    starts = {f.pc: f.name for f in program.funcs}
    reached = [starts[pc + 1 + i.imm] for pc, i in enumerate(program.insns) if i.code == CALL and i.src == 1]
    assert sorted(reached) == ["deep", "deep", "shared"]
    assert all(program.insns[f.pc - 1].code in (EXIT, 0x05) for f in program.funcs[1:])


def test_a_callback_is_named_by_its_distance(obj):
    program = link(obj, program="second")
    ((pc, insn),) = [(pc, i) for pc, i in enumerate(program.insns) if i.code == LD_IMM64 and i.src == 4]
    assert pc + 1 + insn.imm == next(f.pc for f in program.funcs if f.name == "each")


def test_maps_are_named_by_index_and_data_by_offset(obj):
    program = link(obj, program="first")
    loads = [(i, program.insns[pc + 1].imm) for pc, i in enumerate(program.insns) if i.code == LD_IMM64]
    assert all(i.src in (5, 6) for i, _ in loads)
    by_map = {(program.maps[i.imm].spec.name, i.src, offset) for i, offset in loads}
    assert ("counts", 5, 0) in by_map and {(n, s) for n, s, _ in by_map} == {("counts", 5), (".rodata", 6)}
    assert "total" not in {m.spec.name for m in program.maps}  # only what the program names


def test_a_live_map_takes_the_place_of_its_specification(obj):
    class Live:
        spec = MapSpec("counts", "array", 4, 8, 4)

    live = Live()
    assert live in link(obj, program="first", maps={"counts": live}).maps


def test_records_for_the_kernel_follow_the_functions(obj):
    program = link(obj, program="first")
    assert obj.btf is not None
    funcs = list(struct.iter_unpack("<2I", program.raw_func_info))
    assert [(pc, obj.btf[t].name) for pc, t in funcs] == [(f.pc, f.name) for f in program.funcs]
    lines = list(struct.iter_unpack("<4I", program.raw_line_info))
    assert {pc for pc, *_ in lines} >= {f.pc for f in program.funcs}
    texts = {obj.btf.string(text) for _, _, text, _ in lines}
    assert any("return shared(skb)" in text for text in texts)
    assert all(program.insns[pc].code for pc, *_ in lines)


def test_lines_and_license_come_along(obj):
    program = link(obj, program="first")
    assert (program.license, program.path, program.section) == ("GPL", "x.o", "tc")
    assert [line.pc for line in program.lines] == sorted(line.pc for line in program.lines)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("1/2", (1, 2)),
        ("0x10/017", (16, 15)),
        ("7/0", (7, 0)),
        ("tc/ingress", None),
        ("1/", None),
        ("1/2/3", None),
    ],
)
def test_the_name_of_a_tail_call_section(text, place):
    assert tail_section(text) == place


def hand(section: str = "tc", *maps: MapSpec, relocs: tuple[Reloc, ...] = ()) -> Object:
    body = (Insn(LD_IMM64), Insn(0), Insn(CALL), Insn(EXIT))
    codes = {"main": Code("main", "tc", body, relocs), "tail": Code("tail", section, (Insn(0xB7), Insn(EXIT)))}
    return Object("x.o", codes, ("main", "tail"), {m.name: m for m in maps})


def test_tail_sections_fill_the_array_with_their_id():
    jumps = MapSpec("jumps", "prog_array", 4, 4, 8, id=3)
    assert tail_programs(hand("3/5", jumps)) == (("jumps", 5, "tail"),)
    assert link(hand("3/5", jumps)).name == "main"  # a tail-call section is not what is meant
    with pytest.raises(ObjectError, match="Tail call key 8 for map 3 out of bounds"):
        tail_programs(hand("3/8", jumps))
    with pytest.raises(ObjectError, match="no program array has id 4"):
        tail_programs(hand("4/0", jumps))


def test_declared_slots_fill_the_array():
    declared = load(
        compile_c("""
        #include <bpf_helpers.h>
        int one(struct __sk_buff *skb);
        struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(max_entries, 4); __uint(key_size, 4);
                 __array(values, int (struct __sk_buff *)); } jumps SEC(".maps") = { .values = { [2] = (void *)&one } };
        SEC("tc/one") int one(struct __sk_buff *skb) { return 1; }
        SEC("tc") int main_(struct __sk_buff *skb) { bpf_tail_call(skb, &jumps, 2); return 0; }
    """)
    )
    assert tail_programs(declared) == (("jumps", 2, "one"),) and link(declared).name == "main_"


@pytest.mark.parametrize(
    ("reloc", "words"),
    [
        (Reloc(2, "call", "bpf_no_such"), "bpf_no_such is neither defined in the object nor a kernel function"),
        (Reloc(0, "extern", "CONFIG_HZ"), "external symbol CONFIG_HZ"),
    ],
)
def test_what_needs_another_kernel_is_refused_by_name(reloc, words):
    with pytest.raises(NotSupported) as caught:
        link(hand(relocs=(reloc,)), program="main")
    assert words in str(caught.value) and "x.o: tc: main+" in str(caught.value)


def test_kfuncs_and_kconfig_are_seen_in_real_objects():
    relocatable = load(
        compile_c("""
        #include <bpf_helpers.h>
        extern void kernel_function(void) __ksym;
        extern int CONFIG_HZ __kconfig;
        SEC("tc") int kfunc(struct __sk_buff *skb) { kernel_function(); return 0; }
        SEC("tc") int config(struct __sk_buff *skb) { return CONFIG_HZ; }
    """)
    )
    wanted = {"kfunc": "kernel_function", "config": "CONFIG_HZ"}
    for name, words in wanted.items():
        with pytest.raises(NotSupported, match=words):
            link(relocatable, program=name)

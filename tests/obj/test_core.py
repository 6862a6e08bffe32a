"""CO-RE: one object, fitted to types laid out otherwise."""

from __future__ import annotations

import pytest

from kernel_oracle import unavailable
from tcbpf.errors import NotSupported, ObjectError
from tcbpf.isa.insn import Insn
from tcbpf.lang import compile_c
from tcbpf.obj import btf_index, core, link, load
from tcbpf.obj.btf import Btf, Kind
from tcbpf.obj.btf_ext import CoreRelo
from tcbpf.obj.btf_index import VMLINUX, KernelBtf
from tcbpf.obj.btf_parse import parse

LOCAL = """
#include <bpf_helpers.h>
#define ASK(kind, what) __builtin_preserve_field_info(what, kind)
#pragma clang attribute push (__attribute__((preserve_access_index)), apply_to = record)
struct inner { int x; int y; };
struct thing { int a; __u32 b; struct inner in[4]; __u32 low:3, high:5; struct inner *next; };
struct thing___old { int gone; };
struct absent { int z; };
#pragma clang attribute pop
struct __sk_buff___mine { int unused; };

SEC("tc") int offsets(struct thing *t) { return t->b; }
SEC("tc") int nested(struct thing *t) { return t->in[2].y; }
SEC("tc") int missing(struct absent *t) { return t->z; }
SEC("tc") int exists(struct thing *t) { return ASK(2, t->b) * 2 + ASK(2, ((struct thing___old *)t)->gone); }
SEC("tc") int sizes(struct thing *t) { return ASK(1, t->in); }
SEC("tc") int bits(struct thing *t) { return ASK(4, t->high) * 100 + ASK(5, t->high); }
"""
TARGET = """
struct inner { long first; int y; int x; };
struct thing { long before[3]; union { struct { long skip; unsigned long b; }; }; struct inner in[6]; unsigned a:1;
               unsigned low:4, high:7; };
struct thing *keep; int use(struct thing *t) { return t->b + t->in[0].x + t->low; }
"""


@pytest.fixture(scope="module")
def obj():
    return load(compile_c(LOCAL), path="x.o")


@pytest.fixture(scope="module")
def target() -> Btf:
    found = load(compile_c(TARGET)).btf
    assert found is not None
    return found


def insns(obj, name: str, target: Btf) -> tuple[Insn, ...]:
    return link(obj, program=name, target=target).insns


def run(code: tuple[Insn, ...]) -> int:
    """Run moves, multiplications and additions of constants: what the questions compile to."""
    registers = [0] * 11
    for insn in code:
        value = registers[insn.src] if insn.code & 8 else insn.imm
        match insn.code & 0xF0, insn.code & 7:
            case 0xB0, _:
                registers[insn.dst] = value
            case 0x00, 4 | 7:
                registers[insn.dst] += value
            case 0x20, 4 | 7:
                registers[insn.dst] *= value
            case 0x60, 4 | 7:
                registers[insn.dst] <<= value
            case 0x40, 4 | 7:
                registers[insn.dst] |= value
            case 0x90, 5:
                break
            case _:
                raise AssertionError(insn)
    return registers[0]


def test_a_field_moves_and_grows(obj, target):
    load_insn = insns(obj, "offsets", target)[0]
    assert load_insn.off == 32 and load_insn.code & 0x18 == 0x18  # behind three longs and one; now 8 bytes wide


def test_a_field_of_an_element(obj, target):
    found = [i.off for i in insns(obj, "nested", target) if i.code & 7 == 1]
    assert found == [40 + 2 * 16 + 8]


def test_what_exists_and_what_does_not(obj, target):
    assert run(insns(obj, "exists", target)) == 2


def test_sizes_and_bit_fields(obj, target):
    assert run(insns(obj, "sizes", target)) == 96
    assert run(insns(obj, "bits", target)) == (64 - 12) * 100 + (64 - 7)


def test_a_path_that_is_not_there_becomes_a_call_that_cannot_be_made(obj, target):
    code = insns(obj, "missing", target)
    assert any(insn.code == 0x85 and insn.imm == core.BAD_CALL for insn in code)


def test_its_own_types_change_nothing(obj):
    body = obj.functions["offsets"].insns
    assert insns(obj, "offsets", obj.btf) == body


def test_a_context_needs_no_kernel(monkeypatch):
    monkeypatch.setattr(btf_index, "VMLINUX", "/nonexistent")
    btf_index.kernel_btf.cache_clear()
    found = load(
        compile_c("""
        struct __sk_buff { unsigned len, pkt_type, mark; } __attribute__((preserve_access_index));
        __attribute__((section("tc"))) int f(struct __sk_buff *skb) { return skb->mark; }
    """)
    )
    assert any(reloc.kind == "core" for reloc in found.functions["f"].relocs)
    assert link(found).insns[0].off == 8


@pytest.mark.parametrize(
    ("relo", "words"),
    [
        (CoreRelo(0, 1, "", "field_byte_offset"), "path ''"),
        (CoreRelo(0, 1, "0:99", "field_byte_offset"), "no member 99"),
        (CoreRelo(0, 1, "0:0:5", "field_byte_offset"), "has no parts"),
        (CoreRelo(0, 1, "0", "enumval_value"), "is no enumerator"),
    ],
)
def test_a_relocation_that_makes_no_sense(obj, relo, words):
    thing = obj.btf.find("thing", Kind.STRUCT)
    relo = CoreRelo(0, thing.id, relo.access, relo.kind)
    with pytest.raises(ObjectError, match=words):
        core.relocate([Insn(0x61)], 0, relo, obj.btf, obj.btf)


def test_an_instruction_that_says_something_else(obj):
    thing = obj.btf.find("thing", Kind.STRUCT)
    relo = CoreRelo(0, thing.id, "0:1", "field_byte_offset")
    with pytest.raises(ObjectError, match="the instruction holds 12, its relocation says 4"):
        core.relocate([Insn(0x61, off=12)], 0, relo, obj.btf, obj.btf)
    with pytest.raises(ObjectError, match="holds no number to relocate"):
        core.relocate([Insn(0x95)], 0, relo, obj.btf, obj.btf)
    with pytest.raises(NotSupported, match="type_matches"):
        core.relocate([Insn(0xB7)], 0, CoreRelo(0, thing.id, "0", "type_matches"), obj.btf, obj.btf)


@pytest.mark.kernel
def test_the_kernel_s_own_types():
    try:
        with open(VMLINUX, "rb") as file:
            raw = file.read()
    except OSError:
        unavailable("the kernel has no BTF")
    quick, full = KernelBtf(raw), parse(raw)
    assert len(quick) == len(full)
    for name in ("sk_buff", "task_struct", "net_device", "bpf_rcu_read_lock"):
        assert quick.find(name) == full.find(name)
    found = load(
        compile_c("""
        struct net_device { int ifindex; } __attribute__((preserve_access_index));
        struct sk_buff { struct net_device *dev; unsigned len; } __attribute__((preserve_access_index));
        __attribute__((section("tc"))) int f(struct sk_buff *skb) { return skb->len + skb->dev->ifindex; }
    """)
    )
    offsets = {i.off for i in link(found, target=quick).insns if i.code & 7 == 1}

    def place(owner: str, member: str) -> int:
        path = core.match_member(
            full,
            next(m for t in full.named(owner) for m in opened(full, t) if m.name == member),
            full,
            full.find(owner, Kind.STRUCT),
        )
        return sum(m.offset for _, _, m in path) // 8

    assert offsets == {place("sk_buff", "len"), place("sk_buff", "dev"), place("net_device", "ifindex")}


def opened(btf: Btf, row):
    """Yield the members of a structure and of its anonymous ones."""
    for m in row.members:
        if m.name:
            yield m
        else:
            yield from opened(btf, btf.resolve(m.type))


def test_without_the_kernel_s_types_a_kernel_structure_is_refused(obj, monkeypatch):
    monkeypatch.setattr(btf_index, "VMLINUX", "/nonexistent")
    btf_index.kernel_btf.cache_clear()
    with pytest.raises(NotSupported, match=r"x\.o: tc: offsets.0x0: no BTF of the running kernel: /nonexistent"):
        link(obj, program="offsets")

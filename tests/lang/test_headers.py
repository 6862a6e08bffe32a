"""Our headers against the running kernel's BTF, and the helper declarations against their rows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kernel_oracle import unavailable
from tcbpf.lang import c, compile_c
from tcbpf.obj import load
from tcbpf.obj.btf import Btf, Kind, Type
from tcbpf.obj.btf_parse import parse
from tcbpf.tables.helpers import HELPERS

INCLUDE = Path(c.__file__).parent / "include"
VMLINUX = Path("/sys/kernel/btf/vmlinux")
NETWORK = ("ethhdr", "iphdr", "ipv6hdr", "tcphdr", "udphdr", "icmphdr", "icmp6hdr", "arphdr", "frag_hdr", "ipv6_opt_hdr")
OPAQUE = {"bpf_timer", "bpf_wq", "bpf_dynptr", "bpf_list_head", "bpf_list_node", "bpf_rb_root", "bpf_rb_node", "bpf_iter_num"}


@pytest.fixture(scope="module")
def ours() -> Btf:
    text = (INCLUDE / "linux/bpf.h").read_text()
    structs = [*re.findall(r"^struct (\w+) \{", text, re.M), *NETWORK]
    enums = re.findall(r"^enum (\w+) \{", text, re.M)
    headers = ("bpf", "if_ether", "ip", "ipv6", "tcp", "udp", "icmp", "icmpv6", "if_arp")
    lines = [f"#include <linux/{name}.h>" for name in headers]
    lines += [f"struct {name} *s_{name};" for name in structs] + [f"enum {name} e_{name};" for name in enums]
    lines += [f"int f_{name}(struct {name} *p) {{ return sizeof(*p); }}" for name in structs]
    found = load(compile_c("\n".join(lines))).btf
    assert found is not None
    return found


@pytest.fixture(scope="module")
def kernel() -> Btf:
    if not VMLINUX.exists():
        unavailable("the kernel has no BTF")
    return parse(VMLINUX.read_bytes())


def places(btf: Btf, row: Type, base: int = 0) -> dict[str, tuple[int, int]]:
    """Return the bit offset and size of every named member, anonymous ones opened."""
    found: dict[str, tuple[int, int]] = {}
    for m in row.members:
        inner = btf.resolve(m.type)
        if not m.name and inner.kind in (Kind.STRUCT, Kind.UNION):
            found |= places(btf, inner, base + m.offset)
        else:
            found[m.name] = (base + m.offset, m.bits or btf.sizeof(m.type) * 8)
    return found


@pytest.mark.kernel
def test_every_structure_lies_as_the_kernel_s(ours, kernel):
    checked = 0
    for row in ours.types:
        theirs = kernel.find(row.name, Kind.STRUCT) if row.kind == Kind.STRUCT and row.name else None
        if theirs is None:
            continue
        checked += 1
        assert row.size == theirs.size, row.name
        if row.name not in OPAQUE:
            wanted = places(kernel, theirs)
            mine = {name: place for name, place in places(ours, row).items() if name != "res1"}  # became ae and res1
            assert mine == {name: wanted.get(name) for name in mine}, row.name
    assert checked > 40


@pytest.mark.kernel
def test_every_enumerator_has_the_kernel_s_number(ours, kernel):
    theirs = {m.name: m.value for row in kernel.types if row.kind in (Kind.ENUM, Kind.ENUM64) for m in row.members}
    mask = (1 << 64) - 1
    text = (INCLUDE / "linux/bpf.h").read_text()
    numbers = {name: int(value.removesuffix("ULL"), 0) for name, value in re.findall(r"^\t(\w+) = (\S+),$", text, re.M)}
    known = {name: value for name, value in numbers.items() if name in theirs and not name.startswith("__")}
    wrong = {name: value for name, value in known.items() if theirs[name] & mask != value & mask}
    assert not wrong and len(known) > 500


def test_every_helper_with_a_prototype_is_declared_with_its_number():
    text = (INCLUDE / "bpf_helper_defs.h").read_text()
    numbers = {name: int(number) for name, number in re.findall(r"\(\* const bpf_(\w+)\)\(.*\) = \(void \*\)(\d+);", text)}
    for row in HELPERS:
        declared = re.search(rf"^static .*\(\* const bpf_{row.name}\)\((.*)\) =", text, re.M)
        assert declared is not None and numbers[row.name] == row.id, row.name
        assert declared[1].count(",") == row.proto.count(","), row.name

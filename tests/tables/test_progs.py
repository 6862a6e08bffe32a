"""The program types: their rules against the live kernel, their sections among themselves."""

from __future__ import annotations

import pytest

from kernel_oracle import verdict
from tcbpf.isa import assemble
from tcbpf.isa.insn import Insn
from tcbpf.tables.progs import PROG_TYPES, ProgType, by_section
from tcbpf.uapi.bpf import BPF_ATTACH_TYPE

NAMES = PROG_TYPES.names()


@pytest.fixture
def row(request: pytest.FixtureRequest) -> ProgType:
    return PROG_TYPES[request.param]


def attach_types(row: ProgType) -> set[int]:
    return {section.attach_type for section in row.sections}


def accepted(text: str, row: ProgType, attach_type: int = 0, flags: int = 0) -> bool:
    return verdict(assemble(text), row.name, attach_type=attach_type, flags=flags)[0] == 0


def packet(row: ProgType, access: str) -> str:
    """Return a program that makes one access to the first byte of the packet, at r2."""
    data, end = (76, 80) if row.context == "skb" else (0, 4)
    return f"""
        r2 = *(u32 *)(r1 +{data})
        r3 = *(u32 *)(r1 +{end})
        r4 = r2
        r4 += 1
        if r4 > r3 goto out
        {access}
    out: r0 = 0
        exit
    """


def test_sections_are_found_exactly() -> None:
    names = [section.name for row in PROG_TYPES for section in row.sections]
    assert len(names) == len(set(names))
    for row in PROG_TYPES:
        for section in row.sections:
            assert by_section(section.name) == (row, section)
    for other in ("my_prog", "tcx", "xdp/", "2/1", "prog", ""):
        assert by_section(other) is None


@pytest.mark.kernel(since=(6, 18))
@pytest.mark.parametrize("row", NAMES, indirect=True)
def test_what_a_program_may_return(row: ProgType) -> None:
    """At each attach type, the values inside the range load, those just outside do not, and neither does an unknown one."""
    for attach_type in attach_types(row):
        limits = dict(row.returns_at).get(attach_type, row.returns)
        low, high = limits or (0, 0x7FFFFFFF)
        for value in (low, high):
            assert accepted(f"r0 = {value}\nexit", row, attach_type)
        for value in (low - 1, high + 1) if limits else (-1,):
            assert accepted(f"r0 = {value}\nexit", row, attach_type) == (limits is None), value
        assert accepted("call 7\nexit", row, attach_type) == (limits is None)


@pytest.mark.kernel(since=(6, 18))
@pytest.mark.parametrize("row", NAMES, indirect=True)
def test_who_may_touch_the_packet(row: ProgType) -> None:
    assert accepted(packet(row, "r0 = *(u8 *)(r2 +0)"), row) == row.direct_read
    assert accepted(packet(row, "*(u8 *)(r2 +0) = 0"), row) == row.direct_write


@pytest.mark.kernel(since=(6, 18))
@pytest.mark.parametrize("row", NAMES, indirect=True)
def test_who_may_use_ld_abs(row: ProgType) -> None:
    insns = [Insn(0xBF, 6, 1), Insn(0x30), Insn(0xB7), Insn(0x95)]
    assert (verdict(insns, row.name)[0] == 0) == row.ld_abs


@pytest.mark.kernel(since=(6, 18))
@pytest.mark.parametrize("row", NAMES, indirect=True)
def test_every_section_loads(row: ProgType) -> None:
    """A program with the attach type and flags of each section row is accepted by the kernel."""
    for section in row.sections:
        assert accepted("r0 = 0\nexit", row, section.attach_type, section.flags), (
            section.name,
            BPF_ATTACH_TYPE[section.attach_type],
        )

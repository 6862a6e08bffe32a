"""The context rows, among themselves and against the live kernel."""

from __future__ import annotations

import pytest

from kernel_oracle import verdict
from tcbpf.isa.insn import Insn
from tcbpf.tables.opcodes import ATOMIC, DW, LDX, MEM, MEMSX, SIZE_CODE, ST, STX, B, H, W
from tcbpf.tables.progs import PROG_TYPES
from tcbpf.tables.skb import SKB, SKB_SIZE, XDP, XDP_SIZE, Field, field_at

MOV, EXIT = 0xB7, Insn(0x95)


def allowed(prog: str, off: int, size: int, write: bool, *, signed: bool = False) -> bool:
    """Return whether the rows allow one access: the rule that the module's docstring states."""
    table = XDP if PROG_TYPES[prog].context == "xdp" else SKB
    field = field_at(table, off)
    if field is None or off % size or prog not in (field.write if write else field.read):
        return False
    if field.attach_type or (signed and field.pointer):
        return False
    if off == field.off and size == field.size:
        return True
    if size > field.size:
        return field.wide and off == field.off and size == 8
    return (field.narrow_write if write else field.narrow) and off + size <= field.off + field.size


def test_rows_tile_the_struct() -> None:
    """No two fields overlap, and what no field covers is the padding the kernel names."""
    for table, size, padding in ((SKB, SKB_SIZE, {181, 182, 183}), (XDP, XDP_SIZE, set())):
        covered = [off for row in table for off in range(row.off, row.off + row.size)]
        assert len(covered) == len(set(covered))
        assert set(range(size)) - set(covered) == padding


def test_native_places_are_inside_the_mirror_or_behind_it() -> None:
    for row in SKB:
        off, size = row.native
        assert size in (0, 2, 8) and (size != 8 or off >= SKB_SIZE) and (size != 2 or off == row.off)


def test_defaults_fail_closed() -> None:
    row = Field("x", 0, 4)
    assert not row.read and not row.write and not row.narrow and not row.wide and row.since > (9, 0)


@pytest.mark.kernel(since=(6, 18))
@pytest.mark.parametrize("prog", PROG_TYPES.names())
def test_every_access_as_the_kernel_judges_it(prog: str) -> None:
    """Each offset, size and direction: the kernel says "invalid bpf_context access" exactly where the rows refuse."""
    size_of_context = XDP_SIZE if PROG_TYPES[prog].context == "xdp" else SKB_SIZE
    differ = []
    for off in range(-8, size_of_context + 8):
        for size, code in SIZE_CODE.items():
            accesses = [
                (allowed(prog, off, size, False), [Insn(LDX | MEM | code, 0, 1, off)]),
                (allowed(prog, off, size, True), [Insn(MOV, 0), Insn(STX | MEM | code, 1, 0, off)]),
                (allowed(prog, off, size, True), [Insn(ST | MEM | code, 1, 0, off, 5)]),
                (False, [Insn(MOV, 0), Insn(STX | ATOMIC | code, 1, 0, off)]),
            ]
            if size < 8:
                accesses.append((allowed(prog, off, size, False, signed=True), [Insn(LDX | MEMSX | code, 0, 1, off)]))
            for expected, access in accesses:
                error, log = verdict([*access, Insn(MOV, 0), EXIT], prog)
                if (error == 0) != expected:
                    differ.append((off, size, access[-1], error, log.splitlines()[-3:-1]))
    assert not differ, differ[:5]


@pytest.mark.kernel
def test_egress_ifindex_needs_its_attach_type() -> None:
    row = XDP["egress_ifindex"]
    insns = [Insn(LDX | MEM | W, 0, 1, row.off), Insn(MOV, 0), EXIT]
    assert verdict(insns, "xdp")[0] != 0
    assert verdict(insns, "xdp", attach_type=row.attach_type)[0] == 0


@pytest.mark.kernel
def test_pointer_fields_are_pointers() -> None:
    """The kernel's log names the register type that each pointer row promises."""
    words = {"pkt": "pkt(", "pkt_meta": "pkt_meta(", "pkt_end": "pkt_end(", "sock_common_or_null": "sock_common_or_null("}
    for table, prog in ((SKB, "sched_cls"), (XDP, "xdp")):
        for row in table:
            if prog in row.read and not row.attach_type:
                code = LDX | MEM | {1: B, 2: H, 4: W, 8: DW}[row.size]
                _, log = verdict([Insn(code, 0, 1, row.off), Insn(MOV, 0), EXIT], prog, log_level=2)
                state = next(line for line in log.splitlines() if line.startswith("0: (")).partition("R0")[2]
                assert words.get(row.pointer, "scalar(") in state, (row.name, state)

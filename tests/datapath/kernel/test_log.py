"""The kernel verifier's log: what of it is the reason."""

from __future__ import annotations

import pytest

from tcbpf.datapath.kernel.log import reason

WALK = """\
0: R1=ctx() R10=fp0
; int bad(struct __sk_buff *s) { return *(int*)(long)s->data; } @ bad.c:3
0: (61) r1 = *(u32 *)(r1 +76)         ; R1=pkt(r=0)
1: (61) r0 = *(u32 *)(r1 +0)
invalid access to packet, off=0 size=4, R1(id=0,off=0,r=0)
R1 offset is outside of the packet
processed 2 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""
LOOP = """\
8: (07) r7 += 34                      ; R7=pkt(off=34,r=0)
9: (3d) if r7 >= r4 goto pc+2 infinite loop detected at insn 12
cur state: R1=ctx() R10=fp0
old state: R1=ctx() R10=fp0
processed 38 insns (limit 1000000) max_states_per_insn 0 total_states 3 peak_states 3 mark_read 0
"""
LOOP_AND_STATE = """\
26: (25) if r9 > 0x0 goto pc-5        ; R9=30
infinite loop detected at insn 22
cur state: R0=1 R9=30 R10=fp0
old state: R0=1 R9=30 R10=fp0
processed 43 insns (limit 1000000) max_states_per_insn 1 total_states 4 peak_states 4 mark_read 0
"""
BRANCH = """\
2: (15) if r0 == 0x0 goto pc+1 4: R0=0 R10=fp0
4: (79) r1 = *(u64 *)(r0 +0)
R0 invalid mem access 'scalar'
processed 5 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""


@pytest.mark.parametrize(
    ("log", "message", "pc", "processed"),
    [
        (WALK, "invalid access to packet, off=0 size=4, R1(id=0,off=0,r=0)", 1, 2),
        (LOOP, "infinite loop detected at insn 12", 9, 38),
        (LOOP_AND_STATE, "infinite loop detected at insn 22", 26, 43),
        (BRANCH, "R0 invalid mem access 'scalar'", 4, 5),
        ("7: (85) call bpf_loop#181 8: frame1: R1=scalar() R10=fp0 cb\n8: frame1: R1=1 R10=fp0 cb\n R0=1 R10=fp0\n", "", 7, 0),
        ("unreachable insn 2\nprocessed 0 insns (limit 1000000)\n", "unreachable insn 2", 2, 0),
        ("last insn is not an exit or jmp\nprocessed 0 insns\n", "last insn is not an exit or jmp", -1, 0),
        ("0: BUG_c3\nBPF_ATOMIC uses invalid atomic opcode 0e\n", "BPF_ATOMIC uses invalid atomic opcode 0e", 0, 0),
        ("", "", -1, 0),
    ],
    ids=["walk", "loop", "loop and state", "branch", "no word", "unreachable", "whole", "bug", "empty"],
)
def test_reason(log: str, message: str, pc: int, processed: int) -> None:
    found = reason(log)
    assert (found.message, found.pc, found.processed) == (message, pc, processed)


def test_the_source_line_before_the_reason() -> None:
    assert reason(WALK).source == "bad.c:3: int bad(struct __sk_buff *s) { return *(int*)(long)s->data; }"
    assert reason(LOOP).source == ""

"""The verifier as its users call it: a verdict, or an error with the kernel's words, a place and a hint."""

from __future__ import annotations

import os

import pytest

from kernel_oracle import load
from tcbpf.errors import VerifierError
from tcbpf.isa.insn import Insn
from tcbpf.obj.program import Program
from tcbpf.tables.progs import PROG_TYPES
from tcbpf.tables.skb import SKB
from tcbpf.verifier import Region, verify
from verifier.unprivileged import ask

GUARDED = (
    Insn(0x61, 2, 1, 76),
    Insn(0x61, 3, 1, 80),
    Insn(0xBF, 4, 2),
    Insn(0x07, 4, imm=14),
    Insn(0x2D, 4, 3, 2),
    Insn(0x71, 0, 2, 13),
    Insn(0x95),
    Insn(0xB7),
    Insn(0x95),
)


def program(*insns: Insn, type: str = "sched_cls") -> Program:
    return Program("test", type, insns, license="GPL")


def test_accepts_a_guarded_packet_read_and_says_what_it_reaches() -> None:
    verified = verify(program(*GUARDED))
    assert verified.insns_processed == 9
    assert verified.aux[5].region is Region.PACKET
    assert verified.aux[0].region is Region.CTX and verified.aux[0].field is SKB["data"]
    assert not verified.writes_packet
    assert verified.subprogs[0].end == len(GUARDED)


def test_refuses_a_byte_beyond_the_guard_in_the_kernels_words() -> None:
    beyond = (*GUARDED[:5], Insn(0x71, 0, 2, 14), *GUARDED[6:])
    with pytest.raises(VerifierError) as caught:
        verify(program(*beyond))
    error = caught.value
    assert error.message == "invalid access to packet, off=14 size=1, R2(id=0,off=14,r=14)"
    assert (error.pc, error.reason, error.errno) == (5, "packet_bounds", 13)
    assert "data_end" in error.hint and 5 in error.slice
    assert "R2 offset is outside of the packet" in error.log


def test_the_log_is_in_the_kernels_format() -> None:
    short, full = (verify(program(Insn(0xB7), Insn(0x95)), log_level=level).log for level in (1, 2))
    assert short == "processed 2 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0\n"
    assert full == (
        "func#0 @0\n"
        "Live regs before insn:\n"
        "      0: .......... (b7) r0 = 0\n"
        "      1: 0......... (95) exit\n"
        "0: R1=ctx() R10=fp0\n"
        "0: (b7) r0 = 0                        ; R0=0\n"
        "1: (95) exit\n" + short
    )


def test_the_budget_stops_a_long_loop() -> None:
    loop = (Insn(0xB7, 1), Insn(0x07, 1, imm=1), Insn(0xA5, 1, off=-2, imm=1000), Insn(0xB7), Insn(0x95))
    assert verify(program(*loop)).insns_processed > 1000
    with pytest.raises(VerifierError, match=r"BPF program is too large\. Processed 101 insn"):
        verify(program(*loop), max_insns=100)


def test_a_may_goto_to_the_next_instruction_is_one() -> None:
    assert verify(program(Insn(0xB7), Insn(0xE5), Insn(0x95))).insns_processed == 4
    with pytest.raises(VerifierError, match="invalid may_goto imm 5"):
        verify(program(Insn(0xB7), Insn(0xE5, imm=5), Insn(0x95)))


def test_the_summary_has_the_time_and_the_stack() -> None:
    time, stack, processed = verify(program(Insn(0xB7), Insn(0x95)), log_level=4).log.splitlines()
    assert time.startswith("verification time ") and stack == "stack depth 0" and processed.startswith("processed 2 insns")


def unprivileged(asked: tuple[str, int]) -> int:
    """Return the errno of our verdict on a program of a type, of so many instructions, for a user without CAP_BPF."""
    type, count = asked
    try:
        verify(program(*[Insn(0xB7)] * (count - 1), Insn(0x95), type=type), privileged=False)
    except VerifierError as error:
        return error.errno
    return 0


def unprivileged_kernel(asked: tuple[str, int]) -> int:
    type, count = asked
    fd, error, _ = load([*[Insn(0xB7)] * (count - 1), Insn(0x95)], type)
    if fd >= 0:
        os.close(fd)
    return error


EVERY_TYPE = [(row.name, count) for row in PROG_TYPES for count in (2, 4096, 4097)]


def test_a_type_that_needs_privilege_says_so() -> None:
    with pytest.raises(VerifierError, match="a program of type sched_cls needs CAP_BPF and CAP_NET_ADMIN") as caught:
        verify(program(Insn(0xB7), Insn(0x95)), privileged=False)
    assert caught.value.errno == 1 and "only socket_filter and cgroup_skb programs load" in caught.value.hint


@pytest.mark.kernel
def test_the_kernel_lets_the_same_types_load_without_privilege() -> None:
    assert [unprivileged(row) for row in EVERY_TYPE] == ask("none", unprivileged_kernel, EVERY_TYPE)

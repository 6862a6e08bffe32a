"""The disassembler's words against those in the running kernel's verifier log."""

from __future__ import annotations

import random

import pytest

from isa.strategies import forms
from kernel_oracle import verdict
from tcbpf.isa import assemble, kernel_text
from tcbpf.isa.insn import Insn
from tcbpf.tables.insns import ALU, ATOMICS, END, JUMP
from tcbpf.tables.opcodes import SIZE_CODE
from tcbpf.uapi.bpf import BPF_FUNC_ID

pytestmark = pytest.mark.kernel(since=(6, 18))
PROLOGUE = [*(Insn(0xB7, reg, imm=reg) for reg in range(10) if reg != 1), Insn(0x7B, 10, 0, -8), Insn(0x7B, 10, 0, -16)]
EPILOGUE = [Insn(0xB7), Insn(0x95)]


def logged(insns: list[Insn], pc: int) -> str:
    """Return what the kernel prints of the instruction at `pc`, without the registers after it."""
    _, log = verdict(insns, "sched_cls", log_level=2)
    for line in log.splitlines():
        if line.startswith(f"{pc}: ("):
            return line.partition(": ")[2].partition(";")[0].rstrip()
    return "not reached: " + log[-300:]


def straight(seed: int) -> list[Insn]:
    """Return every form of every row that falls through, with fields drawn from a seed."""
    draw = random.Random(seed)

    def reg() -> int:
        return draw.randrange(11)

    def off() -> int:
        return draw.choice((0, 1, 4, -8, 0x7FFF, -0x8000))

    def imm() -> int:
        return draw.choice((0, 1, 7, -1, -5, 0x7FFFFFFF, -0x80000000, draw.randrange(-1 << 31, 1 << 31)))

    found = []
    for row in ALU:
        for width in row.widths:
            code = (0x07 if width == 64 else 0x04) | row.code << 4
            if row.unary:
                found.append(Insn(code, reg()))
                continue
            found.append(Insn(code | 8, reg(), reg(), row.off))
            if not row.reg_only:
                found.append(Insn(code, reg(), 0, row.off, imm()))
    found += [Insn(row.base, reg(), imm=row.bits) for row in END]
    for row in JUMP:
        for cls in (5, 6):
            found += [Insn(cls | row.code << 4, reg(), 0, 0, imm()), Insn(cls | row.code << 4 | 8, reg(), reg(), 0)]
    for size, code in SIZE_CODE.items():
        found += [
            Insn(0x61 | code, reg(), reg(), off()),
            Insn(0x62 | code, reg(), 0, off(), imm()),
            Insn(0x63 | code, reg(), reg(), off()),
        ]
        if size != 8:
            found += [
                Insn(0x81 | code, reg(), reg(), off()),
                Insn(0x20 | code, imm=imm()),
                Insn(0x40 | code, 0, reg(), 0, imm()),
            ]
        found += [Insn(0xC3 | code, reg(), reg(), off(), row.imm) for row in ATOMICS if size in row.sizes]
    return [*found, Insn(0x05), Insn(0x06), Insn(0xE5)]


def test_every_row_reads_as_in_the_log() -> None:
    differ, at = [], len(PROLOGUE)
    for seed in range(5):
        for insn in straight(seed):
            insns = [*PROLOGUE, insn, *EPILOGUE]
            ours, theirs = kernel_text(insns, at), logged(insns, at)
            if ours != theirs:
                differ.append((insn, ours, theirs))
    assert not differ, differ[:5]
    assert len(straight(0)) > 150 and len(list(forms())) > 150


def test_every_helper_is_named_as_in_the_log() -> None:
    for id in (*BPF_FUNC_ID, 4000, -1):
        insns = [Insn(0x85, imm=id), *EPILOGUE]
        assert kernel_text(insns, 0) == logged(insns, 0)


def test_jumps_calls_and_wide_immediates() -> None:
    insns = assemble("""
            r6 = r1
            r2 = 0x1122334455667788 ll
            call bpf_get_prandom_u32
            if r0 == 0xffffffff goto over
            goto pc+0
            gotol pc+0
    over:   if w0 s< 5 goto back
            may_goto pc+1
            call sub
            r0 = 0
    back:   exit
    sub:    r0 = 3
            exit
    """)
    error, log = verdict(insns, "sched_cls", log_level=2)
    assert error == 0, log
    shown = {
        int(line.partition(":")[0]): line.partition(": ")[2].partition(";")[0].rstrip()
        for line in log.splitlines()
        if line[:1].isdigit() and ": (" in line
    }
    assert shown == {pc: kernel_text(insns, pc) for pc in range(len(insns)) if pc != 2}

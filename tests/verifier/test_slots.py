"""Single slots, every opcode with many fields: the live kernel's verdict and, line by line, its log."""

from __future__ import annotations

import os
from itertools import product, zip_longest

import pytest

from kernel_oracle import load
from tcbpf.errors import VerifierError
from tcbpf.isa import assemble
from tcbpf.isa.insn import Insn
from tcbpf.obj.program import Program
from tcbpf.tables.opcodes import CALL, JMP, PSEUDO_KFUNC_CALL
from tcbpf.verifier import verify
from tcbpf.verifier.state.log import LEVEL2, STATS
from tcbpf.verifier.words.log_reader import comparable

pytestmark = pytest.mark.kernel

BEFORE = assemble("r0 = 0\nr2 = r10\n*(u64 *)(r10 - 8) = r0")
AFTER = assemble("r0 = 0\nexit")
SET, UNSET, POINTER, NONE = 0, 3, 2, 13
MISSING = Insn(JMP | CALL, 0, PSEUDO_KFUNC_CALL, 0, 0)
"""A function that libbpf did not find, which the kernel takes where no path leads to it, and we do not."""


def ours(insns: list[Insn]) -> tuple[int, list[str]]:
    """Return the errno (0: accepted) and the log."""
    try:
        log = verify(Program("slot", "sched_cls", tuple(insns), license="GPL"), log_level=LEVEL2 | STATS).log
    except VerifierError as error:
        return error.errno, comparable(error.log).splitlines()
    return 0, comparable(log).splitlines()


def kernels(insns: list[Insn]) -> tuple[int, list[str]]:
    """Return the errno (0: accepted) and the log."""
    fd, error, log = load(insns, log_level=LEVEL2 | STATS)
    if fd >= 0:
        os.close(fd)
    return error, comparable(log).splitlines()


@pytest.mark.parametrize("cls", range(8))
def test_every_opcode(cls: int) -> None:
    differ = []
    for code in range(cls, 256, 8):
        for dst, src, off, imm in product((SET, UNSET, NONE), (SET, POINTER, 4, NONE), (0, -8), (0, 1, 16, -1)):
            slot = Insn(code, dst, src, off, imm)
            if slot._replace(dst=0) == MISSING:
                continue
            insns = [*BEFORE, slot, *AFTER]
            mine, theirs = ours(insns), kernels(insns)
            if mine != theirs:
                lines = next((pair for pair in zip_longest(mine[1], theirs[1]) if pair[0] != pair[1]), None)
                differ.append((slot, mine[0], theirs[0], lines))
    assert not differ

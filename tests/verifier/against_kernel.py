"""Compare, instruction by instruction, what the kernel prints of the scalars with what we compute from what it printed
before.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from kernel_oracle import load
from tcbpf.isa.insn import Insn
from tcbpf.tables.insns import Kind, op_of
from tcbpf.tables.opcodes import ALU32, ALU64
from tcbpf.verifier.values.branch import refine
from tcbpf.verifier.values.scalar import Scalar, const
from tcbpf.verifier.values.transfer import alu, fork
from verifier.printed import shown


@dataclass(frozen=True)
class Difference:
    """One instruction of which the kernel and we think differently."""

    pc: int
    insn: Insn
    what: str
    before: dict[int, Scalar]
    kernel: object
    ours: object

    def __str__(self) -> str:
        before = " ".join(f"R{reg}={known}" for reg, known in sorted(self.before.items()))
        where = f"pc {self.pc} {self.insn} ({self.what})"
        return f"{where}\n  before: {before}\n  kernel: {self.kernel}\n  ours:   {self.ours}"


def differences(program: list[Insn]) -> tuple[int, list[Difference]]:
    """Load the program and return how many states were compared and those that differ.

    What prints the same is taken over from ours, for a constant prints without the bounds that it should have and
    may not (on a path that cannot be); so the comparison begins afresh from the kernel's words only where they
    differ.
    """
    fd, error, log = load(program, log_level=2, log_size=1 << 22)
    if fd < 0:
        raise AssertionError(f"errno {error}\n{log}")
    os.close(fd)
    found: list[Difference] = []
    compared = 0
    ids: dict[int, str] = {}
    state: dict[int, Scalar] = {}
    branches: dict[int, tuple[dict[int, Scalar], dict[int, Scalar]]] = {}
    following, forked = 0, False
    for line in shown(log):
        insn = program[line.pc]
        if line.target is not None:  # a branch taken, or a path the kernel forked
            if line.pc not in branches:
                found.append(Difference(line.pc, insn, "way", state, "taken", "not taken"))
                break
            what, before, ours = "taken", *branches.pop(line.pc)
            state, ids, following = line.registers, line.ids, line.target
        else:
            if line.pc != following:
                found.append(Difference(following, program[following], "way", state, f"not run, but {line.pc}", "run"))
                break
            ids = {reg: ids[reg] for reg in ids if reg not in line.registers} | line.ids
            if len(set(ids.values())) < len(ids):
                break
            what, before = "after", state
            ours, other, falls = step(insn, state)
            following += 1
            if other is not None:
                if falls:
                    branches[line.pc] = before, state | other
                    forked = forked or insn.code & 7 in (ALU32, ALU64)
                else:
                    following += insn.off
            state = state | line.registers
        for reg, known in ours.items():
            compared += 1
            if str(state[reg]) == str(known):
                state[reg] = known
            else:
                found.append(Difference(line.pc, insn, what, before, state[reg], known))
    else:
        if branches and not forked:  # after a fork, paths meet and are cut off
            for pc, (before, _) in branches.items():
                found.append(Difference(pc, program[pc], "way", before, "not taken", "taken"))
    return compared, found


def step(insn: Insn, state: dict[int, Scalar]) -> tuple[dict[int, Scalar], dict[int, Scalar] | None, bool]:
    """Return what it changes where it falls through, what on the other path (None for no other), whether it falls."""
    op = op_of(insn.code, insn.src, insn.off, insn.imm)
    if op is None or insn.dst not in state or op.kind not in (Kind.ALU, Kind.JUMP):
        return {}, None, True
    d = state[insn.dst]
    s = state[insn.src] if op.use_reg else const(insn.imm)
    if op.kind is Kind.ALU:
        split = fork(op.row, d, s)
        if split is None:
            return {insn.dst: alu(op.row, op.width, d, s)}, None, True
        return {insn.dst: alu(op.row, op.width, split[0], s)}, {insn.dst: split[1]}, True
    regs = (insn.dst, insn.src) if op.use_reg else (insn.dst,)
    yes, no = refine(op.row, op.width, d, s, op.use_reg and insn.src == insn.dst)
    taken = dict(zip(regs, yes, strict=False)) if yes is not None else None
    return dict(zip(regs, no, strict=False)) if no is not None else {}, taken, no is not None

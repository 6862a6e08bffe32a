"""Compare, instruction by instruction, what the kernel prints of the scalars with what we compute from what it printed
before.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from kernel_oracle import load
from tcbpf.isa.insn import Insn
from tcbpf.tables.insns import Kind, op_of
from tcbpf.verifier.branch import refine
from tcbpf.verifier.scalar import Scalar, const
from tcbpf.verifier.transfer import alu, fork
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
    """Load the program and return how many states were compared and those that differ."""
    fd, error, log = load(program, log_level=2, log_size=1 << 22)
    if fd < 0:
        raise AssertionError(f"errno {error}\n{log}")
    os.close(fd)
    compared, found = 0, []
    ids: dict[int, str] = {}
    state: dict[int, Scalar] = {}
    branches: dict[int, dict[int, Scalar]] = {}
    for line in shown(log):
        if line.target is not None:
            if line.pc not in branches:
                break                                        # a path the kernel forked by itself: not straight any more
            before, expected = branches[line.pc]
            compared += 1
            for reg, known in expected.items():
                if line.registers.get(reg) != known:
                    found.append(Difference(line.pc, program[line.pc], "taken", before, line.registers.get(reg), known))
            continue
        ids = {reg: ids[reg] for reg in ids if reg not in line.registers} | line.ids
        if len(set(ids.values())) < len(ids):
            break
        insn = program[line.pc]
        op = op_of(*insn[:1], insn.src, insn.off, insn.imm)
        after = dict(state)
        after.update(line.registers)
        if op is not None and insn.dst in state and op.kind in (Kind.ALU, Kind.JUMP):
            d = state[insn.dst]
            s = state[insn.src] if op.use_reg else const(insn.imm)
            before = {insn.dst: d} | ({insn.src: s} if op.use_reg else {})
            if op.kind is Kind.ALU:
                split = fork(op.row, d, s)
                if split is not None:
                    d, other = split
                    branches[line.pc] = before, {insn.dst: other}
                ours = alu(op.row, op.width, d, s)
                compared += 1
                if after[insn.dst] != ours:
                    found.append(Difference(line.pc, insn, "alu", before, after[insn.dst], ours))
            else:
                yes, no = refine(op.row, op.width, d, s, op.use_reg and insn.src == insn.dst)
                regs = (insn.dst, insn.src) if op.use_reg else (insn.dst,)
                if yes is not None:
                    branches[line.pc] = before, dict(zip(regs, yes, strict=False))
                if no is not None:
                    compared += 1
                    for reg, known in zip(regs, no, strict=False):
                        if after[reg] != known:
                            found.append(Difference(line.pc, insn, "fallthrough", before, after[reg], known))
        state = after
    return compared, found

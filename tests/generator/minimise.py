"""Make a program on which two verifiers differ as small and plain as it can be while they still do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from generator.edit import splice, target, whole, with_code
from tcbpf.isa.insn import Insn
from tcbpf.obj.program import Program
from tcbpf.tables import opcodes as bpf

Wrong = Callable[[Program], bool]
"""Tells whether the verifiers still differ on a program in the way that is looked for."""


def minimise(program: Program, wrong: Wrong) -> Program:
    """Return the smallest program found that keeps `wrong` true."""
    best = program
    while True:
        smaller = _plainer(_without_functions(_shorter(best, wrong), wrong), wrong)
        if smaller == best:
            return _without_maps(best, wrong)
        best = smaller


def _shorter(best: Program, wrong: Wrong) -> Program:
    """Take out runs of instructions, long ones first."""
    size = max(1, len(best.insns) // 2)
    while size:
        places = whole(best.insns)
        at = len(places) - size
        while at >= 0:
            first = places[at][0]
            last = places[min(at + size, len(places)) - 1]
            trial = splice(best, first, last[0] + last[1] - first)
            if trial.insns and wrong(trial):
                best = trial
                places = whole(best.insns)
                at = min(at, len(places))
            at -= size
        size //= 2
    return best


def _without_functions(best: Program, wrong: Wrong) -> Program:
    """Leave out the type information."""
    trial = with_code(replace(best, btf=None), best.insns, ())
    return trial if best.funcs and wrong(trial) else best


def _plainer(best: Program, wrong: Wrong) -> Program:
    """Put plain things in place of the particular: small numbers, other registers, straight code for branches."""
    for pc, size in whole(best.insns):
        for insn in _simpler(best.insns, pc):
            if insn == best.insns[pc]:
                continue
            trial = with_code(best, (*best.insns[:pc], insn, *best.insns[pc + 1 :]))
            if wrong(trial):
                best = trial
        if size == 2 and best.insns[pc].src == 0 and best.insns[pc + 1].imm:
            trial = with_code(best, (*best.insns[: pc + 1], Insn(0), *best.insns[pc + 2 :]))
            best = trial if wrong(trial) else best
    return best


def _simpler(insns: tuple[Insn, ...], pc: int) -> Iterator[Insn]:
    """Yield plainer instructions to try in place of one, the plainest first."""
    insn = insns[pc]
    cls = insn.code & 7
    if insn.code == 0x18:
        return
    if cls in (bpf.JMP, bpf.JMP32) and target(insns, pc) is not None and insn.code & 0xF0 != 0x80:
        if insn.off > 0:
            yield insn._replace(off=0)
        if insn.code not in (0x05, 0x06, 0xE5):
            yield Insn(0x05, off=insn.off)
            yield insn._replace(code=0x15 | insn.code & 8)
    elif cls in (bpf.ALU32, bpf.ALU64) and insn.code not in (0xB7, 0xBF):
        yield Insn(0xB7, insn.dst)
    if cls != bpf.JMP or insn.code & 0xF0 not in (0x80, 0x90):
        for imm in (0, 1, 8):
            yield insn._replace(imm=imm)
    if cls == bpf.ALU32:
        yield insn._replace(code=insn.code & ~7 | bpf.ALU64)
    if cls == bpf.JMP32 and insn.code != 0x06:
        yield insn._replace(code=insn.code & ~7 | bpf.JMP)


def _without_maps(best: Program, wrong: Wrong) -> Program:
    """Leave out maps that no instruction names."""
    named = [insn.imm for insn in best.insns if _names_map(insn)]
    keep = [i for i in range(len(best.maps)) if i in named]
    insns = [insn._replace(imm=keep.index(insn.imm)) if _names_map(insn) and insn.imm in keep else insn for insn in best.insns]
    trial = with_code(replace(best, maps=tuple(best.maps[i] for i in keep)), insns)
    return trial if wrong(trial) else best


def _names_map(insn: Insn) -> bool:
    return insn.code == 0x18 and insn.src in (bpf.PSEUDO_MAP_IDX, bpf.PSEUDO_MAP_IDX_VALUE)

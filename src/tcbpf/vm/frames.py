"""Which registers point into the stack frame, and where.

So stack accesses are written against the frame itself, and LLVM can turn stack slots into values.
"""

from __future__ import annotations

from collections.abc import Sequence

from tcbpf.isa.insn import Insn
from tcbpf.tables.insns import ALU, ATOMICS, Kind, Op
from tcbpf.vm.cfg import Block, Slots

Offsets = tuple[int | None, ...]
"""For each register its distance from the frame pointer, or None when it is not known to point into the frame."""

START: Offsets = (*(None,) * 10, 0, None)

_WRITES_DST = {Kind.ALU, Kind.LOAD, Kind.LD_IMM64}
_CALLS = {Kind.CALL, Kind.CALL_LOCAL, Kind.CALL_KFUNC, Kind.LD_ABS, Kind.LD_IND}


def moved(offsets: Sequence[int | None], insn: Insn, op: Op) -> int | None:
    """Return the distance that an ALU instruction leaves in dst, or None."""
    row = op.row
    if op.width != 64:
        return None
    if row is ALU["MOV"]:
        return offsets[insn.src] if op.use_reg else None
    dst = offsets[insn.dst]
    if dst is None or op.use_reg or row not in (ALU["ADD"], ALU["SUB"]):
        return None
    return dst + (insn.imm if row is ALU["ADD"] else -insn.imm)


def after(offsets: list[int | None], insn: Insn, op: Op) -> None:
    """Change `offsets` as one instruction does."""
    kind = op.kind
    if kind in _WRITES_DST:
        offsets[insn.dst] = moved(offsets, insn, op) if kind is Kind.ALU else None
    elif kind in _CALLS:
        offsets[0:6] = [None] * 6
    elif kind is Kind.ATOMIC:
        if op.row is ATOMICS["LOAD_ACQ"]:
            offsets[insn.dst] = None
        elif op.row.fetch:
            offsets[0 if op.row is ATOMICS["CMPXCHG"] else insn.src] = None


def offsets_at(insns: Sequence[Insn], ops: Slots, blocks: Sequence[Block]) -> dict[int, Offsets]:
    """Return what is known at the start of each block, by its first slot."""
    by_start = {block.start: block for block in blocks}
    known: dict[int, Offsets] = {blocks[0].start: START}
    todo = [blocks[0].start]
    while todo:
        block = by_start[todo.pop()]
        offsets = list(known[block.start])
        for pc in range(block.start, block.end):
            op = ops[pc]
            if op is not None:
                after(offsets, insns[pc], op)
        for succ in block.succ:
            old = known.get(succ)
            new = tuple(offsets) if old is None else tuple(a if a == b else None for a, b in zip(old, offsets, strict=True))
            if new != old:
                known[succ] = new
                todo.append(succ)
    return known

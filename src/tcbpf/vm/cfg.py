"""Control flow: the slots of a program as operations, and the basic blocks of one function.

A function is what its first slot reaches without entering a call, so that bodies of unverified functions may overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tcbpf.errors import InputError
from tcbpf.isa.insn import Insn
from tcbpf.tables.insns import Kind, Op, op_of

Slots = Sequence[Op | None]
"""One entry a slot; None for the second slot of LD_IMM64."""

ENDS = {Kind.JUMP, Kind.JA, Kind.MAY_GOTO, Kind.EXIT}


@dataclass(frozen=True, slots=True)
class Block:
    """Slots [start, end) that run one after the other; `succ` is the jump's target last, after the fall through."""

    start: int
    end: int
    succ: tuple[int, ...]


def slots_of(insns: Sequence[Insn], extra: Callable[[Insn], Op | None] = lambda insn: None) -> list[Op | None]:
    """Return what each slot is; `extra` is asked for opcodes that the table does not know.

    Raises:  InputError for an unknown opcode or half of an LD_IMM64.
    """
    ops: list[Op | None] = []
    wide = False
    for pc, insn in enumerate(insns):
        if wide:
            if insn.code:
                raise InputError(f"opcode {insn.code:#04x} inside LD_IMM64", where=f"pc {pc}", hint="its code is 0")
            ops.append(None)
            wide = False
            continue
        op = op_of(insn.code, insn.src, insn.off, insn.imm) or extra(insn)
        if op is None:
            raise InputError(f"unknown opcode {insn.code:#04x}", where=f"pc {pc}")
        ops.append(op)
        wide = op.kind is Kind.LD_IMM64
    if wide:
        raise InputError("LD_IMM64 without its second slot", where=f"pc {len(insns) - 1}")
    return ops


def target(pc: int, insn: Insn, op: Op) -> int:
    """Return where the jump or local call at `pc` goes."""
    return pc + 1 + (insn.imm if op.long or op.kind is Kind.CALL_LOCAL else insn.off)


def successors(pc: int, insn: Insn, op: Op) -> tuple[int, ...]:
    """Return the slots that may run after the one at `pc`: the fall through first."""
    if op.kind is Kind.EXIT:
        return ()
    if op.kind is Kind.JA:
        return (target(pc, insn, op),)
    after = pc + (2 if op.kind is Kind.LD_IMM64 else 1)
    if op.kind in (Kind.JUMP, Kind.MAY_GOTO):
        return after, target(pc, insn, op)
    return (after,)


def blocks_of(insns: Sequence[Insn], ops: Slots, entry: int, live: Callable[[int], bool] = lambda pc: True) -> list[Block]:
    """Return the blocks of the function at `entry`, that one first, then by pc; edges to what is not live are left out.

    Raises:  InputError when a path leaves the program or enters the middle of an LD_IMM64.
    """
    after: dict[int, tuple[int, ...]] = {}
    leaders = {entry}
    todo = [entry]
    while todo:
        pc = todo.pop()
        if pc in after:
            continue
        op = ops[pc] if 0 <= pc < len(ops) else None
        if op is None:
            raise InputError(
                "a path leaves the program" if not 0 <= pc < len(ops) else "a path enters LD_IMM64",
                where=f"pc {pc}",
                hint="end it with exit",
            )
        succ = tuple(s for s in successors(pc, insns[pc], op) if live(s))
        after[pc] = succ
        if op.kind in ENDS:
            leaders.update(succ)
        todo.extend(succ)
    return sorted((_block(start, after, leaders) for start in leaders), key=lambda b: (b.start != entry, b.start))


def _block(start: int, after: dict[int, tuple[int, ...]], leaders: set[int]) -> Block:
    pc = start
    while len(after[pc]) == 1 and after[pc][0] > pc and after[pc][0] not in leaders:
        pc = after[pc][0]
    return Block(start, pc + 1, after[pc])

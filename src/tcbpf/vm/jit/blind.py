"""Constant blinding: no constant that a program's author chose stands in the machine code.

Each immediate becomes two instructions on AX, the hidden register r11: `AX = imm ^ key; AX ^= key`, with a key of its own, and
the instruction then takes AX. The engine hides what is moved into AX from its optimiser, so that the two cannot be folded.

Source:  kernel/bpf/core.c, bpf_jit_blind_insn() and bpf_jit_blind_constants() (v6.18). Paper, "Security".
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tcbpf.errors import NotSupported
from tcbpf.isa.insn import Insn
from tcbpf.tables.insns import Kind, Op
from tcbpf.tables.opcodes import ADD, ALU32, ALU64, IND, LSH, MODE, MOV, OR, PSEUDO_FUNC, RSH, ST, STX, XOR, K, X
from tcbpf.verifier.verified import Subprog
from tcbpf.vm.cfg import slots_of

AX = 11
_MOV64, _XOR64, _LSH64, _RSH64 = (ALU64 | K | operation for operation in (MOV, XOR, LSH, RSH))
_ADD64, _OR64 = ALU64 | X | ADD, ALU64 | X | OR
_MOV32, _XOR32 = ALU32 | K | MOV, ALU32 | K | XOR


def _key() -> int:
    return secrets.randbits(32) - (1 << 31)


@dataclass(frozen=True, slots=True)
class Blinded:
    """The new slots, and for each the slot of the program that it stands for."""

    insns: tuple[Insn, ...]
    origin: tuple[int, ...]
    start: tuple[int, ...]  # where each of the program's slots went; one more for the end

    def moved(self, subprog: Subprog) -> Subprog:
        """Return a subprogram with its bounds among the new slots."""
        return replace(subprog, start=self.start[subprog.start], end=self.start[subprog.end])


def blind(insns: Sequence[Insn], key: Callable[[], int] = _key) -> Blinded:
    """Return `insns` blinded; `key` gives signed 32-bit random numbers.

    Raises:  NotSupported when a jump no longer reaches.
    """
    ops = slots_of(insns)
    groups: list[list[Insn]] = []
    for pc, (insn, op) in enumerate(zip(insns, ops, strict=True)):
        groups.append([] if op is None else _blind(insn, op, insns[pc + 1] if op.kind is Kind.LD_IMM64 else None, key))
    start = [0]
    for group in groups:
        start.append(start[-1] + len(group))
    out: list[Insn] = []
    origin: list[int] = []
    for pc, (group, op) in enumerate(zip(groups, ops, strict=True)):
        if op is None:
            continue
        origin += [pc] * len(group)
        if op.kind is Kind.LD_IMM64 and group[0].src == PSEUDO_FUNC:
            out += [group[0]._replace(imm=start[pc + 1 + insns[pc].imm] - start[pc] - 1), group[1]]
        else:
            out += [*group[:-1], _aimed(pc, group[-1], op, start)]
    return Blinded(tuple(out), tuple(origin), tuple(start))


def _aimed(pc: int, insn: Insn, op: Op, start: Sequence[int]) -> Insn:
    """Return the last instruction of a group with its target among the new slots."""
    wide = op.long or op.kind is Kind.CALL_LOCAL  # the distance is in imm
    if not (wide or op.kind in (Kind.JUMP, Kind.JA, Kind.MAY_GOTO)):
        return insn
    distance = insn.imm if wide else insn.off
    moved = start[pc + 1 + distance] - start[pc + 1]
    if not wide and not -(1 << 15) <= moved < 1 << 15:
        raise NotSupported(f"pc {pc}: a blinded jump of {moved} instructions does not fit 16 bits")
    return insn._replace(imm=moved) if wide else insn._replace(off=moved)


def _blind(insn: Insn, op: Op, second: Insn | None, key: Callable[[], int]) -> list[Insn]:
    """Return the group that stands for one instruction; the last of it is the instruction proper."""
    if second is not None:
        return _blind_wide(insn, second, key)
    if op.kind is Kind.ALU and not op.use_reg and not getattr(op.row, "unary", True):
        return [*_hidden(insn.imm, key, op.width), insn._replace(code=insn.code | X, src=AX, imm=0)]
    if op.kind is Kind.JUMP and not op.use_reg:
        return [*_hidden(insn.imm, key, op.width), insn._replace(code=insn.code | X, src=AX, imm=0)]
    if op.kind is Kind.STORE and not op.use_reg:
        return [*_hidden(insn.imm, key), Insn(insn.code - ST + STX, insn.dst, AX, insn.off)]
    if op.kind is Kind.LD_ABS:
        return [*_hidden(insn.imm, key), Insn(insn.code & ~MODE | IND, 0, AX)]
    if op.kind is Kind.LD_IND:
        return [*_hidden(insn.imm, key), Insn(_ADD64, AX, insn.src), Insn(insn.code, 0, AX)]
    return [insn]


def _hidden(value: int, key: Callable[[], int], width: int = 64) -> list[Insn]:
    """Return `AX = value ^ k; AX ^= k`; both sign-extend to 64 bits, so their exclusive or is `value` sign-extended."""
    k = key()
    mov, xor = (_MOV64, _XOR64) if width == 64 else (_MOV32, _XOR32)
    return [Insn(mov, AX, imm=_signed(value ^ k)), Insn(xor, AX, imm=k)]


def _signed(value: int) -> int:
    return ((value & 0xFFFFFFFF) ^ 1 << 31) - (1 << 31)


def _blind_wide(insn: Insn, second: Insn, key: Callable[[], int]) -> list[Insn]:
    """Return the group for an LD_IMM64: a number in two halves; the offset into a map's value; a function as it is."""
    if insn.src == PSEUDO_FUNC:
        return [insn, second]
    if insn.src:
        bare = [insn, second._replace(imm=0)]
        if not second.imm:
            return bare
        upper = [*_hidden(second.imm, key), Insn(_LSH64, AX, imm=32), Insn(_RSH64, AX, imm=32)]
        return [*bare, *upper, Insn(_ADD64, insn.dst, AX)]
    return [
        *_hidden(second.imm, key),
        Insn(_LSH64, AX, imm=32),
        Insn(_MOV64 | X, insn.dst, AX),
        *_hidden(insn.imm, key, 32),
        Insn(_OR64, insn.dst, AX),
    ]

"""One step of the classic machine: a state to the next, as a value, so that a debugger can go back.

Source:  Documentation/networking/filter.rst; __bpf_prog_run() of the converted program (v6.12) for what ends a program.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tcbpf.cbpf.insn import Classic
from tcbpf.isa.concrete import Concrete
from tcbpf.tables.cbpf import ALU_XOR_X, CLASSIC, EXTENSIONS, MEM_WORDS, SKF_AD_OFF, SKF_LL_OFF, SKF_NET_OFF, U32, Form, Mode
from tcbpf.tables.insns import ALU, JUMP
from tcbpf.tables.opcodes import ALU32, CLASS, OPERATION
from tcbpf.uapi.packet import ETH_HLEN

_WORDS = Concrete(32)

Extension = Callable[[str, int, int], int | None]
"""Reads an extension by its word, given A and X; None ends the program with what A holds, as the kernel does for a
packet that has no device."""


@dataclass(frozen=True, slots=True)
class State:
    """The machine between two instructions. `result` is set when it has returned.

    Units:   pc counts instructions; read is the packet bytes that the last step looked at (offset and size), or None.
    """

    pc: int = 0
    a: int = 0
    x: int = 0
    m: tuple[int, ...] = (0,) * MEM_WORDS
    result: int | None = None
    read: tuple[int, int] | None = None


def no_extension(word: str, a: int, x: int) -> int | None:
    """Read 0 for every extension, as of a packet without metadata."""
    return 0


def step(
    program: Sequence[Classic], packet: bytes, state: State, extension: Extension = no_extension, *, wire_len: int = 0
) -> State:
    """Return the state after the instruction at state.pc; `program` has passed check().

    Units:   wire_len in bytes, what a length load reads of a packet that was not captured whole; 0 for all of it.
    """
    insn = program[state.pc]
    row = CLASSIC.at(insn.code)
    assert row is not None and state.result is None
    after = replace(state, pc=state.pc + 1, read=None)
    if row.name == "ret":
        return replace(after, pc=state.pc, result=state.a if row.mode is Mode.REG_A else insn.k)
    if row.mode is Mode.LABEL:
        return replace(after, pc=(after.pc + insn.k) & U32)
    if row.branch:
        operand = state.x if row.mode is Mode.REG_X else insn.k
        condition = JUMP.at((row.code & OPERATION) >> 4)
        assert condition is not None
        return replace(after, pc=after.pc + (insn.jt if condition.fn(_WORDS, state.a, operand) else insn.jf))
    if row.name == "tax":
        return replace(after, x=state.a)
    if row.name == "txa":
        return replace(after, a=state.x)
    if row.code & CLASS == ALU32:
        return _alu(row, insn, state, after)
    return _move(row, insn, packet, after, extension, wire_len or len(packet))


def run(program: Sequence[Classic], packet: bytes, extension: Extension = no_extension) -> int:
    """Return what `program` returns for `packet`."""
    state = State()
    while state.result is None:
        state = step(program, packet, state, extension)
    return state.result


def _alu(row: Form, insn: Classic, state: State, after: State) -> State:
    operand = state.x if row.mode is Mode.REG_X else insn.k
    if row.name in ("div", "mod") and operand == 0:
        return replace(after, pc=state.pc, result=0)
    operation = ALU.at(((row.code & OPERATION) >> 4, 0))
    assert operation is not None
    return replace(after, a=operation.fn(_WORDS, state.a, operand))


def _move(row: Form, insn: Classic, packet: bytes, after: State, extension: Extension, length: int) -> State:
    """Do a load or a store."""
    to_x = row.name in ("ldx", "ldxb")
    match row.mode:
        case Mode.MEM if row.name in ("st", "stx"):
            value = after.x if row.name == "stx" else after.a
            return replace(after, m=(*after.m[: insn.k], value, *after.m[insn.k + 1 :]))
        case Mode.MEM:
            value = after.m[insn.k]
        case Mode.IMM:
            value = insn.k
        case Mode.LEN:
            value = length
        case Mode.ABS if insn.k >= SKF_AD_OFF:
            return _extend(insn.k - SKF_AD_OFF, after, extension)
        case _:
            return _load(row, insn, packet, after)
    return replace(after, x=value) if to_x else replace(after, a=value)


def _extend(off: int, after: State, extension: Extension) -> State:
    if off == ALU_XOR_X:
        return replace(after, a=after.a ^ after.x)
    row = EXTENSIONS.at(off)
    assert row is not None
    value = extension(row.name, after.a, after.x)
    return replace(after, pc=after.pc - 1, result=after.a) if value is None else replace(after, a=value & U32)


def _load(row: Form, insn: Classic, packet: bytes, after: State) -> State:
    """Load from the packet; out of range ends the program with 0."""
    off = packet_offset((insn.k + after.x) & U32 if row.mode is Mode.IND else insn.k)
    if off < 0 or off + row.size > len(packet):
        return replace(after, pc=after.pc - 1, result=0)
    value = int.from_bytes(packet[off : off + row.size], "big")
    after = replace(after, read=(off, row.size))
    return replace(after, x=(value & 0xF) << 2) if row.mode is Mode.MSH else replace(after, a=value)


def packet_offset(k: int) -> int:
    """Return where in an Ethernet frame a load at `k` reads, or -1; SKF_LL_OFF counts from the frame, SKF_NET_OFF behind it."""
    if k < SKF_LL_OFF:
        return k if k < 0x80000000 else -1
    return k - SKF_NET_OFF + ETH_HLEN if k >= SKF_NET_OFF else k - SKF_LL_OFF

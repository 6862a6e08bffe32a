"""Classic to extended BPF, as the kernel converts before it runs a classic filter.

A is r0, X is r7, the context r6; M lies in the upper 64 bytes of the stack; r2 is scratch. A and X are always zero-extended.

Source:  bpf_convert_filter(), convert_bpf_extensions(), net/core/filter.c (v6.12). Paper, "eBPF Architecture".
Differs: where the kernel reads struct sk_buff, this reads struct __sk_buff; A and X are zeroed by moves; instructions that no
         path reaches are left out: so that the verifier can judge the result like any other program.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tcbpf.cbpf.insn import Classic, targets
from tcbpf.cbpf.rules import check
from tcbpf.isa.insn import Insn
from tcbpf.obj.program import Program
from tcbpf.tables import opcodes as bpf
from tcbpf.tables.cbpf import ALU_XOR_X, CLASSIC, EXTENSIONS, SKF_AD_OFF, Form, Mode
from tcbpf.tables.helpers import CONVERTED, HELPERS
from tcbpf.tables.insns import JUMP
from tcbpf.tables.skb import SKB

A, TMP, CTX, X, FP = 0, 2, 6, 7, 10

_FIELDS = {
    "proto": "protocol",
    "type": "pkt_type",
    "ifidx": "ifindex",
    "mark": "mark",
    "queue": "queue_mapping",
    "rxhash": "hash",
    "vlan_tci": "vlan_tci",
    "vlan_avail": "vlan_present",
    "vlan_tpid": "vlan_proto",
}
"""Extensions that are a load of a context field; those held in network order are swapped."""

_CALLS = {
    "cpu": "get_smp_processor_id",
    "rand": "get_prandom_u32",
    "poff": "classic_pay_offset",
    "nla": "classic_nlattr",
    "nlan": "classic_nlattr_nest",
    "hatype": "classic_hatype",
}
"""Extensions that are a call."""

_OF_DEVICE = ("ifidx", "hatype")
"""Extensions that end the program, with what A holds, for a packet that has no device."""

_OPPOSITE = {"jeq": "JNE", "jgt": "JLE", "jge": "JLT"}


@dataclass(frozen=True, slots=True)
class Converted:
    """A converted program; `origin[pc]` is the classic instruction that the slot comes from, -1 for the prologue."""

    insns: tuple[Insn, ...]
    origin: tuple[int, ...]


def convert(program: Sequence[Classic], *, length: str = "len", loops: bool = False) -> Converted:
    """Return the extended program of a classic one; `length` is the context field that its length loads read.

    With `loops` a jump may go backwards, as those of protochain do; no packet is so long that they exhaust may_goto.

    Raises:  FilterError when the classic one would not load.
    """
    check(program, loops=loops)
    live = _reachable(program)
    blocks = [_block(insn, length) if pc in live else [] for pc, insn in enumerate(program)]
    starts = [3]
    for pc, block in enumerate(blocks):
        starts.append(starts[pc] + len(block) + (_jump_size(program[pc], pc) if pc in live else 0))
    insns = [_mov(A, 0), _mov(X, 0), Insn(bpf.ALU64 | bpf.MOV | bpf.X, CTX, 1)]
    origin = [-1] * 3
    for pc in sorted(live):
        insns += blocks[pc]
        insns += _jumps(program[pc], pc, starts, len(insns))
        origin += [pc] * (len(insns) - len(origin))
    return Converted(tuple(insns), tuple(origin))


def _reachable(program: Sequence[Classic]) -> set[int]:
    """Return the reachable instructions."""
    live, ahead = set[int](), [0]
    while ahead:
        pc = ahead.pop()
        if pc in live:
            continue
        live.add(pc)
        row = CLASSIC.at(program[pc].code)
        assert row is not None
        if row.name != "ret":
            ahead += targets(pc, program[pc]) or (pc + 1,)
    return live


def as_program(
    program: Sequence[Classic],
    *,
    type: str = "socket_filter",
    name: str = "filter",
    length: str = "len",
    loops: bool = False,
) -> Program:
    """Return a classic filter as a Program that any datapath loads; `length` and `loops` as for convert()."""
    insns = convert(program, length=length, loops=loops).insns
    return Program(name=name, type=type, insns=insns, license="GPL", classic=True)


def over_capture(program: Sequence[Classic]) -> Program:
    """Return a classic filter as a program over captures, which sees whole frames and their lengths on the wire.

    A socket_filter program sees what is behind the link header in the kernel's test run, and no length but its own.

    Differs: a shift by an X of more than 31 takes five bits of it, as the kernel's does; tcpdump -r shifts everything out.
    """
    return as_program(program, type="sched_cls", length="wire_len", loops=True)


def _mov(reg: int, k: int) -> Insn:
    """Return a 32-bit move, which zero-extends."""
    return Insn(bpf.ALU32 | bpf.MOV, reg, imm=_imm(k))


def _imm(k: int) -> int:
    return k - (1 << 32) if k >> 31 else k


def _mem_off(k: int) -> int:
    return -4 * (k + 1)


def _block(insn: Classic, length: str) -> list[Insn]:
    """Return the extended form of one instruction, without its jumps."""
    row = CLASSIC.at(insn.code)
    assert row is not None
    if row.name == "ret":
        return [*([] if row.mode is Mode.REG_A else [_mov(A, insn.k)]), Insn(bpf.JMP | bpf.EXIT)]
    if row.name in ("tax", "txa"):
        return [Insn(bpf.ALU32 | bpf.MOV | bpf.X, *((X, A) if row.name == "tax" else (A, X)))]
    if row.code & bpf.CLASS == bpf.ALU32:
        return _alu(row, insn)
    if row.branch:
        negative = row.mode is Mode.IMM and insn.k >> 31
        return [_mov(TMP, insn.k)] if negative else []
    if row.mode is Mode.LABEL:
        return []
    return _load_store(row, insn, length)


def _alu(row: Form, insn: Classic) -> list[Insn]:
    """Return an ALU operation; division by a zero X ends the program with 0."""
    if row.mode is not Mode.REG_X:
        return [Insn(insn.code, A, imm=_imm(insn.k) if row.mode is Mode.IMM else 0)]
    operation = Insn(insn.code, A, X)
    if row.name not in ("div", "mod"):
        return [operation]
    return [Insn(bpf.JMP | bpf.JNE, X, off=2), _mov(A, 0), Insn(bpf.JMP | bpf.EXIT), operation]


def _load_store(row: Form, insn: Classic, length: str) -> list[Insn]:
    register = X if row.name in ("ldx", "ldxb", "stx") else A
    match row.mode:
        case Mode.IMM:
            return [_mov(register, insn.k)]
        case Mode.LEN:
            return [Insn(bpf.LDX | bpf.MEM | bpf.W, register, CTX, SKB[length].off)]
        case Mode.MEM if row.name in ("st", "stx"):
            return [Insn(bpf.STX | bpf.MEM | bpf.W, FP, register, _mem_off(insn.k))]
        case Mode.MEM:
            return [Insn(bpf.LDX | bpf.MEM | bpf.W, register, FP, _mem_off(insn.k))]
        case Mode.MSH:
            return [
                Insn(bpf.ALU64 | bpf.MOV | bpf.X, X, A),
                Insn(bpf.LD | bpf.ABS | bpf.B, imm=_imm(insn.k)),
                Insn(bpf.ALU32 | bpf.AND, A, imm=0xF),
                Insn(bpf.ALU32 | bpf.LSH, A, imm=2),
                Insn(bpf.ALU64 | bpf.MOV | bpf.X, TMP, X),
                Insn(bpf.ALU64 | bpf.MOV | bpf.X, X, A),
                Insn(bpf.ALU64 | bpf.MOV | bpf.X, A, TMP),
            ]
        case Mode.IND:
            return [Insn(insn.code, src=X, imm=_imm(insn.k))]
        case _:
            return _extension(insn) if insn.k >= SKF_AD_OFF else [Insn(insn.code, imm=_imm(insn.k))]


def _extension(insn: Classic) -> list[Insn]:
    off = insn.k - SKF_AD_OFF
    if off == ALU_XOR_X:
        return [Insn(bpf.ALU32 | bpf.XOR | bpf.X, A, X)]
    row = EXTENSIONS.at(off)
    assert row is not None  # check() saw it
    before = (
        [
            Insn(bpf.LDX | bpf.MEM | bpf.W, TMP, CTX, SKB["ifindex"].off),
            Insn(bpf.JMP | bpf.JNE, TMP, off=1),
            Insn(bpf.JMP | bpf.EXIT),
        ]
        if row.name in _OF_DEVICE
        else []
    )
    if row.name in _FIELDS:
        field = SKB[_FIELDS[row.name]]
        swap = [Insn(bpf.ALU32 | bpf.X | bpf.END, A, imm=16)] if field.big_endian else []
        return [*before, Insn(bpf.LDX | bpf.MEM | bpf.W, A, CTX, field.off), *swap]
    call = _CALLS[row.name]
    return [
        *before,
        Insn(bpf.ALU64 | bpf.MOV | bpf.X, 1, CTX),
        Insn(bpf.ALU64 | bpf.MOV | bpf.X, 2, A),
        Insn(bpf.ALU64 | bpf.MOV | bpf.X, 3, X),
        Insn(bpf.JMP | bpf.CALL, imm=(HELPERS.get(call) or CONVERTED[call]).id),
    ]


def _jump_size(insn: Classic, pc: int) -> int:
    """Return how many slots _jumps() gives."""
    row = CLASSIC.at(insn.code)
    assert row is not None
    if row.mode is Mode.LABEL:
        return 1 if targets(pc, insn)[0] > pc else 4
    if not row.branch:
        return 0
    return 1 if insn.jf == 0 or (insn.jt == 0 and row.name in _OPPOSITE) else 2


def _jumps(insn: Classic, pc: int, starts: Sequence[int], at: int) -> list[Insn]:
    """Return the jumps that end `insn`, the first of which lies at slot `at`."""
    row = CLASSIC.at(insn.code)
    assert row is not None
    if row.mode is Mode.LABEL:
        (to,) = targets(pc, insn)
        if to > pc:
            return [Insn(bpf.JMP, off=starts[to] - at - 1)]
        back = Insn(bpf.JMP, off=starts[to] - at - 2)
        return [Insn(bpf.JMP | bpf.JCOND, off=1), back, _mov(A, 0), Insn(bpf.JMP | bpf.EXIT)]
    if not row.branch:
        return []
    in_register = row.mode is Mode.REG_X or insn.k >> 31
    source = bpf.X if in_register else 0
    fields = (A, X if row.mode is Mode.REG_X else TMP) if in_register else (A, 0)
    imm = 0 if in_register else insn.k
    true, false = starts[pc + 1 + insn.jt], starts[pc + 1 + insn.jf]
    if insn.jt == 0 and insn.jf and row.name in _OPPOSITE:
        code = bpf.JMP | JUMP[_OPPOSITE[row.name]].code << 4 | source
        return [Insn(code, *fields, false - at - 1, imm)]
    taken = Insn(bpf.JMP | row.code & bpf.OPERATION | source, *fields, true - at - 1, imm)
    return [taken] if insn.jf == 0 else [taken, Insn(bpf.JMP, off=false - at - 2)]

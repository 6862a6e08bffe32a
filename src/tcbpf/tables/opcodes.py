"""How an opcode is built: classes, sizes, modes, sources and operations, and what src means where it is no register.

An opcode is one byte: `class | size | mode` for memory, `class | source | operation` for ALU and jumps. Nothing else in
the package spells these numbers: instructions have rows in tables.insns, and readers switch on a row or on a name from here.

Source:  RFC 9669, 3 to 5; include/uapi/linux/bpf.h (v6.18).
"""

from __future__ import annotations

CLASS, SIZE, MODE, OPERATION = 0x07, 0x18, 0xE0, 0xF0          # masks of an opcode's parts

LD, LDX, ST, STX, ALU32, JMP, JMP32, ALU64 = range(8)          # the classes
W, H, B, DW = 0x00, 0x08, 0x10, 0x18                           # sizes
IMM, ABS, IND, MEM, MEMSX, ATOMIC = 0x00, 0x20, 0x40, 0x60, 0x80, 0xC0     # modes
K, X = 0x00, 0x08                                              # the operand is imm; it is src

ADD, SUB, MUL, DIV, OR, AND, LSH, RSH, NEG, MOD, XOR, MOV, ARSH, END = range(0x00, 0xE0, 0x10)     # of ALU32 and ALU64
JA, JEQ, JGT, JGE, JSET, JNE, JSGT, JSGE, CALL, EXIT, JLT, JLE, JSLT, JSLE, JCOND = range(0x00, 0xF0, 0x10)     # of JMP

SIZE_BYTES = {W: 4, H: 2, B: 1, DW: 8}
SIZE_CODE = {4: W, 2: H, 1: B, 8: DW}

LD_IMM64 = LD | DW | IMM                                       # the one instruction of two slots
MAX_REG = 10                                                   # r10 is the frame pointer, read-only

PSEUDO_CALL, PSEUDO_KFUNC_CALL = 1, 2                          # src of CALL
# src of LD_IMM64:
PSEUDO_MAP_FD, PSEUDO_MAP_VALUE, PSEUDO_BTF_ID, PSEUDO_FUNC, PSEUDO_MAP_IDX, PSEUDO_MAP_IDX_VALUE = range(1, 7)

MAX_INSNS = 1_000_000                                          # slots of a program, and instructions that a proof may process
MAX_INSNS_UNPRIVILEGED = 4096                                  # BPF_MAXINSNS: slots without CAP_BPF, and of a classic filter

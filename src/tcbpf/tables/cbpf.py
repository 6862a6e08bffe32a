"""Classic BPF: its instructions, the mnemonics that write them and the Linux extensions, one row each.

Source:  include/uapi/linux/{bpf_common,filter}.h; Documentation/networking/filter.rst; bpf_check_classic(),
         net/core/filter.c (v6.12). Paper, "Introduction".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from tcbpf.tables.row import Table

LD, LDX, ST, STX, ALU, JMP, RET, MISC = range(8)
X = 0x08
MAX_INSNS = 4096
MEM_WORDS = 16
U32 = 0xFFFFFFFF
SKF_AD_OFF, SKF_NET_OFF, SKF_LL_OFF = -0x1000 & U32, -0x100000 & U32, -0x200000 & U32


class Mode(Enum):
    """How an instruction says its operand, in bpf_asm's notation."""

    NONE = ""
    REG_X = "x"
    REG_A = "a"
    IMM = "#k"
    ABS = "[k]"
    IND = "[x+k]"
    MEM = "M[k]"
    MSH = "4*([k]&0xf)"
    LEN = "#len"
    LABEL = "L"


@dataclass(frozen=True, slots=True)
class Form:
    """One instruction: opcode, mnemonic and addressing mode.

    Units:   code is 16 bits; branch tells that jt and jf count; size is the bytes a packet load reads.
    Differs: RET X has an opcode and a mnemonic, and no kernel loads it (`loads` is False).
    """

    name: str
    mode: Mode
    code: int
    branch: bool = False
    size: int = 0
    loads: bool = True


def _binary(name: str, op: int) -> tuple[Form, Form]:
    return Form(name, Mode.IMM, ALU | op), Form(name, Mode.REG_X, ALU | op | X)


def _branch(name: str, op: int) -> tuple[Form, Form]:
    return Form(name, Mode.IMM, JMP | op, branch=True), Form(name, Mode.REG_X, JMP | op | X, branch=True)


CLASSIC = Table(
    Form("ld", Mode.IMM, 0x00),
    Form("ld", Mode.ABS, 0x20, size=4),
    Form("ldh", Mode.ABS, 0x28, size=2),
    Form("ldb", Mode.ABS, 0x30, size=1),
    Form("ld", Mode.IND, 0x40, size=4),
    Form("ldh", Mode.IND, 0x48, size=2),
    Form("ldb", Mode.IND, 0x50, size=1),
    Form("ld", Mode.MEM, 0x60),
    Form("ld", Mode.LEN, 0x80),
    Form("ldx", Mode.IMM, 0x01),
    Form("ldx", Mode.MEM, 0x61),
    Form("ldx", Mode.LEN, 0x81),
    Form("ldxb", Mode.MSH, 0xB1, size=1),
    Form("st", Mode.MEM, 0x02),
    Form("stx", Mode.MEM, 0x03),
    *_binary("add", 0x00), *_binary("sub", 0x10), *_binary("mul", 0x20), *_binary("div", 0x30), *_binary("mod", 0x90),
    *_binary("or", 0x40), *_binary("and", 0x50), *_binary("xor", 0xA0), *_binary("lsh", 0x60), *_binary("rsh", 0x70),
    Form("neg", Mode.NONE, 0x84),
    Form("ja", Mode.LABEL, 0x05),
    *_branch("jeq", 0x10), *_branch("jgt", 0x20), *_branch("jge", 0x30), *_branch("jset", 0x40),
    Form("ret", Mode.IMM, 0x06),
    Form("ret", Mode.REG_A, 0x16),
    Form("ret", Mode.REG_X, 0x0E, loads=False),
    Form("tax", Mode.NONE, 0x07),
    Form("txa", Mode.NONE, 0x87),
    name=lambda row: f"{row.name} {row.mode.value}".rstrip(),
    number=lambda row: row.code,
)


@dataclass(frozen=True, slots=True)
class Mnemonic:
    """A word that starts an instruction of name `of`: its opposite when `inverted`, and only its #k form when `immediate`."""

    word: str
    of: str
    inverted: bool = False
    immediate: bool = False


MNEMONICS = Table(
    *(Mnemonic(word, word) for word in dict.fromkeys(row.name for row in CLASSIC)),
    Mnemonic("ldi", "ld", immediate=True),
    Mnemonic("ldxi", "ldx", immediate=True),
    Mnemonic("jmp", "ja"),
    Mnemonic("jne", "jeq", inverted=True),
    Mnemonic("jneq", "jeq", inverted=True),
    Mnemonic("jlt", "jge", inverted=True),
    Mnemonic("jle", "jgt", inverted=True),
    name=lambda row: row.word,
    number=lambda row: row.word,
)


@dataclass(frozen=True, slots=True)
class Extension:
    """A Linux extension: a load at SKF_AD_OFF + `off` that reads packet metadata instead of bytes.

    `alias` is an older word; `expr` is what the kernel reads, in the words of struct sk_buff.
    """

    name: str
    off: int
    expr: str
    alias: str = ""


EXTENSIONS = Table(
    Extension("proto", 0, "ntohs(skb->protocol)"),
    Extension("type", 4, "skb->pkt_type"),
    Extension("poff", 52, "payload offset, by the flow dissector"),
    Extension("ifidx", 8, "skb->dev->ifindex"),
    Extension("nla", 12, "offset of netlink attribute X at or after A"),
    Extension("nlan", 16, "offset of nested netlink attribute X in the one at A"),
    Extension("mark", 20, "skb->mark"),
    Extension("queue", 24, "skb->queue_mapping"),
    Extension("hatype", 28, "skb->dev->type"),
    Extension("rxhash", 32, "skb->hash"),
    Extension("cpu", 36, "raw_smp_processor_id()"),
    Extension("vlan_tci", 44, "skb_vlan_tag_get(skb)"),
    Extension("vlan_avail", 48, "skb_vlan_tag_present(skb)", alias="vlan_pr"),
    Extension("vlan_tpid", 60, "ntohs(skb->vlan_proto)"),
    Extension("rand", 56, "get_random_u32()"),
    name=lambda row: row.name,
    number=lambda row: row.off,
)
"""Fifteen; with `len`, which is an addressing mode of its own, the sixteen that bpf_asm has words for."""

ALU_XOR_X = 40
"""SKF_AD_ALU_XOR_X: A ^= X as an extension load; it has no word."""

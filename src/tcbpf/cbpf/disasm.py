"""Classic instructions to text: bpf_asm's, which assembles back, and the listing that tcpdump -d prints.

Source:  bpf_image(), libpcap 1.10, for the listing.
Differs: the listing has `ret a`, `ret x` and `ldx #pktlen`, which libpcap prints without an operand or as unimp.
"""

from __future__ import annotations

from collections.abc import Sequence

from tcbpf.cbpf.insn import Classic, targets
from tcbpf.tables.cbpf import ALU_XOR_X, CLASSIC, EXTENSIONS, SKF_AD_OFF, U32, Mode
from tcbpf.tables.opcodes import CLASS, JMP, OPERATION

_HEX = {"ld", "ldx", "and", "or", "xor"}
"""Mnemonics whose immediate the listing prints in hex; jumps too."""


_LISTED = {row.off: row.name for row in EXTENSIONS} | {
    EXTENSIONS["rand"].off: "random",
    EXTENSIONS["vlan_avail"].off: "vlanp",
    ALU_XOR_X: "xor_x",
}
"""What the listing calls the extensions, by offset."""


def _extension(row_size: int, k: int) -> str:
    """Return the extension's word when `k` is a load of one."""
    known = EXTENSIONS.at((k - SKF_AD_OFF) & U32) if row_size else None
    return known.name if known else ""


def operand(insn: Classic, *, hex_immediate: bool, spaced: bool) -> str:
    """Return the operand of an instruction that has a row, without jump targets."""
    row = CLASSIC.at(insn.code)
    assert row is not None
    k = insn.k
    match row.mode:
        case Mode.IMM:
            return f"#{k:#x}" if hex_immediate else f"#{k}"
        case Mode.ABS:
            return f"[{k}]"
        case Mode.IND:
            return f"[x + {k}]" if spaced else f"[x+{k}]"
        case Mode.MEM:
            return f"M[{k}]"
        case Mode.MSH:
            return f"4*([{k}]&0xf)"
        case Mode.LEN:
            return "#pktlen" if spaced else "#len"
        case Mode.REG_X:
            return "x"
        case Mode.REG_A:
            return "a"
        case _:
            return ""


def listing(program: Sequence[Classic]) -> str:
    """Return what `tcpdump -d` prints, a line an instruction."""
    return "".join(f"{_image(pc, insn)}\n" for pc, insn in enumerate(program))


def _image(pc: int, insn: Classic) -> str:
    row = CLASSIC.at(insn.code)
    jump = f" jt {pc + 1 + insn.jt}\tjf {pc + 1 + insn.jf}"
    if row is None:
        unknown = f"({pc:03d}) {'unimp':<8} {insn.code:#x}"
        return f"{unknown:<31}{jump}" if insn.code & CLASS == JMP and insn.code & OPERATION else unknown
    if row.mode is Mode.LABEL:
        return f"({pc:03d}) {row.name:<8} {signed(pc + 1 + insn.k)}"
    hexadecimal = row.branch or row.name in _HEX
    word = _LISTED.get(insn.k - SKF_AD_OFF) if row.size and row.mode is Mode.ABS else None
    shown = insn if row.mode is Mode.IMM and hexadecimal else insn._replace(k=signed(insn.k))
    text = f"[{word}]" if word else operand(shown, hex_immediate=hexadecimal, spaced=True)
    return f"({pc:03d}) {row.name:<8} {text:<16}{jump}" if row.branch else f"({pc:03d}) {row.name:<8} {text}"


def signed(value: int) -> int:
    """Return 32 bits as C's int."""
    value &= U32
    return value - 0x100000000 if value >> 31 else value


def disassemble(program: Sequence[Classic]) -> str:
    """Return bpf_asm text, with a label before each jump's target, that assembles back to the same bytes.

    An instruction that has no mnemonic, jumps out of the program, or sets bits that no text shows (jt of a load) is a
    `.raw` line, which the assembler refuses: `check` tells why such a program does not load.
    """
    labelled = sorted({target for pc, insn in enumerate(program) for target in targets(pc, insn)})
    names = {target: f"L{target:03d}" for target in labelled}
    lines = []
    for pc, insn in enumerate(program):
        if pc in names:
            lines.append(f"{names[pc]}:")
        lines.append(f"\t{_text(pc, insn, names, len(program))}")
    return "\n".join(lines) + "\n"


def _text(pc: int, insn: Classic, names: dict[int, str], size: int) -> str:
    row = CLASSIC.at(insn.code)
    if row is None or not _says_all(insn) or any(target >= size for target in targets(pc, insn)):
        return f".raw {insn.code:#06x} {insn.jt} {insn.jf} {insn.k:#x}"
    if row.mode is Mode.LABEL:
        return f"{row.name} {names[targets(pc, insn)[0]]}"
    word = _extension(row.size, insn.k) if row.mode is Mode.ABS else ""
    shown = f"#{word}" if word else operand(insn, hex_immediate=row.branch, spaced=False)
    if row.branch:
        return f"{row.name} {shown}, " + ", ".join(names[target] for target in targets(pc, insn))
    return f"{row.name} {shown}".rstrip()


def _says_all(insn: Classic) -> bool:
    """Tell whether the text of `insn` is lossless: fields that its mode does not use are zero."""
    row = CLASSIC.at(insn.code)
    assert row is not None
    no_jumps = row.branch or not (insn.jt or insn.jf)
    uses_k = row.mode not in (Mode.NONE, Mode.REG_X, Mode.REG_A, Mode.LEN)
    return no_jumps and (uses_k or not insn.k)

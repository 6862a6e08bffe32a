"""One instruction and its text: encode, decode, assemble, disassemble."""

from tcbpf.isa.asm import Assembled, assemble, assemble_lines
from tcbpf.isa.disasm import disassemble, kernel_text, listing
from tcbpf.isa.insn import Insn, decode, encode

__all__ = ["Assembled", "Insn", "assemble", "assemble_lines", "decode", "disassemble", "encode", "kernel_text", "listing"]

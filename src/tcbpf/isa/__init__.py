"""One instruction and its text: encode, decode, assemble, disassemble."""

from tcbpf.isa.asm import assemble
from tcbpf.isa.disasm import disassemble, kernel_text, listing
from tcbpf.isa.insn import Insn, decode, encode

__all__ = ["Insn", "assemble", "decode", "disassemble", "encode", "kernel_text", "listing"]

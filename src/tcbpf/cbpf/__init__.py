"""Classic BPF: write it, read it, check it, convert it, run it."""

from tcbpf.cbpf.asm import assemble
from tcbpf.cbpf.check import check
from tcbpf.cbpf.convert import Converted, as_program, convert, over_capture
from tcbpf.cbpf.disasm import disassemble, listing
from tcbpf.cbpf.insn import Classic, Filter, from_bytes, to_bytes
from tcbpf.cbpf.text import parse, to_c, to_dd, to_decimal, to_lines

__all__ = ["Classic", "Converted", "Filter", "as_program", "assemble", "check", "convert", "disassemble", "from_bytes",
           "listing", "over_capture", "parse", "to_bytes", "to_c", "to_dd", "to_decimal", "to_lines"]

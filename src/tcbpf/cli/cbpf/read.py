"""The filter that an argument names: a file, bytecode, or an expression."""

from __future__ import annotations

import sys
from pathlib import Path

from tcbpf import cbpf
from tcbpf.cbpf.expression import compile_expression
from tcbpf.cbpf.text import is_bytecode


def read_filter(text: str, *, link_type: str | int = "EN10MB", optimize: bool = True) -> cbpf.Filter:
    """Return the program of a file of bytecode or bpf_asm text, of bytecode, or of a pcap-filter expression.

    link_type is a DLT name or a capture's number.

    Raises:  InputError, AsmError.
    """
    path = "<stdin>" if text == "-" else text
    if text == "-" or ("\0" not in text and len(text) < 4096 and Path(text).is_file()):
        text = sys.stdin.read() if text == "-" else Path(text).read_text(errors="replace")
        return cbpf.parse(text, path=path) if is_bytecode(text) else cbpf.assemble(text, path=path)
    if is_bytecode(text) and "," in text:
        return cbpf.parse(text)
    return compile_expression(text, link_type=link_type, optimize=optimize)

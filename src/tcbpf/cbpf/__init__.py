"""Classic BPF: write it, read it, check it, convert it, put it on a socket.

Names are imported when they are first used: none of a room's modules is called as one of its names.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tcbpf.cbpf.asm import assemble
    from tcbpf.cbpf.conversion import Converted, as_program, convert, over_capture
    from tcbpf.cbpf.disasm import disassemble, listing
    from tcbpf.cbpf.expression import compile_expression
    from tcbpf.cbpf.insn import Classic, Filter, from_bytes, to_bytes
    from tcbpf.cbpf.rules import check
    from tcbpf.cbpf.sockets import attach, detach
    from tcbpf.cbpf.text import parse, to_c, to_dd, to_decimal, to_lines

_HOME = {
    "assemble": "asm", "check": "rules", "compile_expression": "expression",
    **dict.fromkeys(("Converted", "as_program", "convert", "over_capture"), "conversion"),
    **dict.fromkeys(("disassemble", "listing"), "disasm"),
    **dict.fromkeys(("Classic", "Filter", "from_bytes", "to_bytes"), "insn"),
    **dict.fromkeys(("attach", "detach"), "sockets"),
    **dict.fromkeys(("parse", "to_c", "to_dd", "to_decimal", "to_lines"), "text"),
}

__all__ = ["Classic", "Converted", "Filter", "as_program", "assemble", "attach", "check", "compile_expression", "convert",
           "detach", "disassemble", "from_bytes", "listing", "over_capture", "parse", "to_bytes", "to_c", "to_dd", "to_decimal",
           "to_lines"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tcbpf.cbpf' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"tcbpf.cbpf.{_HOME[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])

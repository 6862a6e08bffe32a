"""Classic BPF: write it, read it, check it, convert it, run it, put it on a socket.

    program = cbpf.compile_expression("tcp port 80")       # or cbpf.assemble("ldh [12] ...")
    cbpf.check(program)                                     # raises where the kernel would refuse
    cbpf.run(program, packet)                               # what it returns: 0, or how many bytes to keep
    cbpf.attach(sock, program)

Names are imported when they are first used; no module here has the name of a function.
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
    from tcbpf.cbpf.sockets import attach, attach_reuseport, detach, detach_reuseport, join_fanout, lock
    from tcbpf.cbpf.step import run
    from tcbpf.cbpf.text import parse, to_c, to_dd, to_decimal, to_lines

_HOME = {
    "assemble": "asm",
    "check": "rules",
    "compile_expression": "expression",
    "run": "step",
    **dict.fromkeys(("Converted", "as_program", "convert", "over_capture"), "conversion"),
    **dict.fromkeys(("disassemble", "listing"), "disasm"),
    **dict.fromkeys(("Classic", "Filter", "from_bytes", "to_bytes"), "insn"),
    **dict.fromkeys(("attach", "attach_reuseport", "detach", "detach_reuseport", "join_fanout", "lock"), "sockets"),
    **dict.fromkeys(("parse", "to_c", "to_dd", "to_decimal", "to_lines"), "text"),
}

__all__ = [
    "Classic",
    "Converted",
    "Filter",
    "as_program",
    "assemble",
    "attach",
    "attach_reuseport",
    "check",
    "compile_expression",
    "convert",
    "detach",
    "detach_reuseport",
    "disassemble",
    "from_bytes",
    "join_fanout",
    "listing",
    "lock",
    "over_capture",
    "parse",
    "run",
    "to_bytes",
    "to_c",
    "to_dd",
    "to_decimal",
    "to_lines",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tcbpf.cbpf' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"tcbpf.cbpf.{_HOME[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])

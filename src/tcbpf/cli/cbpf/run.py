"""`tcbpf cbpf run`: a classic filter over a capture."""

from __future__ import annotations

import os
from contextlib import ExitStack

from tcbpf.cli import fast_args
from tcbpf.cli.arguments import DATAPATH, JSON, refuse_same_file
from tcbpf.datapath.choose import chosen_name, open_datapath

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import SimpleNamespace
    from typing import Any

    from tcbpf.datapath.base import Prog
    from tcbpf.datapath.capture.one_shot import OneShot
    from tcbpf.obj.program import Program

# Imports inside functions are for start-up time: a warm run needs no more than the cache and the packet loop.

ROWS = (
    {
        "filter": {
            "metavar": "FILTER",
            "help": "an expression, bytecode, or a file of bytecode or of bpf_asm text (-: standard input)",
        },
        "--link-type": {"default": "", "metavar": "TYPE", "help": "of an expression (the capture's)"},
        "-O0 -O --no-optimize": {
            "dest": "optimize",
            "action": "store_false",
            "help": "do not optimise an expression (-O: as tcpdump has it)",
        },
        "capture": {"metavar": "CAPTURE", "help": "a pcap or pcapng file"},
        "--out": {"metavar": "FILE", "help": "write the packets that match to this pcapng or .pcap"},
    }
    | JSON
    | DATAPATH
)


def read(words: Sequence[str]) -> SimpleNamespace | None:
    """Return the arguments of a plain `run` behind `cbpf`, or None."""
    return fast_args.read(words[1:], ROWS) if words[:1] == ["run"] else None


def main(args: Any) -> int:
    """Run a filter over a capture."""
    from tcbpf.datapath.capture.reader import link_type

    refuse_same_file(args.capture, args.out)
    datapath, link = chosen_name(args.datapath), link_type(args.capture)
    raw = bytecode(args.filter, args.link_type or link, args.optimize)
    with ExitStack() as stack:
        prog: OneShot | Prog | None = one_shot(raw) if datapath == "user" else None
        if prog is None:
            prog = stack.enter_context(open_datapath(datapath)).prog_load(program_of(raw))
        stack.callback(prog.close)
        stats = prog.run_pcap(args.capture, out=args.out, link_type=link)
    matches = stats.packets - stats.verdicts.get(0, 0)
    if args.json:
        import json

        print(
            json.dumps({"packets": stats.packets, "matches": matches, "bytes": stats.bytes, "duration_ns": stats.duration_ns})
        )
    else:
        from tcbpf.cli.output import rate

        print(f"{matches} of {stats.packets} packets match, {rate(stats.packets, stats.duration_ns)}")
    return 0


def bytecode(text: str, link_type: str | int, optimize: bool) -> bytes:
    """Return a filter as an array of struct sock_filter; link_type is a DLT name or a capture's number.

    Raises:  InputError, AsmError.
    """
    if not is_expression(text):
        from tcbpf.cbpf import to_bytes
        from tcbpf.cli.cbpf.read import read_filter

        return to_bytes(read_filter(text, link_type=link_type, optimize=optimize))
    from tcbpf.cbpf import expression

    name = expression.link_type_name(link_type) if isinstance(link_type, int) else link_type
    return expression.bytecode(text, link_type=name, optimize=optimize)


def is_expression(text: str) -> bool:
    """Tell whether a filter is plainly one in the words of pcap-filter(7): no file, no bytecode."""
    return (text[:1].isalpha() or text[:1] in "(!") and "," not in text and "{" not in text and not os.path.exists(text)


def program_of(raw: bytes) -> Program:
    """Return the filter as a program over captures."""
    from tcbpf.cbpf import from_bytes, over_capture

    return over_capture(from_bytes(raw))


def one_shot(raw: bytes) -> OneShot | None:
    """Return the filter as a one-shot run; None when it needs a whole datapath."""
    from tcbpf.datapath.capture.one_shot import OneShot, prepare

    prepared = prepare(b"classic " + raw, lambda: (program_of(raw), ()))
    return OneShot(prepared) if prepared else None

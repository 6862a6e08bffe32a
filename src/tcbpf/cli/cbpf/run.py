"""`tcbpf cbpf run`: a classic filter over a capture."""

from __future__ import annotations

import os
from contextlib import ExitStack

from tcbpf.cli import fast_args
from tcbpf.cli.arguments import DATAPATH, JSON, refuse_same_file
from tcbpf.datapath.choose import chosen_name, open_datapath
from tcbpf.datapath.result import whole_or_not
from tcbpf.errors import InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import SimpleNamespace
    from typing import Any

    from tcbpf.cli.fast_args import Rows
    from tcbpf.datapath.capture.one_shot import OneShot
    from tcbpf.datapath.capture.prepared import Prepared
    from tcbpf.datapath.result import PcapStats
    from tcbpf.obj.program import Program

# Imports inside functions are for start-up time: a warm run needs no more than the cache and the packet loop.

ETHERNET = 1
TYPE = "sched_cls"  # of over_capture()
RET_0 = bytes([6, 0, 0, 0, 0, 0, 0, 0])

OWN: Rows = {
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
    "capture": {"metavar": "CAPTURE", "help": "a pcap or pcapng file (-: standard input)"},
    "--out": {"metavar": "FILE", "help": "write the packets that match to this pcapng or .pcap"},
    "--limit": {"type": int, "default": 0, "metavar": "N", "help": "stop after N packets"},
}
ROWS: Rows = OWN | JSON | DATAPATH


def read(words: Sequence[str]) -> SimpleNamespace | None:
    """Return the arguments of a plain `run` behind `cbpf`, or None."""
    return fast_args.read(words[1:], ROWS) if words[:1] == ["run"] else None


def main(args: Any) -> int:
    """Run a filter over a capture."""
    refuse_same_file(args.out, args.capture, args.filter)
    datapath = chosen_name(args.datapath)
    stats, fault = whole_or_not(lambda: (one_shot if datapath == "user" else on_datapath)(args, datapath))
    matches = stats.packets - stats.verdicts.get(0, 0)
    if args.json:
        import json

        report = {"packets": stats.packets, "matches": matches, "bytes": stats.bytes, "duration_ns": stats.duration_ns}
        print(json.dumps({**report, "skipped": stats.skipped}))
    else:
        from tcbpf.cli.output import rate

        print(
            f"{matches} of {stats.packets} packets match, {rate(stats.packets, stats.duration_ns)}"
            + (f"; {stats.skipped} not run: larger or smaller than this datapath takes" if stats.skipped else "")
        )
    if fault is not None:
        raise fault
    return 0


def one_shot(args: Any, datapath: str) -> PcapStats:
    """Run over packets of any link type, the filter compiled for each one that comes."""
    from tcbpf.datapath.capture.one_shot import OneShot, run_one_shots

    with ExitStack() as stack:
        made: dict[int, OneShot] = {}
        text = bytecode(args.filter, ETHERNET, args.optimize) if args.filter == "-" else b""  # of which there is but one

        def chosen(link: int) -> OneShot:
            if link not in made:
                raw = text or bytecode(args.filter, args.link_type or link, args.optimize)
                made[link] = stack.enter_context(OneShot(prepared(raw)))
            return made[link]

        return run_one_shots(args.capture, chosen, type=TYPE, classic=True, out=args.out, limit=args.limit)


def on_datapath(args: Any, datapath: str) -> PcapStats:
    """Run over Ethernet frames."""
    raw = bytecode(args.filter, args.link_type or ETHERNET, args.optimize)
    with open_datapath(datapath) as dp, dp.prog_load(program_of(raw)) as prog:
        return prog.run_pcap(args.capture, out=args.out, limit=args.limit)


def bytecode(text: str, link_type: str | int, optimize: bool) -> bytes:
    """Return a filter as an array of struct sock_filter; link_type is a DLT name or a capture's number.

    Raises:  InputError, AsmError.
    """
    if not is_expression(text):
        from tcbpf.cbpf import to_bytes
        from tcbpf.cli.cbpf.read import read_filter

        return to_bytes(read_filter(text, link_type=link_type, optimize=optimize))
    from tcbpf.cbpf import expression

    try:
        return expression.bytecode(text, link_type=link_type, optimize=optimize)
    except InputError as error:
        if error.what != expression.REJECTS_ALL or not isinstance(link_type, int):
            raise
        import sys

        print(f"{text!r} {expression.REJECTS_ALL.removeprefix('expression ')} of link type {link_type}", file=sys.stderr)
        return RET_0


def is_expression(text: str) -> bool:
    """Tell whether a filter is plainly one in the words of pcap-filter(7): no file, no bytecode."""
    return (text[:1].isalpha() or text[:1] in "(!") and "," not in text and "{" not in text and not os.path.exists(text)


def program_of(raw: bytes) -> Program:
    """Return the filter as a program over captures."""
    from tcbpf.cbpf import from_bytes, over_capture

    return over_capture(from_bytes(raw))


def prepared(raw: bytes) -> Prepared:
    """Return the filter as machine code over captures."""
    from tcbpf.datapath.capture.one_shot import prepare

    found = prepare(b"classic " + raw, lambda: (program_of(raw), ()))
    assert found is not None, "a classic filter needs no home"
    return found

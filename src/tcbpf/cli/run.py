"""`tcbpf run`: a classifier over a capture."""

from __future__ import annotations

import os
from contextlib import ExitStack

from tcbpf.cli import fast_args
from tcbpf.cli.arguments import DATAPATH, JSON, PROGRAM, TIMEOUT, WHICH, Source, add, refuse_same_file, unpinned
from tcbpf.datapath.choose import chosen_name, open_datapath
from tcbpf.datapath.result import whole_or_not

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from types import SimpleNamespace
    from typing import Any

    from tcbpf.datapath.base import Prog
    from tcbpf.datapath.capture.one_shot import OneShot
    from tcbpf.obj.program import Program

# Imports inside functions are for start-up time: a warm run needs no more than the cache and the packet loop.

ROWS = (
    PROGRAM
    | WHICH
    | {
        "capture": {"metavar": "CAPTURE", "help": "a pcap or pcapng file of Ethernet frames or IP packets (-: standard input)"},
        "--out": {"metavar": "FILE", "help": "write the packets that pass, as the program left them, to this pcapng or .pcap"},
        "--limit": {"type": int, "default": 0, "metavar": "N", "help": "stop after N packets"},
        "--maps": {"action": "store_true", "help": "print the maps afterwards"},
    }
    | TIMEOUT
    | JSON
    | DATAPATH
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add(parser, ROWS)


def read(words: Sequence[str]) -> SimpleNamespace | None:
    """Return the arguments of a plain command, or None."""
    args = fast_args.read(words, ROWS)
    return None if args is None or (args.section and args.name) else args


def main(args: Any) -> int:
    """Run, and print verdict counts and the rate."""
    refuse_same_file(args.out, args.capture, args.program)
    source, datapath, maps = Source(args.program), chosen_name(args.datapath), {}
    types: dict[str, str] = {}
    with ExitStack() as stack:
        prog: OneShot | Prog | None = None
        if datapath == "user" and not args.maps and not any(name.startswith("TCBPF_JIT_") for name in os.environ):
            prog = one_shot(source, args.section, args.name)
        if prog is None:
            dp = stack.enter_context(open_datapath(datapath))
            prog = dp.load(unpinned(source.object), section=args.section, program=args.name)
        stack.callback(prog.close)
        stats, fault = whole_or_not(lambda: prog.run_pcap(args.capture, out=args.out, limit=args.limit, timeout=args.timeout))
        if args.maps:
            from tcbpf.tables.maps import OF_PROGRAMS

            maps = {m.spec.name: m.listing() for m in dp.maps.values() if m.spec.type not in OF_PROGRAMS}
            types = {m.spec.name: m.spec.type for m in dp.maps.values()}
    report: dict[str, Any] = {
        "program": prog.name,
        "datapath": datapath,
        "packets": stats.packets,
        "bytes": stats.bytes,
        "verdicts": {str(verdict): count for verdict, count in sorted(stats.verdicts.items())},
        "duration_ns": stats.duration_ns,
        "skipped": stats.skipped,
        "cut": stats.cut,
    }
    if args.out:
        report["kept"] = stats.kept
    if args.json:
        import json

        if args.maps:
            report["maps"] = {
                name: None if items is None else [{"key": k, "value": v} for k, v in items] for name, items in maps.items()
            }
        print(json.dumps(report, default=str))
    else:
        show(report, maps, types)
    if fault is not None:
        raise fault
    return 0


def one_shot(source: Source, section: str, name: str) -> OneShot | None:
    """Return the program as a one-shot run; None when it needs a whole datapath."""
    from tcbpf import cache
    from tcbpf.datapath.capture.one_shot import OneShot, prepare

    def link() -> tuple[Program, tuple[str, ...]]:
        from tcbpf.obj.link import link

        obj = source.object
        return link(unpinned(obj), section=section, program=name), obj.notes

    raw, warnings = source.contents
    words = (source.path, section, name, warnings)
    prepared = prepare(cache.name_of(raw, *map(os.fsencode, words)).encode(), link)
    if prepared is None:
        return None
    source.say(prepared.notes)
    return OneShot(prepared)


def show(report: dict[str, Any], maps: dict[str, list[tuple[Any, Any]] | None], types: dict[str, str]) -> None:
    """Print the report for a person."""
    from tcbpf.cli.output import one_line, rate, table, verdict_name

    packets = report["packets"]
    table(
        ("verdict", "", "packets", "share"),
        [
            (number, verdict_name(int(number)), count, f"{100 * count / packets:.1f}%")
            for number, count in report["verdicts"].items()
        ],
        title=f"{report['program']} on the {report['datapath']} datapath",
    )
    print(
        f"{packets} packets, {report['bytes']} bytes, {rate(packets, report['duration_ns'])}"
        + (f", {report['kept']} kept" if "kept" in report else "")
        + (f"; {report['skipped']} not run: larger or smaller than this datapath takes" if report["skipped"] else "")
    )
    if report["cut"]:
        lengths = "skb->len is what was captured, skb->wire_len what was on the wire"
        print(f"{report['cut']} of them were cut by the capture: {lengths}")
    for name, items in maps.items():
        if items is None:
            from tcbpf.maps.records import READABLE

            records = ": tcbpf map records takes what is in one" if types[name] in READABLE else ""
            print(f"map {name} is a {types[name]}, which has no elements to list{records}")
            continue
        table(("key", "value"), [(one_line(k), one_line(v)) for k, v in items], title=f"map {name}")

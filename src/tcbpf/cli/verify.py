"""`tcbpf verify`: the verdict on each program of an object, and why."""

from __future__ import annotations

import argparse
import errno
import json
import sys
import time
from typing import Any

from tcbpf.cli.arguments import add_datapath, add_json, read_object
from tcbpf.datapath.choose import open_datapath
from tcbpf.errors import InputError, VerifierError


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("object", metavar="OBJECT", help="a C source (.c) or an object file (.o)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--section", default="", metavar="S", help="only the programs in this ELF section")
    which.add_argument("--program", default="", metavar="NAME", help="only the program with this function name")
    parser.add_argument("-v", "--verbose", action="count", default=0, help="print the log (-vv: every state)")
    add_json(parser)
    add_datapath(parser)


def main(args: argparse.Namespace) -> int:
    """Print each verdict; return 0 when all are accepted and 1 when one is not."""
    from tcbpf.obj import programs
    obj = read_object(args.object)
    chosen = [row for row in programs(obj)
              if (not args.section or row.section == args.section) and (not args.program or row.name == args.program)]
    if not chosen:
        asked = f"section {args.section!r}" if args.section else f"program {args.program!r}" if args.program else "program"
        there = ", ".join(f"{row.name} in {row.section}" for row in programs(obj)) or "no program at all"
        raise InputError(f"no {asked}", where=args.object, hint=f"there is {there}")
    reports = []
    with open_datapath(args.datapath) as dp:
        for row in chosen:
            report = verdict(dp, obj, row, args)
            reports.append(report)
            if args.json:
                print(json.dumps(report))
            else:
                show(report)
    return 0 if all(report["verdict"] == "accept" for report in reports) else 1


def verdict(dp: Any, obj: Any, row: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Return the report on one program."""
    from tcbpf.obj import link
    program = link(obj, program=row.name)
    report: dict[str, Any] = {"object": args.object, "section": row.section, "program": row.name, "type": program.type,
                              "verdict": "accept", "errno": 0, "message": "", "insns": len(program.insns), "insns_processed": 0}
    start = time.perf_counter_ns()
    try:
        with dp.prog_load(program, log_level=min(args.verbose, 2)) as prog:
            report["insns_processed"], log = prog.insns_processed, prog.log
    except VerifierError as error:
        report |= {"verdict": "reject", "errno": error.errno, "message": error.message, "pc": error.pc, "reason": error.reason,
                   "source": error.source, "slice": list(error.slice), "hint": error.hint}
        log = error.log
        report["insns_processed"] = processed(log)
    report["time_ms"] = round((time.perf_counter_ns() - start) / 1e6, 3)
    if args.verbose:
        report["log"] = log
    return report


def processed(log: str) -> int:
    """Return N of the log's "processed N insns", or 0."""
    for line in reversed(log.splitlines()):
        if line.startswith("processed "):
            return int(line.split()[1])
    return 0


def show(report: dict[str, Any]) -> None:
    """Print one report for a person."""
    accepted = report["verdict"] == "accept"
    word = ("\x1b[32maccept\x1b[0m" if accepted else "\x1b[31mreject\x1b[0m") if sys.stdout.isatty() else report["verdict"]
    print(f"{report['section']} {report['program']}: {word}, {report['insns']} instructions, "
          f"{report['insns_processed']} processed, {report['time_ms']:.1f} ms")
    if not accepted:
        name = errno.errorcode.get(report["errno"], report["errno"])
        print(f"  pc {report['pc']}: {report['message']} ({name})")
        for label in ("source", "reason", "hint"):
            if report.get(label):
                print(f"  {label}: {report[label]}")
    if report.get("log"):
        print(report["log"].rstrip("\n"))

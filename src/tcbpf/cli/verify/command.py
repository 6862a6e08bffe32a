"""`tcbpf verify`: the verdict on each program of an object, and why."""

from __future__ import annotations

import argparse
import errno
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from tcbpf.cli.arguments import add_datapath, add_json, read_object, refuse_same_file
from tcbpf.cli.output import colours, table
from tcbpf.cli.verify.html import write_page
from tcbpf.cli.verify.report import Report, failing_path
from tcbpf.datapath.choose import chosen_name, open_datapath
from tcbpf.errors import InputError, VerifierError
from tcbpf.obj import Listed, link, programs
from tcbpf.obj.program import Object, Program
from tcbpf.tables.progs import PROG_TYPES, by_section, misspelt, of_unknown_type
from tcbpf.uapi.bpf import BPF_F_STRICT_ALIGNMENT
from tcbpf.verifier import Verified, verify
from tcbpf.verifier.check import KERNEL
from tcbpf.verifier.state.log import LEVEL1, LEVEL2, VISITS
from tcbpf.verifier.words.log_reader import processed
from tcbpf.verifier.words.report import costs


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("object", metavar="OBJECT", help="a C source (.c) or an object file (.o)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--section", default="", metavar="S", help="only the programs in this ELF section")
    which.add_argument("--program", default="", metavar="NAME", help="only the program with this function name")
    types = PROG_TYPES.names()
    parser.add_argument(
        "--type", default="", choices=types, metavar="T", help=f"the type where no section says: {', '.join(types)}"
    )
    parser.add_argument("-v", "--verbose", action="count", default=0, help="print the log (-vv: every state)")
    parser.add_argument("--html", metavar="FILE", help="write a page: source, instructions, states, the failing path, the cost")
    parser.add_argument("--profile", action="store_true", help="print the cost of each source line and function")
    parser.add_argument("--max-insns", type=int, metavar="N", help="a budget: fail when more instructions are processed")
    parser.add_argument("--unprivileged", action="store_true", help="apply the rules for a user without CAP_BPF")
    parser.add_argument("--strict-alignment", action="store_true", help="refuse accesses that are not aligned to their size")
    parser.add_argument("--kernel", default="", metavar="X.Y", help="apply the helpers and limits of this kernel release")
    add_json(parser)
    add_datapath(parser)


def main(args: argparse.Namespace) -> int:
    """Print each verdict; return 0 when all that were judged are accepted (and within the budget) and 1 when one is not.

    Raises:  InputError when no program is of a type that the verifier knows.
    """
    refuse_same_file(args.html, args.object)
    obj = read_object(args.object)
    reports = []
    asked = choose(obj, args)
    for row in asked:
        note(row, args)
    chosen = [row for row in asked if not of_unknown_type(row.section)]
    if not chosen:
        raise InputError("no program of a type that this verifier knows", where=args.object, hint=", ".join(PROG_TYPES.names()))
    for number, listed in enumerate(chosen, 1):
        with progress(f"{number}/{len(chosen)} {listed.name}"):
            report = judge(obj, listed, args)
        reports.append(report)
        if args.json:
            print(json.dumps(report.as_json(args.object, log=args.verbose > 0)), flush=True)
        else:
            show(report, args)
    if len(reports) > 1 and not args.json:
        show_total(reports)
    if args.html:
        write_page(args.html, args.object, reports)
    return 0 if all(report.accepted and not report.over_budget for report in reports) else 1


def note(listed: Listed, args: argparse.Namespace) -> None:
    """Say of a program that it is skipped, for its type is not known, or that its section is almost one that gives a type."""
    if of_unknown_type(listed.section):
        type = listed.section.partition("/")[0]
        why = f"programs of type {type} are not known to this verifier"
        if args.json:
            row = {"object": args.object, "section": listed.section, "program": listed.name, "type": type}
            print(json.dumps(row | {"verdict": "skip", "message": why}), flush=True)
        else:
            print(f"{listed.section} {listed.name}: skipped, {why}")
    elif not args.type and (meant := misspelt(listed.section)):
        told = f"section {listed.section!r} gives no type, so that {listed.name} is judged as {listed.type}"
        print(f"{told}: is it {meant!r}? --type chooses another", file=sys.stderr)


@contextmanager
def progress(what: str) -> Iterator[None]:
    """Show the current program on a terminal, and erase the line afterwards."""
    if not colours(sys.stderr):
        yield
        return
    print(f"\r\x1b[Kverifying {what} …", end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def show_total(reports: Sequence[Report]) -> None:
    """Print the last line: the number of programs accepted and rejected."""
    refused = [report.listed.name for report in reports if not report.accepted]
    words = [f"{len(reports)} programs", f"{len(reports) - len(refused)} accepted", f"{len(refused)} rejected"]
    over = sum(report.over_budget for report in reports)
    words += [f"{over} over budget"] if over else []
    print(", ".join(words) + f", {sum(report.insns_processed for report in reports)} instructions processed")


def choose(obj: Object, args: argparse.Namespace) -> list[Listed]:
    """Return the chosen programs.

    Raises:  InputError when there is none; it lists the choices.
    """
    listed = programs(obj)
    chosen = [row for row in listed if args.section in ("", row.section) and args.program in ("", row.name)]
    if not chosen:
        asked = f"section {args.section!r}" if args.section else f"program {args.program!r}" if args.program else "program"
        there = ", ".join(f"{row.name} in {row.section}" for row in listed) or "no program at all"
        raise InputError(f"no {asked}", where=args.object, hint=f"there is {there}")
    return chosen


def judge(obj: Object, listed: Listed, args: argparse.Namespace) -> Report:
    """Verify one program on the chosen datapath."""
    flags = BPF_F_STRICT_ALIGNMENT if args.strict_alignment else 0
    type = "" if by_section(listed.section) else args.type
    report = Report(replace(link(obj, program=listed.name, type=type), flags=flags), listed)
    level = LEVEL2 if args.verbose > 1 else VISITS if args.html else LEVEL1
    start = time.perf_counter_ns()
    try:
        ask(report, level, args)
    except VerifierError as error:
        report.error, report.log = error, error.log
        report.insns_processed = processed(error.log)
    report.time_ms = (time.perf_counter_ns() - start) / 1e6
    report.over_budget = args.max_insns is not None and report.insns_processed > args.max_insns
    return report


def ask(report: Report, level: int, args: argparse.Namespace) -> None:
    """Fill `report` from the verifier.

    Raises:  VerifierError; InputError for an option that the live kernel cannot follow.
    """
    if chosen_name(args.datapath) == "kernel":
        if args.unprivileged or args.kernel or args.profile:
            raise InputError("--unprivileged, --kernel and --profile are the user datapath's", where="--datapath kernel")
        level = LEVEL1 if level == LEVEL1 else LEVEL2
        try:
            with open_datapath("kernel") as dp, dp.prog_load(report.program, log_level=level) as prog:
                report.insns_processed, report.log = prog.insns_processed, prog.log
        except VerifierError as error:
            raise explained(report.program, error, level) from None
        return
    verified = verify_here(report.program, level if args.verbose or args.html else 0, args)
    report.insns_processed, report.log, report.visits = verified.insns_processed, verified.log, verified.visits


def explained(program: Program, error: VerifierError, level: int) -> VerifierError:
    """Return the live kernel's refusal; if ours is the same, with our slice, variable and hint."""
    try:
        verify(program, log_level=level)
    except VerifierError as ours:
        if (ours.message, ours.pc) == (error.message, error.pc):
            ours.log, ours.errno = error.log, error.errno
            return ours
    return error


def verify_here(program: Program, level: int, args: argparse.Namespace) -> Verified:
    """Verify on the user datapath; verify a refused program again, to log the path that led to the refusal."""
    kernel = release(args.kernel) if args.kernel else KERNEL
    try:
        return verify(program, log_level=level, privileged=not args.unprivileged, kernel=kernel)
    except VerifierError:
        if level:
            raise
    return verify(program, log_level=1, privileged=not args.unprivileged, kernel=kernel)


def release(text: str) -> tuple[int, int]:
    """Return (6, 12) for "6.12".

    Raises:  InputError.
    """
    major, dot, minor = text.partition(".")
    if not (dot and major.isdigit() and minor.isdigit()):
        raise InputError(f"{text!r} is not a kernel release", where="--kernel", hint="6.12")
    return int(major), int(minor)


def show(report: Report, args: argparse.Namespace) -> None:
    """Print one report for a person."""
    error = report.error
    word = "accept" if report.accepted else "reject"
    if colours(sys.stdout):
        word = f"\x1b[{32 if report.accepted else 31};1m{word}\x1b[0m"
    print(
        f"{report.listed.section} {report.listed.name}: {word}, {len(report.program.insns)} instructions, "
        f"{report.insns_processed} processed, {report.time_ms:.1f} ms"
    )
    if error:
        print(f"  {error} ({errno.errorcode.get(error.errno, error.errno)})")
        rows = (
            ("at", error.source),
            ("variable", error.variable),
            ("state", error.state),
            ("reason", error.reason),
            ("hint", error.hint),
        )
        for label, text in rows:
            if text:
                print(f"  {label + ':':<10}{text}")
        path = failing_path(report)
        if path:
            print("  path:")
            shown = ""
            for pc, insn, state, line in path:
                if line and line != shown:
                    print(f"          ; {line}")
                print(f"    {pc:5}: {insn:<44}" + (f" ; {state}" if state else ""))
                shown = line
    if report.over_budget:
        print(f"  over budget: {report.insns_processed} processed, --max-insns {args.max_insns}")
        for cost, line in dearest(report):
            print(f"{cost:12}  {line}")
    if args.profile and report.accepted:
        show_profile(report)
    if args.verbose:
        print(report.log.rstrip("\n"))


def dearest(report: Report, count: int = 3) -> list[tuple[int, str]]:
    """Return the source lines with the most instructions processed; functions, without line information."""
    functions, lines = costs(report.program, report.visits)
    rows = sorted((lines or functions).items(), key=lambda row: -row[1])[:count]
    return [(cost, what) for what, cost in rows if cost]


def show_profile(report: Report) -> None:
    """Print the cost of each function and source line."""
    functions, lines = costs(report.program, report.visits)
    total = max(1, sum(report.visits))
    for title, rows in (("function", functions), ("line", lines)):
        ordered = sorted(rows.items(), key=lambda row: -row[1])
        table(("processed", "share", title), [(n, f"{100 * n / total:.1f}%", what) for what, n in ordered if n])

"""`tcbpf cbpf`: classic BPF: asm, disasm, compile, check, convert, run, dbg."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from tcbpf import cbpf
from tcbpf.cbpf.expression import compile_expression
from tcbpf.cli import arguments
from tcbpf.cli.cbpf import run as cbpf_run
from tcbpf.cli.cbpf.read import read_filter
from tcbpf.errors import FilterError
from tcbpf.isa import listing

# Imports inside functions are for start-up time: text needs neither engine nor debugger.


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verbs and their arguments."""
    verbs = parser.add_subparsers(dest="classic", metavar="VERB", required=True)
    for name, (function, line) in VERBS.items():
        sub = verbs.add_parser(name, help=line, description=line.capitalize() + ".")
        sub.set_defaults(function=function)
        if name not in ("asm", "compile", "dbg", "run"):
            arguments.add(sub, {"filter": cbpf_run.ROWS["filter"]})
        if name in ("compile", "convert"):
            sub.add_argument("--link-type", default="ETHERNET", metavar="TYPE", help="of an expression (ETHERNET)")
            arguments.add(sub, {names: row for names, row in cbpf_run.ROWS.items() if names.startswith("-O")})
    add = {name: verbs.choices[name].add_argument for name in VERBS}
    add["asm"]("file", nargs="?", default="-", metavar="FILE", help="bpf_asm text (standard input)")
    add["asm"]("-c", dest="c", action="store_true", help="print a C array")
    add["disasm"]("-d", "--listing", action="store_true", help="print what tcpdump -d prints")
    add["compile"]("expression", nargs="+", metavar="EXPRESSION", help="a pcap-filter expression, in one word or several")
    form = verbs.choices["compile"].add_mutually_exclusive_group()
    form.add_argument("-d", dest="form", action="store_const", const=cbpf.listing, help="print a listing")
    form.add_argument("-dd", dest="form", action="store_const", const=cbpf.to_dd, help="print a C array")
    form.add_argument("-ddd", dest="form", action="store_const", const=cbpf.to_lines, help="print decimal numbers (default)")
    add["convert"]("--html", metavar="FILE", help="write the whole way to machine code as a page")
    arguments.add(verbs.choices["run"], cbpf_run.ROWS)
    add["dbg"]("filter", nargs="?", metavar="FILTER", help="what to debug")
    add["dbg"]("capture", nargs="?", metavar="CAPTURE", help="a pcap or pcapng file")


def main(args: argparse.Namespace) -> int:
    """Run the verb."""
    function: Callable[[argparse.Namespace], int] = args.function
    return function(args)


def asm(args: argparse.Namespace) -> int:
    """Assemble."""
    text = sys.stdin.read() if args.file == "-" else Path(args.file).read_text(errors="replace")
    program = cbpf.assemble(text, path="<stdin>" if args.file == "-" else args.file)
    print(cbpf.to_c(program), end="") if args.c else print(cbpf.to_decimal(program))
    return 0


def disasm(args: argparse.Namespace) -> int:
    """Disassemble."""
    program = read_filter(args.filter)
    print(cbpf.listing(program) if args.listing else cbpf.disassemble(program), end="")
    return 0


def compile_filter(args: argparse.Namespace) -> int:
    """Compile an expression."""
    program = compile_expression(" ".join(args.expression), link_type=args.link_type, optimize=args.optimize)
    print((args.form or cbpf.to_lines)(program), end="")
    return 0


def check(args: argparse.Namespace) -> int:
    """Check a filter: 0 when the kernel would load it, 1 when not."""
    program = read_filter(args.filter)
    try:
        cbpf.check(program)
    except FilterError as error:
        print(f"tcbpf: {error}", file=sys.stderr)
        return 1
    print(f"{len(program)} instructions: the kernel would load it")
    return 0


def convert(args: argparse.Namespace) -> int:
    """Show the extended program beside the classic one."""
    arguments.refuse_same_file(args.html, args.filter)
    program = read_filter(args.filter, link_type=args.link_type, optimize=args.optimize)
    converted = cbpf.convert(program)
    if args.html:
        from tcbpf.cli.cbpf.html import write_page

        write_page(args.html, args.filter, program, converted)
        return 0
    classic = cbpf.listing(program).splitlines()
    shown = -2
    for pc, text in listing(converted.insns):
        origin = converted.origin[pc]
        left = classic[origin].expandtabs(8) if origin >= 0 and origin != shown else ""
        print(f"{left:<52}{pc:4}: {text}".rstrip())
        shown = origin
    return 0


def run(args: argparse.Namespace) -> int:
    """Run a filter over a capture."""
    return cbpf_run.main(args)


def dbg(args: argparse.Namespace) -> int:
    """Debug: at a prompt with history, or the commands of standard input."""
    from tcbpf.cli.cbpf.dbg import debug

    return debug(read_filter(args.filter) if args.filter else (), args.capture or "", read_filter)


VERBS: dict[str, tuple[Callable[[argparse.Namespace], int], str]] = {
    "asm": (asm, "assemble bpf_asm text"),
    "disasm": (disasm, "disassemble bytecode"),
    "compile": (compile_filter, "compile a pcap-filter expression"),
    "check": (check, "tell whether the kernel would load a filter, and why not"),
    "convert": (convert, "show the extended program that a filter becomes"),
    "run": (run, "run a filter over a capture"),
    "dbg": (dbg, "debug a filter, forwards and backwards"),
}

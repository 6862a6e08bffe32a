"""The command `tcbpf`: one row a verb, imported only when it is asked for, so that a short command starts fast.

A verb is a module of this room with `configure(parser)`, which adds its arguments, and `main(args)`, which returns the exit
status. A verb raises; this file turns what it raises into one line on standard error and a status.
"""

from __future__ import annotations

import importlib
import os
import sys

from tcbpf.errors import CompileError, InternalError, TcbpfError, VerifierError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence
    from typing import Any

VERBS = {
    # verb: (module, one line of help)
    "run": ("run", "run a classifier over a capture"),
    "verify": ("verify.command", "ask the verifier, and read its reasons"),
    "prog-run": ("prog_run", "run a program once, on one packet"),
    "dbg": ("dbg.command", "step through a program, forwards and backwards, the packet in hand"),
    "diff": ("diff", "run a classifier on both datapaths and show the first difference"),
    "asm": ("asm", "assemble text to bytecode"),
    "disasm": ("disasm", "disassemble an object or bytecode"),
    "tc": ("tc.command", "qdiscs, classes, filters and actions, in the words of tc(8)"),
    "ip": ("ip", "devices of the datapath, in the words of ip(8)"),
    "replay": ("replay", "send a capture through a device's hooks"),
    "map": ("map", "read and write maps"),
    "bench": ("bench.command", "measure, as ratios side by side"),
    "cbpf": ("cbpf.command", "classic BPF: asm, disasm, compile, check, convert, run, dbg"),
    "conformance-plugin": ("conformance", "the plugin protocol of the bpf_conformance suite"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 1 the verdict is no, 2 a usage or input error."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv == ["--include-dir"]:
        from tcbpf.lang.c import INCLUDE

        print(INCLUDE)
        return 0
    if argv and argv[0] in RAW:
        return guard(lambda: import_verb(argv[0]).main(argv[1:]))
    if (run := plain_command(argv)) is not None:
        return guard(run)
    parser = parser_of(argv[0] if argv else "")
    args, late = parser.parse_known_args(argv)
    if late and ("words" not in args or any(word.startswith("-") for word in late)):
        parser.error(f"unrecognized arguments: {' '.join(late)}")
    if late:  # words of a verb that takes any number, behind an option
        args.words += late
    return guard(lambda: import_verb(args.verb).main(args))


def plain_command(argv: Sequence[str]) -> Callable[[], int] | None:
    """Return what runs a command that is read without argparse, or None."""
    words = next((words for words in PLAIN if tuple(argv[: len(words)]) == words), None)
    if words is None:
        return None
    module = importlib.import_module(f"tcbpf.cli.{PLAIN[words]}")
    args = module.read(argv[len(words) :])
    return None if args is None else lambda: module.main(args)


def parser_of(verb: str) -> argparse.ArgumentParser:
    """Return the parser of a command that begins with `verb`: the other verbs are in it by name only."""
    import argparse

    import tcbpf

    parser = argparse.ArgumentParser(prog="tcbpf", description="Write, verify, run, step and attach tc/BPF programs.")
    parser.add_argument("--version", action="version", version=f"tcbpf {tcbpf.__version__}")
    parser.add_argument(
        "--include-dir",
        action="store_true",
        help='print where bpf_api.h is: clang -O2 -target bpf -I"$(tcbpf --include-dir)" -c foo.c',
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, (_, line) in VERBS.items():
        if verb in (name, "") or verb not in VERBS:
            sub = verbs.add_parser(name, help=line, description=line.capitalize() + ".")
            if name == verb:
                import_verb(name).configure(sub)
    return parser


def import_verb(verb: str) -> Any:
    """Return the module of a verb."""
    return importlib.import_module(f"tcbpf.cli.{VERBS[verb][0]}")


RAW = {"tc", "ip", "conformance-plugin"}
"""Verbs with a grammar that is not argparse's: their `main` takes the words."""

PLAIN = {("run",): "run", ("cbpf", "run"): "cbpf.run"}
"""Verbs that start fast when the command is plain: their module's `read` returns its arguments, or None for argparse."""


def tc_main() -> int:
    """Run `tcbpf tc`, under the name that scripts written for tc(8) are pointed at."""
    return main(["tc", *sys.argv[1:]])


def guard(run: Callable[[], int]) -> int:
    """Call `run` and return its status, or say in one line why not."""
    try:
        return run()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except KeyboardInterrupt:
        return 130
    except CompileError as error:
        sys.stderr.write(error.diagnostics)
        return fail(error, 2)
    except VerifierError as error:
        where = "".join(f"{part}: " for part in (error.path, error.section) if part)
        hint = f" (tcbpf verify {error.path} shows why)" if error.path else ""
        return fail(f"{where}the verifier refuses it: {error}{hint}", 2)
    except InternalError:
        raise
    except TcbpfError as error:
        return fail(error, 2)
    except OSError as error:
        return fail(f"{error.filename}: {error.strerror}" if error.filename else error, 2)


def fail(error: object, status: int) -> int:
    """Print `error` as tcbpf prints all of them, and return `status`."""
    sys.stderr.write(f"tcbpf: {error}\n")  # at once, so that commands in parallel do not mix
    return status

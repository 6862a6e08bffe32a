"""The command `tcbpf`: a row for each verb, whose module is imported only to run it, so that a short command starts fast.

A verb's module has `configure(parser)`, which adds its arguments, and `main(args)`, which returns the exit status. A verb
raises; this file turns the exception into one line on standard error and a status.
"""

from __future__ import annotations

import importlib
import os
import sys

from tcbpf.errors import CaptureError, CompileError, InternalError, TcbpfError, TimeLimit, VerifierError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence
    from typing import Any


class Verb:
    """A row of the command's verbs.

    `grammar` is "argparse" or "words": a module of "words" takes them as they are. `fast` names the module whose `read`
    takes the words of a plain command without argparse, or returns None, and whose `main` runs it.
    """

    __slots__ = ("fast", "grammar", "help", "module", "name")

    def __init__(self, name: str, module: str, help: str, *, grammar: str = "argparse", fast: str = "") -> None:
        self.name, self.module, self.help, self.grammar, self.fast = name, module, help, grammar, fast


# Imports inside functions are for start-up time: a verb pays only for what it uses.

VERBS = {
    verb.name: verb
    for verb in (
        Verb("run", "run", "run a classifier over a capture", fast="run"),
        Verb("verify", "verify.command", "ask the verifier, and read its reasons"),
        Verb("prog-run", "prog_run", "run a program once, on one packet"),
        Verb("dbg", "dbg.command", "step through a program, forwards and backwards, the packet in hand"),
        Verb("diff", "diff", "run a classifier on both datapaths and show the first difference"),
        Verb("asm", "asm", "assemble text to bytecode"),
        Verb("disasm", "disasm", "disassemble an object or bytecode"),
        Verb("tc", "tc.command", "qdiscs, classes, filters and actions, in the words of tc(8)", grammar="words"),
        Verb("ip", "ip", "devices of the datapath, in the words of ip(8)", grammar="words"),
        Verb("replay", "replay", "send a capture through a device's hooks"),
        Verb("map", "map", "read and write maps"),
        Verb("bench", "bench.command", "measure, as ratios side by side"),
        Verb("cbpf", "cbpf.command", "classic BPF: asm, disasm, compile, check, convert, run, dbg", fast="cbpf.run"),
        Verb("conformance-plugin", "conformance", "the plugin protocol of the bpf_conformance suite", grammar="words"),
    )
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Returns: 0 done; 1 the verdict is no; 2 a usage or input error; 3 a capture is cut short or damaged, what came before that
             having been reported; 124
             a run took longer than --timeout; 130 it was interrupted.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    open_standard_files()
    return guard(lambda: command(argv))


def open_standard_files() -> None:
    """Open those of the three that were closed, so that no other file gets their numbers; take any bytes for text.

    Nothing is read from a closed standard input, and writing to a closed standard output fails.
    """
    if sys.stdin is None:
        sys.stdin = os.fdopen(os.open(os.devnull, os.O_RDONLY))
    elif hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="replace")
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")
    elif hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="surrogateescape")  # names of files, as they are
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


def command(argv: list[str]) -> int:
    """Run one command; raise what it raises."""
    if argv == ["--include-dir"]:
        from tcbpf.lang.c import INCLUDE

        print(INCLUDE)
        return 0
    verb = VERBS.get(argv[0]) if argv else None
    if verb is not None and verb.grammar == "words":
        return int(import_module(verb.module).main(argv[1:]))
    if verb is not None and verb.fast:
        module = import_module(verb.fast)
        plain = module.read(argv[1:])
        if plain is not None:
            return int(module.main(plain))
    parser = parser_of(verb)
    args, late = parser.parse_known_args(argv)
    if late and ("words" not in args or any(word.startswith("-") for word in late)):
        parser.error(f"unrecognized arguments: {' '.join(late)}")
    if late:  # words of a verb that takes any number, behind an option
        args.words += late
    return int(import_module(VERBS[args.verb].module).main(args))


def parser_of(verb: Verb | None) -> argparse.ArgumentParser:
    """Return the parser of commands of one verb, which knows the others by name, or of the command without a verb."""
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
    for row in VERBS.values():
        if verb in (row, None):
            sub = verbs.add_parser(row.name, help=row.help, description=row.help.capitalize() + ".")
            if row is verb:
                import_module(row.module).configure(sub)
    return parser


def import_module(name: str) -> Any:
    """Return a module of this package."""
    return importlib.import_module(f"tcbpf.cli.{name}")


def tc_main() -> int:
    """Run `tcbpf tc`, under the name that scripts written for tc(8) are pointed at."""
    return main(["tc", *sys.argv[1:]])


def guard(run: Callable[[], int]) -> int:
    """Call `run` and return its status; print an exception as one line."""
    try:
        try:
            return run()
        finally:  # behind argparse's help, too
            flush_output()
    except BrokenPipeError:
        drop_output()
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
    except TimeLimit as error:
        return fail(error, 124)
    except CaptureError as error:
        return fail(error, 3)
    except InternalError:
        raise
    except TcbpfError as error:
        return fail(error, 2)
    except OSError as error:
        drop_output()
        return fail(f"{error.filename}: {error.strerror}" if error.filename else error, 2)


def flush_output() -> None:
    """Write out standard output.

    Raises:  OSError that names it.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, "standard output") from None


def drop_output() -> None:
    """Discard standard output if it cannot be written; the interpreter would fail on it at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def fail(error: object, status: int) -> int:
    """Print `error` as tcbpf prints all of them, and return `status`."""
    line = str(error).replace("\n", "\\n")  # of a name that holds one
    sys.stderr.write(f"tcbpf: {line}\n")  # at once, so that commands in parallel do not mix
    return status

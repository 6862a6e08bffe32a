"""Arguments that several verbs share, and the values they name."""

from __future__ import annotations

import os
import sys
from functools import cached_property

from tcbpf import filekind
from tcbpf.errors import InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable
    from typing import Any

    from tcbpf.cli.fast_args import Rows
    from tcbpf.datapath.base import Datapath, Prog
    from tcbpf.obj.program import Object

# Imports inside functions are for start-up time: a warm run needs no reader of objects and no compiler.

WHICH: Rows = {
    "--section": {"default": "", "metavar": "S", "help": "the program in this ELF section"},
    "--name --program": {"dest": "name", "default": "", "metavar": "NAME", "help": "the program of this function"},
}
"""The options that choose one of a file's programs."""

PROGRAM: Rows = {"program": {"metavar": "PROGRAM", "help": "a C source (.c) or an object file (.o)"}}
DATAPATH: Rows = {
    "--datapath": {
        "choices": ("user", "kernel"),
        "default": "",
        "help": "in this process (user, the default), or the live kernel",
    }
}
TIMEOUT: Rows = {
    "--timeout": {"type": int, "default": 0, "metavar": "S", "help": "stop a run that takes longer than S seconds; status 124"}
}
JSON: Rows = {"--json": {"action": "store_true", "help": "print JSON"}}


def add(parser: argparse.ArgumentParser, rows: Rows) -> None:
    """Add arguments."""
    group = parser.add_mutually_exclusive_group() if WHICH.items() <= rows.items() else parser
    for names, row in rows.items():
        (group if names in WHICH else parser).add_argument(*names.split(), **row)


def add_program(parser: argparse.ArgumentParser) -> None:
    """Add the program's file and the options that choose one of its programs."""
    add(parser, PROGRAM | WHICH)


def add_datapath(parser: argparse.ArgumentParser) -> None:
    """Add --datapath."""
    add(parser, DATAPATH)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json."""
    add(parser, JSON)


class Source:
    """The C source, assembly text or object file that a command names: its contents, and on demand its Object.

    Raises:  InputError when there is no such file.
    """

    def __init__(self, path: str) -> None:
        self.path, self.kind, self._said = path, filekind.of_path(path), False
        if not os.path.isfile(path):
            raise InputError("no such file", where=path, hint="a C source or a BPF object file")

    @cached_property
    def contents(self) -> tuple[bytes, str]:
        """Return the bytes that decide the Object (of C, the compiled ones) and the compiler's warnings.

        Raises:  CompileError.
        """
        if self.kind == filekind.C:
            from tcbpf.lang.c import compiled

            return compiled(self.path)
        with open(self.path, "rb") as file:
            return file.read(), ""

    @cached_property
    def object(self) -> Object:
        """Return the Object; print the compiler's and the loader's remarks on it.

        Raises:  CompileError; ObjectError; AsmError.
        """
        raw, warnings = self.contents
        if self.kind == filekind.ASSEMBLY:
            from tcbpf.lang import assembly

            obj = assembly.read_bytes(raw, path=self.path)
        else:
            from tcbpf.lang import c

            obj = c.read(self.path, raw, warnings)
        self.say(obj.notes)
        return obj

    def say(self, notes: Iterable[str]) -> None:
        """Print the Object's notes, once."""
        for note in () if self._said else notes:
            print(note, file=sys.stderr)
        self._said = True


def read_object(path: str) -> Object:
    """Return the Object of a C source, assembly text or an object file: see `Source`."""
    return Source(path).object


def load_program(dp: Datapath, args: Any) -> Prog:
    """Load the program that `args` name into `dp`, with maps of its own."""
    return dp.load(unpinned(read_object(args.program)), section=args.section, program=args.name)


def unpinned(obj: Object) -> Object:
    """Return `obj` with no map pinned: a trial run leaves nothing behind, and finds nothing that an earlier one left."""
    from dataclasses import replace

    from tcbpf.obj.program import PIN_NONE

    return replace(obj, maps={name: replace(spec, pinning=PIN_NONE) for name, spec in obj.maps.items()})


def refuse_same_file(target: str | None, *sources: str) -> None:
    """Refuse an output that would replace an input.

    Raises:  InputError.
    """
    if target and os.path.isfile(target) and any(os.path.exists(it) and os.path.samefile(it, target) for it in sources if it):
        raise InputError("the output would replace the input", where=target, hint="write to another file")


def read_ctx(text: str) -> dict[str, Any]:
    """Return the context fields of "mark=7,cb=1:2:3:4:5".

    Raises:  InputError.
    """
    fields: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        try:
            numbers = [int(word, 0) for word in value.split(":")]
        except ValueError:
            numbers = []
        if not equals or not numbers:
            raise InputError(f"{part!r} is not FIELD=NUMBER", where="--ctx", hint="mark=7,cb=1:2:3:4:5")
        if name != "cb" and len(numbers) > 1:
            raise InputError(f"{name} is one number, not {len(numbers)}", where="--ctx", hint="cb=1:2:3:4:5 is five")
        fields[name] = numbers if name == "cb" else numbers[0]
    return fields

"""Arguments that several verbs share, and what they stand for."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcbpf.errors import InputError
from tcbpf.obj.program import PIN_NONE

if TYPE_CHECKING:
    from tcbpf.datapath.base import Datapath, Prog
    from tcbpf.obj.program import Object


def add_program(parser: argparse.ArgumentParser) -> None:
    """Add the program's file and which of its programs is meant."""
    parser.add_argument("program", metavar="PROGRAM", help="a C source (.c) or an object file (.o)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--section", default="", metavar="S", help="the program in this ELF section")
    which.add_argument("--name", "--program", dest="name", default="", metavar="NAME", help="the program of this function")


def add_datapath(parser: argparse.ArgumentParser) -> None:
    """Add --datapath."""
    parser.add_argument("--datapath", choices=("user", "kernel"), default="",
                        help="in this process (user, the default), or the live kernel")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def read_object(path: str) -> Object:
    """Return the Object of a C source or an object file, having said what the compiler or the loader remarked on it.

    Raises:  InputError when there is no such file; CompileError; ObjectError.
    """
    if not Path(path).is_file():
        raise InputError("no such file", where=path, hint="a C source or a BPF object file")
    if path.endswith((".c", ".s")):
        from tcbpf.lang import compile
        obj = compile(path)
    else:
        from tcbpf.obj import load
        obj = load(path)
    for note in obj.notes:
        print(note, file=sys.stderr)
    return obj


def load_program(dp: Datapath, args: Any) -> Prog:
    """Load the program that `args` name into `dp`, with maps of its own."""
    return dp.load(unpinned(read_object(args.program)), section=args.section, program=args.name)


def unpinned(obj: Object) -> Object:
    """Return `obj` with no map pinned: a trial run leaves nothing behind, and finds nothing that an earlier one left."""
    return replace(obj, maps={name: replace(spec, pinning=PIN_NONE) for name, spec in obj.maps.items()})


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
        fields[name] = numbers if name == "cb" else numbers[0]
    return fields

"""`tcbpf asm`: text in the kernel's syntax to bytecode.

Text with directives (`.section`, `.map`, see lang/assembly.py) is linked: maps are named by their index, in the order of use.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from tcbpf import files as newfile
from tcbpf.cli.arguments import refuse_same_file
from tcbpf.errors import InputError
from tcbpf.isa import Insn, assemble, encode, listing

# Imports inside functions are for start-up time: bare text needs no linker.

EXAMPLE = """\
example:
  echo 'r0 = 2; exit' | tr ';' '\\n' | tcbpf asm            # b7 00 00 00 02 00 00 00 ...
  tcbpf asm prog.s -o prog.bin && tcbpf disasm prog.bin
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLE
    parser.add_argument("file", metavar="FILE", nargs="?", default="-", help="assembly text (standard input)")
    parser.add_argument("--section", default="", metavar="S", help="of text with directives: the program in this section")
    parser.add_argument("-o", "--out", metavar="OUT", default="", help="write the bytes to OUT, which is replaced whole")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--hex", action="store_true", help="hexadecimal, one slot a line (what is printed without -o)")
    form.add_argument("--c", action="store_true", help="rows of a C array of struct bpf_insn")


def main(args: argparse.Namespace) -> int:
    """Assemble, and write the chosen form."""
    refuse_same_file(args.out, args.file)
    insns = program(*read_text(args.file), args.section)
    if not insns:
        raise InputError("no instruction", where=args.file, hint="a program is at least `exit`")
    if args.c:
        made = "".join(f"{row}\n" for row in c_rows(insns)).encode()
    elif args.hex or not args.out:
        made = "".join(f"{encode([insn]).hex(' ')}\n" for insn in insns).encode()
    else:
        made = encode(insns)
    if args.out:
        newfile.write(args.out, made)
    else:
        sys.stdout.write(made.decode())
    return 0


def program(text: str, path: str, section: str) -> tuple[Insn, ...]:
    """Return the slots of bare text, or of the program that directives name.

    Raises:  AsmError; InputError when there is no such program, or several and none was named.
    """
    if not section and not re.search(r"^\s*\.(?!slot\b)", text, re.M):
        return assemble(text, path=path)
    from tcbpf.lang.assembly import read_text as read_object
    from tcbpf.obj import link

    return link(read_object(text, path=path), section=section).insns


def read_text(path: str) -> tuple[str, str]:
    """Return the text of a file ("-": standard input) and the name used in messages.

    Raises:  InputError.
    """
    if path == "-":
        return sys.stdin.read(), "<stdin>"
    try:
        return Path(path).read_text(), path
    except OSError as error:
        raise InputError(error.strerror or str(error), where=path) from None
    except UnicodeDecodeError:
        raise InputError("this is not text", where=path, hint="`tcbpf disasm` reads bytecode and objects") from None


def c_rows(insns: Sequence[Insn]) -> list[str]:
    """Return initialisers of struct bpf_insn, each with its text as a comment."""
    words = dict(listing(insns))
    return [
        f"{{ {insn.code:#04x}, {insn.dst:2}, {insn.src:2}, {insn.off:6}, {insn.imm & 0xFFFFFFFF:#010x} }},"
        + (f"  /* {words[pc]} */" if pc in words else "")
        for pc, insn in enumerate(insns)
    ]

"""`tcbpf disasm`: bytecode to text; of an object, with its C source between the lines and its symbols by name."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcbpf import filekind
from tcbpf.cli.arguments import add_json, read_object, unpinned
from tcbpf.cli.output import colours
from tcbpf.errors import InputError
from tcbpf.isa import Insn, decode, encode, listing
from tcbpf.tables.insns import Kind, op_of

if TYPE_CHECKING:
    from tcbpf.obj.program import Code, Object

# Imports inside functions are for start-up time: bytecode needs neither objects nor a datapath.


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument(
        "input",
        metavar="FILE|HEX",
        nargs="?",
        default="-",
        help="an object (.o), a source (.c, .s), bytecode, or its bytes in hexadecimal (standard input)",
    )
    parser.add_argument("--section", default="", metavar="S", help="only the functions of this ELF section")
    parser.add_argument("--bytes", action="store_true", help="show each instruction's bytes")
    parser.add_argument(
        "--jit",
        action="store_true",
        help="the machine code of each program of an object on the user datapath; TCBPF_JIT_HARDEN=2 blinds it",
    )
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    """Print the text of every function or of the bytecode."""
    if args.jit:
        for name, text in machine_code(args.input, args.section):
            print(json.dumps({"function": name, "assembly": text}) if args.json else text)
        return 0
    blocks = list(read(args.input, args.section))
    if args.json:
        print(json.dumps([block.as_json() for block in blocks], indent=2))
        return 0
    paint = Paint(colours(sys.stdout))
    for i, block in enumerate(blocks):
        if i:
            print()
        for line in block.render(paint, bytes=args.bytes):
            print(line)
    return 0


# --- what is shown ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shown:
    """One instruction: its place, slots, text, jump target, and the source line that begins here."""

    pc: int
    insns: tuple[Insn, ...]
    text: str
    target: int | None = None
    file: str = ""
    line: int = 0
    source: str = ""


@dataclass(frozen=True, slots=True)
class Block:
    """A function, or bare bytecode when it has no name."""

    name: str
    section: str
    type: str
    rows: tuple[Shown, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the block as JSON's types; `pc` counts slots."""
        return {
            "function": self.name,
            "section": self.section,
            "type": self.type,
            "insns": [
                {
                    "pc": row.pc,
                    "bytes": encode(row.insns).hex(),
                    "text": row.text,
                    **({"file": row.file, "line": row.line, "source": row.source} if row.line else {}),
                }
                for row in self.rows
            ],
        }

    def render(self, paint: Paint, *, bytes: bool) -> Iterator[str]:
        """Yield the lines for a person. Without colours and bytes they are assembly text, symbols aside."""
        if self.name:
            what = f"section {self.section}" + (f", {self.type}" if self.type else "")
            count = sum(len(row.insns) for row in self.rows)
            yield f"{paint.bold(self.name)}:" + paint.dim(f"  ; {what}, {count} slots")
        last = ("", 0)
        for row in self.rows:
            if row.line and last != (row.file, row.line):
                yield paint.source(f"        ; {Path(row.file).name}:{row.line}  {row.source.strip()}")
                last = row.file, row.line
            raw = f"{encode(row.insns[:1]).hex(' ')}    " if bytes else ""
            arrow = paint.dim(f"  ; to {row.target}") if row.target is not None else ""
            yield f"{paint.dim(f'{row.pc:5}:')}  {paint.dim(raw)}{paint.words(row.text)}{arrow}"
            if bytes and len(row.insns) > 1:
                yield f"{'':8}{paint.dim(encode(row.insns[1:]).hex(' '))}"


@dataclass(frozen=True, slots=True)
class Paint:
    """Colours, or none."""

    on: bool

    def dim(self, text: str) -> str:
        return f"\x1b[2m{text}\x1b[0m" if self.on and text else text

    def bold(self, text: str) -> str:
        return f"\x1b[1m{text}\x1b[0m" if self.on else text

    def source(self, text: str) -> str:
        return f"\x1b[36m{text}\x1b[0m" if self.on else text

    def words(self, text: str) -> str:
        """Colour calls, jumps and exits."""
        if not self.on:
            return text
        colour = "33" if text.startswith(("call", "tail")) else "35" if re.match(r"if |goto|gotol|may_goto|exit", text) else ""
        return f"\x1b[{colour}m{text}\x1b[0m" if colour else text


# --- where it comes from ----------------------------------------------------------------------------------------------


def read(name: str, section: str) -> Iterator[Block]:
    """Yield the blocks of a file, of standard input or of hexadecimal digits.

    Raises:  InputError.
    """
    path = Path(name)
    if name != "-" and filekind.of_path(name) in (*filekind.SOURCES, filekind.OBJECT):
        yield from of_object(read_object(name), section)
        return
    if section:
        raise InputError("bare bytecode has no sections", where=name, hint="--section goes with an object file")
    if name == "-":
        raw = from_bytes(sys.stdin.buffer.read(), "<stdin>")
    elif path.is_file():
        raw = from_bytes(path.read_bytes(), name)
    elif re.fullmatch(r"(?:0x)?[0-9a-fA-F\s,]+", name):
        raw = from_text(name, "<hex>")
    else:
        raise InputError("no such file", where=name, hint="an object, bytecode, or bytes in hexadecimal")
    yield of_insns(decode(raw))


def machine_code(name: str, section: str) -> Iterator[tuple[str, str]]:
    """Yield the programs of an object, each with its machine code.

    Raises:  InputError; VerifierError; NotSupported.
    """
    from tcbpf.datapath.user import User
    from tcbpf.datapath.user.prog import UserProg
    from tcbpf.obj import programs

    obj = unpinned(read_object(name))
    with User() as dp:
        for listed in programs(obj):
            if section in ("", listed.section):
                prog = dp.load(obj, program=listed.name)
                if isinstance(prog, UserProg):
                    yield listed.name, prog.assembly()


def from_bytes(raw: bytes, where: str) -> bytes:
    """Return the bytecode in a file's bytes: the bytes themselves, or those that text spells."""
    if not raw:
        raise InputError("nothing to disassemble", where=where)
    try:
        text = raw.decode("ascii")
    except UnicodeDecodeError:
        return raw
    return from_text(text, where) if re.fullmatch(r"[\t\n\r -~]+", text) and not text.isspace() else raw


def from_text(text: str, where: str) -> bytes:
    """Return the bytecode that hexadecimal digits or rows of struct bpf_insn spell."""
    bare = re.sub(r"/\*.*?\*/|//.*|^\s*#.*$", " ", text, flags=re.S | re.M if "/*" in text else re.M)
    rows = re.findall(r"\{([^{}]*)\}", bare)
    try:
        if rows:
            return b"".join(encode([c_row(row)]) for row in rows)
        return bytes.fromhex("".join(word.removeprefix("0x") for word in re.split(r"[\s,]+", bare)))
    except (ValueError, TypeError):
        raise InputError(
            "this is neither bytecode nor its bytes in hexadecimal", where=where, hint="assembly text goes to `tcbpf asm`"
        ) from None


def c_row(row: str) -> Insn:
    code, dst, src, off, imm = (int(word, 0) for word in row.strip().rstrip(",").split(","))
    return Insn(code, dst, src, off, imm - (1 << 32) if imm >> 31 == 1 else imm)


def of_insns(insns: tuple[Insn, ...], name: str = "", section: str = "", type: str = "") -> Block:
    lines = listing(insns)
    ends = [pc for pc, _ in lines[1:]] + [len(insns)]
    return Block(
        name,
        section,
        type,
        tuple(Shown(pc, insns[pc:end], text, target(insns[pc], pc)) for (pc, text), end in zip(lines, ends, strict=True)),
    )


def target(insn: Insn, pc: int) -> int | None:
    """Return a jump's target slot; None for other instructions."""
    op = op_of(insn.code, insn.src, insn.off, insn.imm)
    if op is None or op.kind not in (Kind.JA, Kind.JUMP, Kind.MAY_GOTO):
        return None
    return pc + 1 + (insn.imm if op.long else insn.off)


def of_object(obj: Object, section: str) -> Iterator[Block]:
    """Yield each function of an object: entry programs in file order, then the subprograms.

    Raises:  InputError when the section has no function.
    """
    from tcbpf.obj import section_type

    names = [*obj.entries, *(name for name in obj.functions if name not in obj.entries)]
    chosen = [obj.functions[name] for name in names if not section or obj.functions[name].section == section]
    if not chosen:
        there = ", ".join(sorted({code.section for code in obj.functions.values()})) or "no code at all"
        raise InputError(
            f"no function in section {section!r}" if section else "no function", where=obj.path, hint=f"there is {there}"
        )
    for code in chosen:
        yield of_code(code, section_type(code.section)[0] if code.name in obj.entries else "")


def of_code(code: Code, type: str) -> Block:
    """Return a function with its source lines, and with names where the linker will put numbers."""
    named = {reloc.pc: reloc for reloc in code.relocs}
    lines = {line.pc: line for line in code.lines}
    plain = of_insns(code.insns, code.name, code.section, type)
    rows = []
    for row in plain.rows:
        text, line = row.text, lines.get(row.pc)
        if (reloc := named.get(row.pc)) is not None:
            text = symbolic(row, reloc.kind, reloc.symbol, reloc.offset)
        rows.append(
            Shown(
                row.pc,
                row.insns,
                text,
                row.target,
                line.file if line else "",
                line.line if line else 0,
                line.text if line else "",
            )
        )
    return Block(plain.name, plain.section, plain.type, tuple(rows))


def symbolic(row: Shown, kind: str, symbol: str, offset: int) -> str:
    """Return an instruction's text with a symbol where linking fills in a number."""
    register = f"r{row.insns[0].dst} = "
    match kind:
        case "map":
            return f"{register}map[{symbol}]"
        case "data":
            return f"{register}map[{symbol}]+{offset}"
        case "func":
            return f"{register}subprog[{symbol}]"
        case "call":
            return f"call {symbol}"
    return f"{row.text}  ; {kind} {symbol}"

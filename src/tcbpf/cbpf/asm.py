"""bpf_asm's grammar: text to classic instructions.

A newline is a blank, as in bpf_asm: an instruction ends where its operand does. Words are case-insensitive, labels are not.

Source:  tools/bpf/bpf_exp.{l,y} (v6.12) for the grammar. Paper, "Introduction" (33 instructions, 11 addressing modes).
Differs: `[x+14]` without blanks, which bpf_asm refuses, is read as `[x + 14]`, and a carriage return is a blank; a label
         given twice and a number of more than 32 bits are errors; a line that starts with # is a comment, a lone # and #len
         too. A `ja` to a label behind it assembles, as there, and no kernel loads it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple, NoReturn

from tcbpf.cbpf.insn import Classic, Filter
from tcbpf.errors import AsmError
from tcbpf.tables.cbpf import CLASSIC, EXTENSIONS, MAX_INSNS, MNEMONICS, SKF_AD_OFF, U32, Mnemonic, Mode

_TOKEN = re.compile(
    r"(?P<blank>[ \t\r\n]+|/\*.*?\*/|;[^\n]*|(?:(?<=\n)|\A)#[^\n]*)"
    r"|(?P<number>0x[0-9a-f]+|0b[01]+|0[0-7]+|[1-9][0-9]*|0)(?![a-z0-9_])"
    r"|(?P<word>[a-z_][a-z0-9_]*)"
    r"|(?P<mark>[:,#%\[\]()+\-*&])",
    re.IGNORECASE | re.DOTALL,
)
_EXTENSIONS = {word: row for row in EXTENSIONS for word in (row.name, row.alias) if word}


class _Token(NamedTuple):
    kind: str  # "number", "word", "mark", "end"
    text: str
    at: int  # offset in the source


class _Operand(NamedTuple):
    mode: Mode
    k: int = 0
    label: str = ""


@dataclass(slots=True)
class _Line:
    """An instruction whose labels are not yet resolved."""

    code: int
    k: int = 0
    true: str = ""
    false: str = ""
    always: str = ""
    at: int = 0


@dataclass(slots=True)
class _Parser:
    source: str
    path: str
    tokens: list[_Token]
    pos: int = 0
    lines: list[_Line] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)

    @property
    def next(self) -> _Token:
        return self.tokens[self.pos]

    def take(self, text: str = "") -> _Token | None:
        """Consume the next token when it is `text`."""
        token = self.next
        if token.kind != "end" and token.text.lower() == text:
            self.pos += 1
            return token
        return None

    def need(self, text: str) -> None:
        """Consume `text` or say that it is missing."""
        if not self.take(text):
            self.fail(f"expected {text!r}, found {self.found()}")

    def found(self) -> str:
        """Return the next token for a message."""
        return "the end of the text" if self.next.kind == "end" else repr(self.next.text)

    def fail(self, what: str, at: int | None = None, hint: str = "") -> NoReturn:
        """Raise AsmError at the next token."""
        _fail(self.source, self.path, self.next.at if at is None else at, what, hint)

    def number(self) -> int:
        """Consume a number, signed or not, and return it as 32 bits."""
        negative = bool(self.take("-"))
        if not negative:
            self.take("+")
        token = self.next
        if token.kind != "number":
            self.fail(f"expected a number, found {self.found()}")
        self.pos += 1
        text = token.text.lower()
        octal = text.startswith("0") and text.isdigit() and len(text) > 1
        value = int(text, 8 if octal else 0)
        if value > U32:
            self.fail(f"{token.text} does not fit in 32 bits", token.at)
        return -value & U32 if negative else value

    def label(self) -> str:
        """Consume a label's name."""
        token = self.next
        if token.kind != "word" or len(token.text) < 2 or token.text.lower() in MNEMONICS:
            self.fail(f"expected a label, found {self.found()}", hint="a label has two or more letters, digits or underscores")
        self.pos += 1
        return token.text

    def program(self) -> Filter:
        """Return the whole program."""
        while self.next.kind != "end":
            if self.next.kind == "word" and self.tokens[self.pos + 1].text == ":":
                self.define()
            self.instruction()
        if not self.lines:
            self.fail("no instruction")
        return tuple(self.resolve(pc, line) for pc, line in enumerate(self.lines))

    def define(self) -> None:
        """Consume `label:`."""
        at = self.next.at
        name = self.label()
        self.need(":")
        if name in self.labels:
            self.fail(f"label {name!r} is defined twice", at)
        self.labels[name] = len(self.lines)

    def instruction(self) -> None:
        """Consume one instruction."""
        token = self.next
        row = MNEMONICS.get(token.text.lower()) if token.kind == "word" else None
        if row is None:
            self.fail(f"expected an instruction, found {self.found()}", hint="one of " + " ".join(MNEMONICS.names()))
        if len(self.lines) == MAX_INSNS:
            self.fail(f"more than {MAX_INSNS} instructions")
        self.pos += 1
        operand = self.operand(row)
        name = "ldxb" if row.of == "ldx" and operand.mode is Mode.MSH else row.of
        classic = CLASSIC.get(f"{name} {operand.mode.value}".rstrip())
        if classic is None or (row.immediate and operand.mode is not Mode.IMM):
            modes = "#k" if row.immediate else ", ".join(r.mode.value for r in CLASSIC if r.name == row.of)
            self.fail(f"{row.word} takes no {operand.mode.value or 'empty operand'}", token.at, hint=f"it takes {modes}")
        line = _Line(classic.code, operand.k, always=operand.label, at=token.at)
        if classic.branch:
            self.targets(line, row)
        self.lines.append(line)

    def targets(self, line: _Line, row: Mnemonic) -> None:
        """Consume `, Lt[, Lf]`; a mnemonic of the opposite condition has only one."""
        self.need(",")
        first = self.label()
        if row.inverted:
            line.false = first
            return
        line.true = first
        if self.take(","):
            line.false = self.label()

    def operand(self, row: Mnemonic) -> _Operand:
        """Consume the operand, whatever its mode."""
        if row.of in ("neg", "tax", "txa"):
            return _Operand(Mode.NONE)
        if row.of == "ja":
            return _Operand(Mode.LABEL, label=self.label())
        if self.take("#"):
            return self.extension(row) or _Operand(Mode.IMM, self.number())
        if self.take("["):
            return self.packet()
        if self.take("%") or (self.next.kind == "word" and self.next.text.lower() in ("x", "a")):
            return self.register()
        if self.take("m"):
            self.need("[")
            k = self.number()
            self.need("]")
            return _Operand(Mode.MEM, k)
        found = self.extension(row)
        if found:
            return found
        if self.next.kind == "number" or self.next.text in ("+", "-"):
            return self.bare(row)
        self.fail(f"expected an operand of {row.word}, found {self.found()}")

    def extension(self, row: Mnemonic) -> _Operand | None:
        """Consume an extension's name, if the next token is one."""
        word = self.next.text.lower()
        if word == "len" and self.next.kind == "word":
            self.pos += 1
            return _Operand(Mode.LEN)
        known = _EXTENSIONS.get(word)
        if known is None:
            return None
        if row.of not in ("ld", "ldh", "ldb") or row.immediate:
            self.fail(f"{row.word} takes no extension", hint="ld, ldh and ldb do")
        self.pos += 1
        return _Operand(Mode.ABS, (SKF_AD_OFF + known.off) & U32)

    def packet(self) -> _Operand:
        """Consume what follows `[`."""
        self.take("%")
        if self.take("x"):
            if self.next.text != "-":
                self.need("+")
            mode, k = Mode.IND, self.number()
        else:
            mode, k = Mode.ABS, self.number()
        self.need("]")
        return _Operand(mode, k)

    def register(self) -> _Operand:
        """Consume x or a."""
        if self.take("x"):
            return _Operand(Mode.REG_X)
        self.need("a")
        return _Operand(Mode.REG_A)

    def bare(self, row: Mnemonic) -> _Operand:
        """Consume a number that has no `#`: ldi's immediate, or 4*([k]&0xf)."""
        at, number = self.next.at, self.number()
        if row.immediate:
            return _Operand(Mode.IMM, number)
        if not self.take("*"):
            self.fail("a number here needs '#' (an immediate) or brackets (an offset)", at)
        self.need("(")
        self.need("[")
        k = self.number()
        self.need("]")
        self.need("&")
        mask = self.number()
        self.need(")")
        if (number, mask) != (4, 0xF):
            self.fail("only 4*([k]&0xf) exists", at)
        return _Operand(Mode.MSH, k)

    def resolve(self, pc: int, line: _Line) -> Classic:
        """Return the instruction with its labels as distances."""
        if line.always:
            return Classic(line.code, 0, 0, self.skip(line.always, pc, line) & U32)
        return Classic(line.code, self.branch(line.true, pc, line), self.branch(line.false, pc, line), line.k)

    def skip(self, label: str, pc: int, line: _Line) -> int:
        """Return how many instructions a jump at `pc` skips to get to `label`; negative for a label behind it."""
        if label not in self.labels:
            self.fail(f"no label {label!r}", line.at, hint=f"labels: {', '.join(self.labels) or 'none'}")
        return self.labels[label] - pc - 1

    def branch(self, label: str, pc: int, line: _Line) -> int:
        """Return jt or jf for `label`; 0 without one."""
        skip = self.skip(label, pc, line) if label else 0
        if skip < 0:
            self.fail(f"label {label!r} lies behind: a conditional jump goes forward", line.at)
        if skip > 255:
            self.fail(
                f"label {label!r} is {skip} instructions away, a conditional jump reaches 255", line.at, hint="jump over a `ja`"
            )
        return skip


def _fail(source: str, path: str, at: int, what: str, hint: str = "") -> NoReturn:
    line = source.count("\n", 0, at) + 1
    raise AsmError(what, line=line, column=at - source.rfind("\n", 0, at), path=path, hint=hint)


def _tokens(source: str, path: str) -> list[_Token]:
    tokens, at = [], 0
    while at < len(source):
        match = _TOKEN.match(source, at)
        if match is None:
            word = re.compile(r"\w*").match(source, at)
            what = f"{word.group()!r} is not a number" if word and source[at].isdigit() else f"unknown character {source[at]!r}"
            _fail(source, path, at, what, "0x1f, 0b11, 017 or 15" if source[at].isdigit() else "")
        if match.lastgroup != "blank":
            tokens.append(_Token(str(match.lastgroup), match.group(), at))
        at = match.end()
    return [*tokens, _Token("end", "", len(source))]


def assemble(source: str, *, path: str = "<asm>") -> Filter:
    """Return the program that `source` writes.

    Raises:  AsmError with line and column, and the expected words.
    """
    return _Parser(source, path, _tokens(source, path)).program()

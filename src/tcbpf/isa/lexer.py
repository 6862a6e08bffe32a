"""The words of one line of assembly text: tokens, registers, numbers, memory operands."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import NamedTuple, NoReturn

from tcbpf.errors import AsmError
from tcbpf.isa.disasm import SIGNED, UNSIGNED
from tcbpf.tables.opcodes import MAX_REG

SIZE_OF = {name: size for names in (UNSIGNED, SIGNED) for size, name in names.items()}
_TOKEN = re.compile(
    r"\s*(?:(?P<op>s>>=|s/=|s%=|s>=|s<=|s>|s<|<<=|>>=|[-+*/%|&^=!<>]=|[-+*&<>=()\[\],:#@])"
    r"|(?P<number>0[xX][0-9a-fA-F]+|0[bB][01]+|\d+)(?!\w)"
    r"|(?P<name>[A-Za-z_.$][\w.$]*)"
    r"|(?P<bad>\S))"
)


class Token(NamedTuple):
    """A word of a line; column counts from 1; the end of the line is the kind "end"."""

    kind: str
    text: str
    column: int


class Tokens:
    """One line's tokens, read from left to right.

    Raises:  AsmError, from every method that takes what is not there.
    """

    def __init__(self, text: str, start: int, *, path: str, number: int) -> None:
        self.path, self.number, self.at = path, number, 0
        self.tokens = [
            Token(match.lastgroup or "", match[match.lastgroup or 0], match.start(match.lastgroup or 0) + 1)
            for match in _TOKEN.finditer(text, start)
            if match.lastgroup
        ]
        self.tokens.append(Token("end", "the end of the line", len(text.rstrip()) + 1))
        bad = next((token for token in self.tokens if token.kind == "bad"), None)
        if bad:
            self.refuse(f"`{bad.text}` has no meaning here", bad)

    @property
    def next(self) -> Token:
        return self.tokens[self.at]

    @property
    def after(self) -> Token:
        """The token after the next one."""
        return self.tokens[min(self.at + 1, len(self.tokens) - 1)]

    def take(self) -> Token:
        token = self.tokens[self.at]
        self.at += token.kind != "end"
        return token

    def accept(self, text: str) -> bool:
        """Take the next token if it is `text`."""
        if self.next.text == text and self.next.kind != "end":
            self.at += 1
            return True
        return False

    def expect(self, *texts: str) -> None:
        for text in texts:
            if not self.accept(text):
                self.expected(f"`{text}`")

    def expected(self, what: str, token: Token | None = None) -> NoReturn:
        token = token or self.next
        found = token.text if token.kind == "end" else f"`{token.text}`"
        self.refuse(f"expected {what}, found {found}", token)

    def refuse(self, what: str, token: Token, hint: str = "") -> NoReturn:
        raise AsmError(what, line=self.number, column=token.column, path=self.path, hint=hint)

    def register(self, letters: str = "rw") -> tuple[str, int]:
        """Take a register of one of the widths, and return its letter and number."""
        token = self.next
        match = re.fullmatch(r"([rw])(\d+)", token.text)
        if not match or match[1] not in letters or token.kind != "name":
            bits = {"r": "a 64-bit register (r0 to r10)", "w": "a 32-bit register (w0 to w10)"}
            self.expected(bits.get(letters, "a register"))
        if int(match[2]) > MAX_REG:
            self.refuse(f"there is no register {token.text}", token, f"registers are {match[1]}0 to {match[1]}10")
        self.at += 1
        return match[1], int(match[2])

    def number_token(self, what: str = "a number") -> tuple[int, Token]:
        """Take a number with an optional minus, and return it and its first token."""
        first = self.next
        sign = -1 if self.accept("-") else 1
        if self.next.kind != "number":
            self.expected(what)
        text = self.take().text
        base = {"0x": 16, "0b": 2}.get(text[:2].lower(), 10)
        return sign * int(text, base), first

    def imm32(self, *, unsigned: bool) -> int:
        """Take a 32-bit immediate, as the signed number its slot holds; `unsigned` ones may be written up to 0xffffffff."""
        value, token = self.number_token("a register or a number")
        if not -1 << 31 <= value < 1 << (32 if unsigned else 31):
            self.refuse(
                f"{token.text if value >= 0 else value} does not fit the instruction's 32 bits",
                token,
                "an immediate is sign-extended from 32 bits; load a larger one with `rN = NUMBER ll`",
            )
        return value - (1 << 32) if value >> 31 == 1 else value

    def offset(self) -> int:
        """Take `+N` or `-N` of a memory operand, nothing being 0."""
        token = self.next
        if not (self.accept("+") or self.next.text == "-"):
            return 0
        value, _ = self.number_token()
        if not -0x8000 <= value <= 0x7FFF:
            self.refuse(f"the offset {value} does not fit 16 bits", token, "offsets are -32768 to 32767")
        return value

    def cast(self, names: dict[int, str] | None = None) -> tuple[str, int]:
        """Take `(u32 *)` and return the type's name and its size."""
        self.expect("(")
        token = self.take()
        sizes = SIZE_OF if names is None else {name: size for size, name in names.items()}
        if token.text not in sizes:
            self.expected("one of " + ", ".join(sizes), token)
        self.expect("*", ")")
        return token.text, sizes[token.text]

    def place(self) -> tuple[int, int]:
        """Take `(r1 +4)` and return the register and the offset."""
        self.expect("(")
        _, register = self.register("r")
        offset = self.offset()
        self.expect(")")
        return register, offset


def similar(word: str, known: Iterable[str]) -> str:
    """Return a hint that names what is spelled like `word`, or ""."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean `{close[0]}`?" if close else ""

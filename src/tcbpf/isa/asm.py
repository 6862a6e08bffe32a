"""From text to instructions, in the words of the kernel's own log.

    start:  r6 = r1                                 ; comments: `;`, `//`, and `#` after a blank
            r0 = *(u32 *)(r6 +0)
            if r0 s> 1500 goto drop                 # a label, `pc+3`, or `+3`
            r1 = 0x1122334455667788 ll              // two slots
            call bpf_get_prandom_u32                // or bpf_get_prandom_u32#7, or 7
            exit
    drop:   r0 = 2
            exit

A line of a verifier log can be pasted as it is: `12: (b7) r0 = 2   ; R0_w=2`; its opcode then decides what the words leave
open, and is checked.

Source:  kernel/bpf/disasm.c (v6.18): the formats.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from tcbpf.errors import AsmError
from tcbpf.isa.disasm import HELPER_NAMES, SIGNED, UNSIGNED, helper_name
from tcbpf.isa.insn import Insn
from tcbpf.tables.insns import ALU, ATOMICS, END, JUMP, Atomic
from tcbpf.tables.opcodes import (
    ABS,
    ALU32,
    ALU64,
    ATOMIC,
    DW,
    IMM,
    IND,
    JMP,
    JMP32,
    LD,
    LDX,
    MAX_REG,
    MEM,
    MEMSX,
    PSEUDO_BTF_ID,
    PSEUDO_CALL,
    PSEUDO_FUNC,
    PSEUDO_KFUNC_CALL,
    PSEUDO_MAP_FD,
    PSEUDO_MAP_IDX,
    PSEUDO_MAP_IDX_VALUE,
    PSEUDO_MAP_VALUE,
    SIZE_CODE,
    ST,
    STX,
    X,
)

LD_IMM64 = LD | IMM | DW
HELPER_IDS = {name: id for id, name in HELPER_NAMES.items()}
SIZE_OF = {name: size for names in (UNSIGNED, SIGNED) for size, name in names.items()}
ALU_OF = {row.symbol: row for row in ALU if row.symbol.endswith("=") and row.name != "MOV"}
JUMP_OF = {row.symbol: row for row in JUMP}
LOCK_OF = {row.symbol: row for row in ATOMICS if not row.fetch and row.symbol.endswith("=")}
END_OF = {row.name.lower(): row for row in END}
SIGN_EXTEND_OF = {row.symbol[1:-1]: row for row in ALU if row.name.startswith("MOVSX")}
CALLED_OF: dict[str, tuple[Atomic, tuple[int, ...]]] = {
    # the word before the bracket: the row, and the sizes it is written for
    **{f"atomic_{row.name.lower()}": (row, (4,)) for row in ATOMICS if row.fetch},
    **{f"atomic64_{row.name.lower()}": (row, (8,)) for row in ATOMICS if row.fetch},
    "load_acquire": (ATOMICS["LOAD_ACQ"], (1, 2, 4, 8)),
    "store_release": (ATOMICS["STORE_REL"], (1, 2, 4, 8)),
}

_COMMENT = re.compile(r";|//|(?:^|(?<=\s))#")
_LOGGED = re.compile(r"\s*(?:\d+:\s*)?(?:\(([0-9a-f]{2})\)(?=\s))?")
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


class Fixup(NamedTuple):
    """A slot that waits for a label: `field` becomes the distance, or for a call the helper of that name."""

    pc: int
    field: str
    token: Token
    line: int


class Assembled(NamedTuple):
    """A program with where its slots came from.

    Units:   labels are pcs; lines counts the text's lines from 1, one for each slot.
    """

    insns: tuple[Insn, ...]
    labels: dict[str, int]
    lines: tuple[int, ...]


def assemble(text: str, *, path: str = "<asm>") -> tuple[Insn, ...]:
    """Return the slots of a program written as text.

    Raises:  AsmError with line and column, and what was expected there.
    """
    return assemble_lines(text, path=path).insns


def assemble_lines(text: str, *, path: str = "<asm>", maps: Sequence[str] = ()) -> Assembled:
    """Return the slots with their labels and lines; `maps` names what `map[NAME]` may mean, by its index.

    Raises:  AsmError.
    """
    program = _Program(path, maps)
    lines: list[int] = []
    for number, line in enumerate(text.splitlines(), 1):
        program.line(line, number)
        lines += [number] * (len(program.insns) - len(lines))
    return Assembled(program.link(), program.labels, tuple(lines))


class _Program:
    """What has been assembled so far: slots, labels, and the slots that wait for labels."""

    def __init__(self, path: str, maps: Sequence[str]) -> None:
        self.path, self.maps = path, list(maps)
        self.insns: list[Insn] = []
        self.labels: dict[str, int] = {}
        self.fixups: list[Fixup] = []

    def line(self, text: str, number: int) -> None:
        """Assemble one line: labels, then at most one instruction."""
        comment = _COMMENT.search(text)
        body = text[: comment.start()] if comment else text
        logged = _LOGGED.match(body)
        assert logged is not None
        hint = int(logged[1], 16) if logged[1] else None
        _Line(self, body, logged.end(), number, hint).parse()

    def link(self) -> tuple[Insn, ...]:
        """Fill in what named a label, and return the slots."""
        for pc, field, token, line in self.fixups:
            target = self.labels.get(token.text)
            if target is not None:
                self.patch(pc, field, target, token, line)
            elif self.insns[pc].code != JMP | 0x80:
                self.refuse(f"there is no label `{token.text}`", token, line, self.like(token.text, self.labels))
            else:
                self.insns[pc] = self.insns[pc]._replace(src=0, imm=self.helper(token, line))
        return tuple(self.insns)

    def patch(self, pc: int, field: str, target: int, token: Token, line: int) -> None:
        distance = target - pc - 1
        if field == "off" and not -0x8000 <= distance <= 0x7FFF:
            self.refuse(f"`{token.text}` is {distance} slots away", token, line, "a jump reaches 32767; write `gotol`")
        self.insns[pc] = self.insns[pc]._replace(**{field: distance})

    def helper(self, token: Token, line: int) -> int:
        """Return the id of the helper that a call names, with or without bpf_."""
        for name in (token.text, f"bpf_{token.text}"):
            if name in HELPER_IDS:
                return HELPER_IDS[name]
        known = [*HELPER_IDS, *self.labels]
        self.refuse(
            f"`{token.text}` is neither a helper nor a label",
            token,
            line,
            self.like(token.text, known) or self.like(f"bpf_{token.text}", known),
        )

    @staticmethod
    def like(word: str, known: object) -> str:
        """Return a hint that names what is spelled like `word`, or ""."""
        close = difflib.get_close_matches(word, list(known), n=1)  # type: ignore[call-overload]
        return f"did you mean `{close[0]}`?" if close else ""

    def refuse(self, what: str, token: Token, line: int, hint: str = "") -> NoReturn:
        raise AsmError(what, line=line, column=token.column, path=self.path, hint=hint)


class _Line:
    """One line's tokens, read from left to right."""

    def __init__(self, program: _Program, text: str, start: int, number: int, hint: int | None) -> None:
        self.program, self.number, self.hint = program, number, hint
        self.tokens = [
            Token(match.lastgroup or "", match[match.lastgroup or 0], match.start(match.lastgroup or 0) + 1)
            for match in _TOKEN.finditer(text, start)
            if match.lastgroup
        ]
        self.tokens.append(Token("end", "the end of the line", len(text.rstrip()) + 1))
        self.at = 0
        bad = next((token for token in self.tokens if token.kind == "bad"), None)
        if bad:
            self.refuse(f"`{bad.text}` has no meaning here", bad)

    # --- reading -------------------------------------------------------------------------------------------------------

    @property
    def next(self) -> Token:
        return self.tokens[self.at]

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
        self.program.refuse(what, token, self.number, hint)

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

    # --- statements ----------------------------------------------------------------------------------------------------

    def parse(self) -> None:
        """Assemble the line's labels and its instruction."""
        while self.next.kind == "name" and self.tokens[self.at + 1].text == ":":
            label = self.take()
            self.at += 1
            if label.text in self.program.labels:
                self.refuse(f"the label `{label.text}` is there already", label)
            self.program.labels[label.text] = len(self.program.insns)
        if self.next.kind == "end":
            return
        first, start = self.next, len(self.program.insns)
        self.instruction()
        if self.next.kind != "end":
            self.expected("the end of the line")
        code = self.program.insns[start].code
        if self.hint is not None and self.hint != code:
            self.refuse(f"these words are opcode {code:02x}, not {self.hint:02x}", first)

    def emit(self, code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> None:
        self.program.insns.append(Insn(code, dst, src, off, imm))

    def instruction(self) -> None:
        token = self.next
        if re.fullmatch(r"[rw]\d+", token.text):
            self.assign()
        elif token.text in _STATEMENTS:
            self.at += 1
            _STATEMENTS[token.text](self)
        elif token.text == "*":
            self.store()
        else:
            hint = self.program.like(token.text, _STATEMENTS) if token.kind == "name" else ""
            self.refuse(f"expected an instruction, found `{token.text}`", token, hint)

    def assign(self) -> None:
        """`r1 += r2`, and all that begins with `r1 =`."""
        letter, dst = self.register()
        wide = letter == "r"
        cls = ALU64 if wide else ALU32
        token = self.take()
        if token.text in ALU_OF:
            row = ALU_OF[token.text]
            self.operand(cls | row.code << 4, letter, dst, row.off)
        elif token.text != "=":
            self.expected("an operator: =, " + ", ".join(ALU_OF), token)
        elif self.next.text == "-" and self.tokens[self.at + 1].kind == "name":
            self.at += 1
            source = self.next
            if self.register(letter)[1] != dst:
                self.refuse("negation works in place", source, f"write `{letter}{dst} = -{letter}{dst}`")
            self.emit(cls | 0x80, dst)
        elif self.next.text == "*":
            self.load(letter, dst)
        elif self.next.text == "(":
            self.sign_extend(cls, letter, dst)
        elif self.next.text in END_OF and wide:
            end = END_OF[self.take().text]
            source = self.next
            if self.register("r")[1] != dst:
                self.refuse("a byte swap works in place", source, f"write `r{dst} = {end.name.lower()} r{dst}`")
            self.emit(end.base, dst, imm=end.bits)
        elif self.next.text in CALLED_OF:
            self.called(dst)
        elif self.next.text in ("map", "btf", "subprog") and wide:
            self.pseudo(dst)
        elif self.next.kind == "number" or self.next.text == "-":
            self.constant(cls, dst)
        else:
            self.operand(cls | 0xB0, letter, dst, 0)

    def operand(self, code: int, letter: str, dst: int, off: int) -> None:
        """Take a register or an immediate, and emit."""
        if self.next.kind == "name":
            self.emit(code | X, dst, self.register(letter)[1], off)
        else:
            self.emit(code, dst, off=off, imm=self.imm32(unsigned=code & 7 == ALU32))

    def constant(self, cls: int, dst: int) -> None:
        """`r1 = 5`, `r1 = 5 ll`; in a log, the opcode tells."""
        start = self.at
        value, token = self.number_token()
        if self.accept("ll") or self.hint == LD_IMM64:
            if not -1 << 63 <= value < 1 << 64:
                self.refuse(f"{token.text} does not fit 64 bits", token)
            self.emit_imm64(dst, 0, value & 0xFFFFFFFF, value >> 32 & 0xFFFFFFFF)
        else:
            self.at = start
            self.emit(cls | 0xB0, dst, imm=self.imm32(unsigned=cls == ALU32))

    def emit_imm64(self, dst: int, src: int, low: int, high: int) -> None:
        low, high = (word - (1 << 32) if word >> 31 == 1 else word for word in (low, high))
        self.emit(LD_IMM64, dst, src, 0, low)
        self.emit(0, imm=high)

    def pseudo(self, dst: int) -> None:
        """`map[fd:5]`, `map[idx:0]+16`, `map[name]`, `btf[id:7]`, `subprog[+3]`, `subprog[label]`."""
        word = self.take().text
        self.expect("[")
        if word == "subprog":
            self.emit(LD_IMM64, dst, PSEUDO_FUNC)
            self.distance("imm")
            self.expect("]")
            self.emit(0)
            return
        kind, number = self.named_map() if word == "map" and self.tokens[self.at + 1].text == "]" else self.numbered(word)
        self.expect("]")
        value = self.accept("+")
        offset = self.imm32(unsigned=True) if value else 0
        source = {
            "fd": PSEUDO_MAP_VALUE if value else PSEUDO_MAP_FD,
            "idx": PSEUDO_MAP_IDX_VALUE if value else PSEUDO_MAP_IDX,
            "id": PSEUDO_BTF_ID,
        }[kind]
        self.emit_imm64(dst, source, number, offset)

    def numbered(self, word: str) -> tuple[str, int]:
        """Take `idx:0` and return its two parts."""
        kind = self.take()
        kinds = ("fd", "idx") if word == "map" else ("id",)
        if kind.text not in kinds:
            self.expected(" or ".join(f"`{k}`" for k in kinds), kind)
        self.expect(":")
        return kind.text, self.imm32(unsigned=False)

    def named_map(self) -> tuple[str, int]:
        """Take a map's name and return its index."""
        token = self.take()
        if token.text not in self.program.maps:
            hint = self.program.like(token.text, self.program.maps) or "write `map[idx:N]`, or name it with `.map`"
            self.refuse(f"there is no map `{token.text}`", token, hint)
        return "idx", self.program.maps.index(token.text)

    def sign_extend(self, cls: int, letter: str, dst: int) -> None:
        """`r1 = (s8)r2`."""
        self.expect("(")
        token = self.take()
        row = SIGN_EXTEND_OF.get(token.text)
        if row is None or (32 if letter == "w" else 64) not in row.widths:
            self.expected("s8, s16" + (" or s32" if letter == "r" else ""), token)
        self.expect(")")
        self.emit(cls | 0xB0 | X, dst, self.register(letter)[1], row.off)

    def load(self, letter: str, dst: int) -> None:
        """`r1 = *(u32 *)(r2 +4)`, `r0 = *(u16 *)skb[12]`."""
        self.expect("*")
        token = self.next
        name, size = self.cast()
        if letter == "w" and (size == 8 or name in SIGN_EXTEND_OF):
            self.refuse(f"a {name} is loaded into a 64-bit register", token, f"write r{dst}")
        if self.next.text == "skb":
            self.packet(name, size, dst, token)
            return
        src, off = self.place()
        self.emit(LDX | SIZE_CODE[size] | (MEM if name.startswith("u") else MEMSX), dst, src, off)

    def packet(self, name: str, size: int, dst: int, token: Token) -> None:
        if dst or size == 8 or name.startswith("s"):
            self.refuse("a packet load reads u8, u16 or u32 into r0", token)
        self.expect("skb", "[")
        if self.next.kind == "name":
            _, src = self.register("r")
            self.expect("+")
            self.emit(LD | IND | SIZE_CODE[size], 0, src, imm=self.imm32(unsigned=False))
        else:
            self.emit(LD | ABS | SIZE_CODE[size], imm=self.imm32(unsigned=False))
        self.expect("]")

    def called(self, dst: int | None) -> None:
        """`r2 = atomic64_fetch_add((u64 *)(r1 +0), r2)` and its family; `dst` is None for a store."""
        token = self.take()
        row, sizes = CALLED_OF[token.text]
        self.expect("(")
        at = self.next
        name, size = self.cast(UNSIGNED)
        if size not in sizes:
            self.refuse(f"{token.text} works on {UNSIGNED[sizes[0]]}, not {name}", at)
        register, off = self.place()
        code = STX | ATOMIC | SIZE_CODE[size]
        if row.name == "LOAD_ACQ":
            self.emit(code, dst or 0, register, off, row.imm)
        else:
            if row.name == "CMPXCHG":
                self.expect(",", "r0")
            self.expect(",")
            at = self.next
            _, src = self.register()
            if dst is not None and dst != (0 if row.name == "CMPXCHG" else src):
                self.refuse(f"{token.text} returns its value in {'r0' if row.name == 'CMPXCHG' else f'r{src}'}", at)
            self.emit(code, register, src, off, row.imm)
        self.expect(")")

    def release(self) -> None:
        """`store_release((u64 *)(r1 +0), r2)`."""
        self.at -= 1
        self.called(None)

    def store(self) -> None:
        """`*(u32 *)(r1 +4) = r2`, or a number."""
        self.expect("*")
        _, size = self.cast(UNSIGNED)
        dst, off = self.place()
        self.expect("=")
        if self.next.kind == "name":
            self.emit(STX | MEM | SIZE_CODE[size], dst, self.register("r" if size == 8 else "rw")[1], off)
        else:
            self.emit(ST | MEM | SIZE_CODE[size], dst, 0, off, self.imm32(unsigned=size < 8))

    def lock(self) -> None:
        """`lock *(u64 *)(r1 +0) += r2`."""
        self.expect("*")
        token = self.next
        _, size = self.cast(UNSIGNED)
        if size < 4:
            self.refuse("an atomic works on u32 or u64", token)
        dst, off = self.place()
        token = self.take()
        if token.text not in LOCK_OF:
            self.expected(", ".join(LOCK_OF), token)
        self.emit(
            STX | ATOMIC | SIZE_CODE[size], dst, self.register("r" if size == 8 else "rw")[1], off, LOCK_OF[token.text].imm
        )

    def branch(self) -> None:
        """`if r1 s> 5 goto pc+3`."""
        letter, dst = self.register()
        token = self.take()
        if token.text not in JUMP_OF:
            self.expected("a comparison: " + ", ".join(JUMP_OF), token)
        code = (JMP if letter == "r" else JMP32) | JUMP_OF[token.text].code << 4
        if self.next.kind == "name":
            self.emit(code | X, dst, self.register(letter)[1])
        else:
            self.emit(code, dst, imm=self.imm32(unsigned=True))
        self.expect("goto")
        self.distance("off")

    def distance(self, field: str) -> None:
        """Take `pc+3`, `+3` or a label into a field of the instruction just emitted."""
        pc = len(self.program.insns) - 1
        token = self.next
        if token.kind == "name" and token.text != "pc":
            self.at += 1
            self.program.fixups.append(Fixup(pc, field, token, self.number))
            return
        self.accept("pc")
        if self.next.text not in ("+", "-"):
            self.expected("`pc+N`, `pc-N` or a label")
        self.accept("+")
        value, token = self.number_token()
        bits = 15 if field == "off" else 31
        if not -1 << bits <= value < 1 << bits:
            self.refuse(f"the distance {value} does not fit {bits + 1} bits", token)
        self.program.insns[pc] = self.program.insns[pc]._replace(**{field: value})

    def goto(self) -> None:
        self.emit(JMP)
        self.distance("off")

    def gotol(self) -> None:
        self.emit(JMP32)
        self.distance("imm")

    def may_goto(self) -> None:
        self.emit(JMP | 0xE0)
        self.distance("off")

    def call(self) -> None:
        """`call bpf_map_lookup_elem#1`, its name or its number alone, `call pc+3`, `call label`, `call kfunc#7`."""
        code = JMP | 0x80
        token = self.next
        if token.kind == "number":
            self.emit(code, imm=self.imm32(unsigned=False))
            return
        if token.kind == "name" and self.tokens[self.at + 1].text == "#":
            self.at += 2
            id = self.imm32(unsigned=False)
            if token.text == "kfunc":
                self.emit(code, src=PSEUDO_KFUNC_CALL, off=self.imm32(unsigned=False) if self.accept("@") else 0, imm=id)
                return
            if helper_name(id) != token.text:
                self.refuse(f"helper {id} is {helper_name(id)}, not {token.text}", token)
            self.emit(code, imm=id)
            return
        self.emit(code, src=PSEUDO_CALL)
        self.distance("imm")

    def exit(self) -> None:
        self.emit(JMP | 0x90)

    def slot(self) -> None:
        """`.slot 0x00000000000000b7`: any 64 bits."""
        value, token = self.number_token("64 bits")
        if not 0 <= value < 1 << 64:
            self.refuse(f"{token.text} does not fit 64 bits", token)
        off, imm = value >> 16 & 0xFFFF, value >> 32
        self.emit(value & 0xFF, value >> 8 & 15, value >> 12 & 15, off - (off >> 15 << 16), imm - (imm >> 31 << 32))


_STATEMENTS = {
    "if": _Line.branch,
    "goto": _Line.goto,
    "gotol": _Line.gotol,
    "may_goto": _Line.may_goto,
    "call": _Line.call,
    "exit": _Line.exit,
    "lock": _Line.lock,
    ".slot": _Line.slot,
    "store_release": _Line.release,
}

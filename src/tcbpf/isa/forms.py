"""The forms of instructions: one method for each kind of statement."""

from __future__ import annotations

import re

from tcbpf.isa.disasm import UNSIGNED, helper_name
from tcbpf.isa.insn import Insn
from tcbpf.isa.labels import Fixup, Program
from tcbpf.isa.lexer import Token, Tokens, similar
from tcbpf.tables.insns import ALU, ATOMICS, END, JUMP, Atomic
from tcbpf.tables.opcodes import (
    ABS,
    ALU32,
    ALU64,
    ATOMIC,
    CALL,
    CLASS,
    EXIT,
    IND,
    JA,
    JCOND,
    JMP,
    JMP32,
    LD,
    LD_IMM64,
    LDX,
    MEM,
    MEMSX,
    MOV,
    NEG,
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


class Statement(Tokens):
    """One line: labels, then at most one instruction. `hint` is the opcode that a log gives, or None."""

    def __init__(self, program: Program, text: str, start: int, number: int, hint: int | None) -> None:
        super().__init__(text, start, path=program.path, number=number)
        self.program, self.hint = program, hint

    def parse(self) -> None:
        """Assemble the line's labels and its instruction."""
        while self.next.kind == "name" and self.after.text == ":":
            label = self.take()
            self.at += 1
            if label.text in self.program.labels:
                self.refuse(f"the label `{label.text}` is already defined", label)
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
            hint = similar(token.text, _STATEMENTS) if token.kind == "name" else ""
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
        elif self.next.text == "-" and self.after.kind == "name":
            self.at += 1
            source = self.next
            if self.register(letter)[1] != dst:
                self.refuse("negation works in place", source, f"write `{letter}{dst} = -{letter}{dst}`")
            self.emit(cls | NEG, dst)
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
            self.operand(cls | MOV, letter, dst, 0)

    def operand(self, code: int, letter: str, dst: int, off: int) -> None:
        """Take a register or an immediate, and emit."""
        if self.next.kind == "name":
            self.emit(code | X, dst, self.register(letter)[1], off)
        else:
            self.emit(code, dst, off=off, imm=self.imm32(unsigned=code & CLASS == ALU32))

    def constant(self, cls: int, dst: int) -> None:
        """`r1 = 5`, `r1 = 5 ll`; in a log, the opcode tells which."""
        start = self.at
        value, token = self.number_token()
        if self.accept("ll") or self.hint == LD_IMM64:
            if not -1 << 63 <= value < 1 << 64:
                self.refuse(f"{token.text} does not fit 64 bits", token)
            self.emit_imm64(dst, 0, value & 0xFFFFFFFF, value >> 32 & 0xFFFFFFFF)
        else:
            self.at = start
            self.emit(cls | MOV, dst, imm=self.imm32(unsigned=cls == ALU32))

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
        kind, number = self.named_map() if word == "map" and self.after.text == "]" else self.numbered(word)
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
            hint = similar(token.text, self.program.maps) or "write `map[idx:N]`, or name it with `.map`"
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
        self.emit(cls | MOV | X, dst, self.register(letter)[1], row.off)

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
        self.emit(JMP | JA)
        self.distance("off")

    def gotol(self) -> None:
        self.emit(JMP32 | JA)
        self.distance("imm")

    def may_goto(self) -> None:
        self.emit(JMP | JCOND)
        self.distance("off")

    def call(self) -> None:
        """`call bpf_map_lookup_elem#1`, its name or its number alone, `call pc+3`, `call label`, `call kfunc#7`."""
        code = JMP | CALL
        token = self.next
        if token.kind == "number":
            self.emit(code, imm=self.imm32(unsigned=False))
            return
        if token.kind == "name" and self.after.text == "#":
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
        self.emit(JMP | EXIT)

    def slot(self) -> None:
        """`.slot 0x00000000000000b7`: any 64 bits."""
        value, token = self.number_token("64 bits")
        if not 0 <= value < 1 << 64:
            self.refuse(f"{token.text} does not fit 64 bits", token)
        off, imm = value >> 16 & 0xFFFF, value >> 32
        self.emit(value & 0xFF, value >> 8 & 15, value >> 12 & 15, off - (off >> 15 << 16), imm - (imm >> 31 << 32))


_STATEMENTS = {
    "if": Statement.branch,
    "goto": Statement.goto,
    "gotol": Statement.gotol,
    "may_goto": Statement.may_goto,
    "call": Statement.call,
    "exit": Statement.exit,
    "lock": Statement.lock,
    ".slot": Statement.slot,
    "store_release": Statement.release,
}

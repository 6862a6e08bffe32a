"""Slots and labels of a program that is being assembled; linking turns labels into distances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from tcbpf.errors import AsmError
from tcbpf.isa.disasm import HELPER_NAMES
from tcbpf.isa.insn import Insn
from tcbpf.isa.lexer import Token, similar
from tcbpf.tables.opcodes import CALL, JMP

HELPER_IDS = {name: id for id, name in HELPER_NAMES.items()}


class Fixup(NamedTuple):
    """A slot that waits for a label: `field` becomes the distance, or for a call the helper of that name."""

    pc: int
    field: str
    token: Token
    line: int


class Program:
    """What is assembled so far: slots, labels, and the slots that wait for labels. `maps` are named by their index."""

    def __init__(self, path: str, maps: Sequence[str]) -> None:
        self.path, self.maps = path, list(maps)
        self.insns: list[Insn] = []
        self.labels: dict[str, int] = {}
        self.fixups: list[Fixup] = []

    def link(self) -> tuple[Insn, ...]:
        """Fill in the distances to labels, and return the slots."""
        for pc, field, token, line in self.fixups:
            target = self.labels.get(token.text)
            if target is not None:
                self.patch(pc, field, target, token, line)
            elif self.insns[pc].code != JMP | CALL:
                self.refuse(f"there is no label `{token.text}`", token, line, similar(token.text, self.labels))
            else:
                self.insns[pc] = self.insns[pc]._replace(src=0, imm=self.helper(token, line))
        return tuple(self.insns)

    def patch(self, pc: int, field: str, target: int, token: Token, line: int) -> None:
        """Write the distance to `target` into a field of a slot."""
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
            similar(token.text, known) or similar(f"bpf_{token.text}", known),
        )

    def refuse(self, what: str, token: Token, line: int, hint: str = "") -> NoReturn:
        raise AsmError(what, line=line, column=token.column, path=self.path, hint=hint)

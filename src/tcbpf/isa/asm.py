"""From text to instructions, in the words of the kernel's own log.

    start:  r6 = r1                                 ; comments: `;`, `//`, and `#` after a blank
            r0 = *(u32 *)(r6 +0)
            if r0 s> 1500 goto drop                 # a label, `pc+3`, or `+3`
            r1 = 0x1122334455667788 ll              // two slots
            call bpf_get_prandom_u32                // or bpf_get_prandom_u32#7, or 7
            exit
    drop:   r0 = 2
            exit

A line of a verifier log can be pasted as it is: `12: (b7) r0 = 2   ; R0_w=2`; its opcode then resolves
ambiguous words, and is checked.

Source:  kernel/bpf/disasm.c (v6.18): the formats.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from tcbpf.isa.forms import Statement
from tcbpf.isa.insn import Insn
from tcbpf.isa.labels import Program

_COMMENT = re.compile(r";|//|(?:^|(?<=\s))#")
_LOGGED = re.compile(r"\s*(?:\d+:\s*)?(?:\(([0-9a-f]{2})\)(?=\s))?")


class Assembled(NamedTuple):
    """A program, with its labels and the source lines of its slots.

    Units:   labels are pcs; lines counts the text's lines from 1, one for each slot.
    """

    insns: tuple[Insn, ...]
    labels: dict[str, int]
    lines: tuple[int, ...]


def assemble(text: str, *, path: str = "<asm>") -> tuple[Insn, ...]:
    """Return the slots of a program in text form.

    Raises:  AsmError with line and column, and the expected words.
    """
    return assemble_lines(text, path=path).insns


def assemble_lines(text: str, *, path: str = "<asm>", maps: Sequence[str] = ()) -> Assembled:
    """Return the slots with their labels and lines; `maps` are the names for `map[NAME]`, in the order of their indices.

    Raises:  AsmError.
    """
    program = Program(path, maps)
    lines: list[int] = []
    for number, line in enumerate(text.splitlines(), 1):
        assemble_line(program, line, number)
        lines += [number] * (len(program.insns) - len(lines))
    return Assembled(program.link(), program.labels, tuple(lines))


def assemble_line(program: Program, text: str, number: int) -> None:
    """Assemble one line into `program`.

    Raises:  AsmError.
    """
    comment = _COMMENT.search(text)
    body = text[: comment.start()] if comment else text
    logged = _LOGGED.match(body)
    assert logged is not None
    hint = int(logged[1], 16) if logged[1] else None
    Statement(program, body, logged.end(), number, hint).parse()

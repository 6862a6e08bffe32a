"""Read the kernel verifier's log: the first line of the reason, its instruction, and the instructions processed."""

from __future__ import annotations

import re
from dataclasses import dataclass

_INSN = re.compile(r"^(?:\d+: )?(\d+): (?:\([0-9a-f]{2}\) |BUG_)")
_AFTER_JUMP = re.compile(r"goto pc[+-]\d+ +(?![ ;R]|\d+: |$)(?P<message>.+)$")  # where the kernel found no line break to add
_NOTE = re.compile(  # of the main function: no refusal
    r"^(?:arg#0 reference type\('UNKNOWN '\) size cannot be determined|Global function \S+ doesn't return scalar)"
)
_GLUED = re.compile(r"(?<=.)(verification time \d+ usec|processed \d+ insns)")  # to a line that the kernel did not end
_NUMBERED = re.compile(r"\binsn (\d+)")
_PROCESSED = re.compile(r"^processed (\d+) insns")
_SOURCE = re.compile(r"^; (?P<text>.*?)(?: @ (?P<file>[^@]*?):(?P<line>\d+))?$")
_PASSING = re.compile(
    r"^(?:$|; |(?:\d+:)? ?(?:frame\d+: )?R\d+(?:_\w+)?=|\d+: \.{3}|from \d+ to \d+|mark_precise:|func#"
    r"|Func#|Validating |caller:|callee:|returning from callee|to caller at|live regs|Live regs|stack depth"
    r"|verification time|processed "
    r"|frame\d+:|last_idx|regs=|parent |\d+: safe$|propagating|fp-\d|combine stack)"
)


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a program was refused. Units: pc counts 8-byte slots, -1 for the program as a whole."""

    message: str
    pc: int
    processed: int
    source: str = ""


def reason(log: str) -> Reason:
    """Return the reason that ends a log: the first line after the last instruction that is not state.

    Returns: an empty message for an empty log.
    """
    lines = _GLUED.sub(r"\n\1", log).splitlines()
    processed = next((int(m[1]) for line in reversed(lines) if (m := _PROCESSED.match(line))), 0)
    walked = [(i, int(m[1])) for i, line in enumerate(lines) if (m := _INSN.match(line))]
    after, pc = walked[-1] if walked else (-1, -1)
    behind = _AFTER_JUMP.search(lines[after]) if walked else None
    found = [line for line in lines[after + 1 :] if not _PASSING.match(line)]
    if not walked and len(found) > 1 and _NOTE.match(found[0]):
        del found[0]
    message = behind["message"] if behind else next(iter(found), "")
    if not message:  # the reason stands before an instruction that only describes it
        message = next((line for line in reversed(lines) if not _PASSING.match(line) and not _INSN.match(line)), "")
    if not walked and (named := _NUMBERED.search(message)):
        pc = int(named[1])
    return Reason(message, pc, processed, _source(lines[: after + 1]))


def _source(lines: list[str]) -> str:
    """Return the last source line that the log quotes, as "file.c:12: text", or ""."""
    for line in reversed(lines):
        if line.startswith("; ") and (match := _SOURCE.match(line)):
            return f"{match['file']}:{match['line']}: {match['text']}" if match["file"] else match["text"]
    return ""

"""Reading a verifier log, the kernel's or ours: which instruction was visited, from which source line, and what it changed.

Source:  print_verifier_state(), verbose_linfo(), kernel/bpf/log.c (v6.18), for the format.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_INSN = re.compile(r"(\d+): (\([0-9a-f]{2}\) .*)")
_FROM = re.compile(r"from (\d+) to (\d+)(?: \(speculative execution\))?: (.*)")
_PROCESSED = re.compile(r"processed (\d+) insns")
_SAFE = re.compile(r"(?:from \d+ to )?\d+: safe")


@dataclass(frozen=True, slots=True)
class Visit:
    """One visit of an instruction.

    Units:   pc counts slots. `state` is what the log prints behind the instruction: registers and stack that it changed;
             `begin` the whole state, where a path starts; `safe` tells that the path ended here, pruned by an earlier one.
    """

    pc: int
    text: str
    state: str = ""
    begin: str = ""
    safe: bool = False


def read(log: str) -> Iterator[Visit]:
    """Yield the visits of a log, in order; a log of level 2 has them all, one of level 1 those of the last path."""
    begin = ""
    for line in log.splitlines():
        if match := _FROM.fullmatch(line):
            begin = f"from {match[1]}: {match[3]}"
            if match[3] == "safe":
                yield Visit(int(match[2]), "", safe=True)
                begin = ""
        elif match := _INSN.match(line):
            text, _, state = match[2].partition(" ; ")
            yield Visit(int(match[1]), text.rstrip(), state.strip(), begin)
            begin = ""
        elif _SAFE.fullmatch(line):
            yield Visit(int(line.split(":")[0].split()[-1]), "", safe=True)
        elif re.match(r"\d+: R", line):
            begin = line.split(": ", 1)[1]


_TIME = re.compile(r"verification time \d+ usec")
_ADDRESS = re.compile(r"(\(18\) r\d+ = 0x)ffff[0-9a-f]{12}\b")
_AFTER_ADDRESS = re.compile(r"(\(18\) r\d+ = 0x0)\s+;")


def comparable(log: str) -> str:
    """Return a log without what no two runs have alike: how long it took, and where the kernel keeps its maps."""
    return _AFTER_ADDRESS.sub(r"\1 ;", _ADDRESS.sub(r"\g<1>0", _TIME.sub("verification time N usec", log)))


def processed(log: str) -> int:
    """Return N of the log's "processed N insns", or 0."""
    found = _PROCESSED.findall(log)
    return int(found[-1]) if found else 0

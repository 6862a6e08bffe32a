"""The errors that people meet first: the report names the right reason, line, variable and remedy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tcbpf.datapath.kernel import Kernel
from tcbpf.errors import VerifierError
from tcbpf.lang import compile
from tcbpf.obj import link, programs
from tcbpf.obj.program import Object
from tcbpf.verifier import verify

BROKEN = Path(__file__).parent / "broken"
_CASE = re.compile(r"^// (\w+) \| (\S+) \| (.*)\nSEC\(.*\)\nint (\w+)\(", re.MULTILINE)


@dataclass(frozen=True)
class Case:
    """What the report of one program must say."""

    path: Path
    name: str
    reason: str
    variable: str
    hint: str


def cases() -> list[Case]:
    """Return the cases that the sources state."""
    return [
        Case(path, found[4], found[1], "" if found[2] == "-" else found[2], found[3])
        for path in sorted(BROKEN.glob("*.c"))
        for found in _CASE.finditer(path.read_text())
    ]


@cache
def compiled(path: Path) -> Object:
    return compile(str(path))


def fault(case: Case) -> str:
    """Return the line at fault, "" where no line is marked."""
    body = case.path.read_text().partition(f"int {case.name}(")[2].partition("\n}\n")[0]
    return next((line.strip() for line in body.splitlines() if line.endswith("// here")), "")


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_the_report_says_what_to_change(case: Case) -> None:
    program = link(compiled(case.path), program=case.name)
    with pytest.raises(VerifierError) as caught:
        verify(program, max_insns=50_000, perfmon=case.reason != "stack_bounds")
    error = caught.value
    assert error.reason == case.reason
    assert case.hint in error.hint
    assert error.variable == case.variable
    if line := fault(case):
        assert error.source.endswith(line)
        assert error.pc in error.slice


FOLLOWED = BROKEN / "followed.c"


@pytest.mark.parametrize("name", [row.name for row in programs(compiled(FOLLOWED))])
def test_following_the_hint_leads_to_acceptance(name: str) -> None:
    verify(link(compiled(FOLLOWED), program=name))


@pytest.mark.kernel
def test_the_kernel_accepts_what_follows_the_hints() -> None:
    with Kernel() as kernel:
        for row in programs(compiled(FOLLOWED)):
            kernel.prog_load(link(compiled(FOLLOWED), program=row.name)).close()

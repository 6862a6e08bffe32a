"""The log: line by line and byte by byte what the live kernel writes, at level 1 and at level 2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from generator import generate
from generator.oracle import Oracle
from tcbpf.datapath.kernel import Kernel
from tcbpf.errors import VerifierError
from tcbpf.isa import assemble
from tcbpf.lang import compile
from tcbpf.obj import link, programs
from tcbpf.obj.program import Program
from tcbpf.verifier import verify
from tcbpf.verifier.state.log import STATS
from tcbpf.verifier.words.log_reader import comparable

EXAMPLES = Path(__file__).parents[2] / "examples"
SEEDS = 250
OTHER_WORDS = (
    "verifier bug: No program to jit at insn",  # names the place after the kernel's rewriting: see verifier/cfg.py
    "Invalid format string",  # the kernel has no word for arguments that are not of 8 bytes each
)
FETCHING, FETCH = (0xC3, 0xDB), 1
pytestmark = pytest.mark.kernel

CASES = {
    "a bounded loop": "r6 = 0\nr6 += 1\nif r6 < 5 goto -2\nr0 = r6\nexit",
    "a loop that makes no progress": "r6 = 0\nr6 *= 2\ngoto -2\nexit",
    "precision through a spill": """
        call 7\nr6 = r0\nr6 &= 7\n*(u64 *)(r10 - 8) = r6\nr1 = *(u64 *)(r10 - 8)\nr2 = r10\nr2 += -32\nr2 += r1
        *(u8 *)(r2 + 0) = 0\nr0 = 0\nexit""",
    "scalars that are linked at a distance": """
        call 7\nr6 = r0\nw6 = w6\nr7 = r6\nr8 = r6\nw7 -= 3\nr8 += 5\nif w6 s< 10 goto +3
        r1 = r8\nr1 = r6\nr1 = r7\nr0 = 0\nexit""",
    "a 32-bit sum of a wide number is linked to nothing": """
        call 7\nr6 = r0\nr7 = r6\nw7 += 3\nif r7 < 10 goto +1\nr8 = r6\nr0 = r7\nr0 = 0\nexit""",
    "may_goto": "r6 = 0\nmay_goto +2\nr6 += 1\ngoto -3\nr0 = 0\nexit",
    "an odd use of a pointer": "r1 *= 2\nr0 = 0\nexit",
    "variable offsets into the stack": """
        *(u64 *)(r10 - 8) = 0\n*(u64 *)(r10 - 16) = 7\ncall 7\nr0 &= 7\nr1 = r10\nr1 += r0
        r2 = *(u8 *)(r1 - 16)\n*(u8 *)(r1 - 16) = r2\nr3 = *(u64 *)(r10 - 16)\nr0 = 0\nexit""",
}


def written(ask: Any, program: Program, level: int) -> str:
    """Return the log of one side, without what no two runs have alike."""
    try:
        return comparable(ask(program, log_level=level | STATS).log)
    except VerifierError as error:
        return comparable(error.log)


def by_kernel(program: Program, *, log_level: int) -> Any:
    """Load a program into the live kernel for a moment."""
    with Kernel() as kernel, kernel.prog_load(program, log_level=log_level) as prog:
        return prog


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("text", CASES.values(), ids=CASES.keys())
def test_an_idea(text: str, level: int) -> None:
    lines = "\n".join(line.strip() for line in text.splitlines())
    program = Program(name="case", type="sched_cls", insns=tuple(assemble(lines)), license="GPL")
    assert written(verify, program, level) == written(by_kernel, program, level)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.c")), ids=lambda path: path.stem)
def test_an_example(path: Path) -> None:
    obj = compile(str(path))
    for row in programs(obj):
        program = link(obj, program=row.name)
        for level in (1, 2):
            assert written(verify, program, level) == written(by_kernel, program, level)


@pytest.mark.parametrize("level", [1, 2])
def test_generated_programs(level: int) -> None:
    oracle, differ = Oracle(), []
    for seed in range(SEEDS):
        program = generate(seed)
        if level == 2 and any(insn.code in FETCHING and insn.imm & FETCH for insn in program.insns):
            continue  # precision differs: see verifier/precision.py
        ours, kernels = written(verify, program, level), comparable(oracle.log(program, level | STATS))
        if ours != kernels and not any(words in ours for words in OTHER_WORDS):
            lines = zip(ours.splitlines(), kernels.splitlines(), strict=False)
            differ.append((seed, next((pair for pair in lines if pair[0] != pair[1]), "one is longer")))
    assert not differ

"""The generator of programs makes what it says, and the minimiser keeps what it is asked to keep."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from generator import generate
from generator.case import as_case
from generator.edit import splice, target
from generator.minimise import minimise
from generator.oracle import Verdict
from tcbpf.errors import VerifierError
from tcbpf.isa.insn import Insn
from tcbpf.obj.program import Func, Program
from tcbpf.tables.helpers import HELPERS
from tcbpf.tables.insns import ALU, ATOMICS, END, JUMP, Kind, op_of
from tcbpf.tables.progs import PROG_TYPES
from tcbpf.verifier import verify
from verifier.cases import read

COUNT = 4000
RARE = 8
"""So many of all helpers may be missed: some need a kernel variable or a task's memory, some are just not hit."""


@pytest.fixture(scope="module")
def programs() -> list[Program]:
    return [generate(seed) for seed in range(COUNT)]


def test_a_seed_is_a_program(programs: list[Program]) -> None:
    assert [generate(seed) for seed in range(20)] == programs[:20]
    assert len(set(programs)) > 0.99 * COUNT


def test_more_than_half_are_accepted(programs: list[Program]) -> None:
    """A generator that has gone wrong makes programs that are all refused, or all trivial."""
    accepted, reasons = 0, Counter[str]()
    for program in programs[:400]:
        try:
            verify(program)
            accepted += 1
        except VerifierError as error:
            reasons[error.reason] += 1
    assert 0.4 < accepted / 400 < 0.75
    assert len(reasons) >= 20 and reasons.most_common(1)[0][1] < (400 - accepted) / 2


def test_every_row_of_the_instructions_is_used(programs: list[Program]) -> None:
    used = set()
    for program in programs:
        skip = False
        for insn in program.insns:
            op = None if skip else op_of(insn.code, insn.src, insn.off, insn.imm)
            skip = insn.code == 0x18 and not skip
            if op is not None:
                used.add((op.row.name if op.row else op.kind.name, op.width, op.use_reg))
    names = {name for name, _, _ in used}
    assert {row.name for table in (ALU, END, JUMP, ATOMICS) for row in table} <= names
    assert {kind.name for kind in Kind} - names <= {"ALU", "JUMP", "ATOMIC"}
    assert {(row.name, width, reg) for row in JUMP for width in (32, 64) for reg in (False, True)} <= used
    assert {(row.name, width, True) for row in ALU for width in row.widths if not row.unary} <= used


def test_every_helper_is_called(programs: list[Program]) -> None:
    called: dict[str, set[str]] = {name: set() for name in PROG_TYPES.names()}
    for program in programs:
        for insn in program.insns:
            if insn.code == 0x85 and not insn.src and (row := HELPERS.at(insn.imm)):
                called[program.type].add(row.name)
    everywhere = set.union(*called.values())
    missing = {row.name for row in HELPERS} - everywhere
    assert len(missing) <= RARE, missing
    assert all(len(names) > 40 for names in called.values()), {type: len(names) for type, names in called.items()}


# --- changing programs ---------------------------------------------------------------------------------------------------

JUMPS = Program(
    "p",
    "sched_cls",
    (
        Insn(0x15, 1, 0, 3, 0),  # 0: if r1 == 0 goto 4
        Insn(0xB7, 0),
        Insn(0xB7, 2),
        Insn(0x05, off=-3),  # 1: goto 1
        Insn(0x85, 0, 1, 0, 1),  # 4: call 6
        Insn(0x95),
        Insn(0xB7, 0),
        Insn(0x95),
    ),
    funcs=(Func(0, "a", 1), Func(6, "b", 2)),
)


def aims(program: Program) -> list[int | None]:
    return [target(program.insns, pc) for pc in range(len(program.insns))]


def test_jumps_and_functions_follow_what_they_point_at() -> None:
    assert aims(JUMPS) == [4, None, None, 1, 6, None, None, None]
    less = splice(JUMPS, 2, 1)
    assert aims(less) == [3, None, 1, 5, None, None, None] and less.funcs[1].pc == 5
    assert aims(splice(JUMPS, 1, 1))[2] == 1, "what pointed at the instruction points behind it"
    more = splice(JUMPS, 2, 0, [Insn(0xB7, 3), Insn(0xB7, 4)])
    assert aims(more) == [6, None, None, None, None, 1, 8, None, None, None] and more.funcs[1].pc == 8
    assert more.raw_func_info[8] == 8


def test_the_minimiser_keeps_the_difference_and_nothing_else() -> None:
    program = next(p for p in map(generate, range(200)) if len(p.insns) > 60 and any(i.code == 0x27 for i in p.insns))
    small = minimise(program, lambda p: any(i.code == 0x27 for i in p.insns))
    assert [insn.code for insn in small.insns] == [0x27] and not small.maps and not small.funcs


def named(program: Program) -> list[object]:
    """Return the instructions, a kernel function by its name, which has another number in each program."""
    return [program.kfuncs[insn.imm] if insn.code == 0x85 and insn.src == 2 else insn for insn in program.insns]


def test_a_program_is_a_case(tmp_path: Path) -> None:
    """What the minimiser prints can be put among the cases: it is read as the same program."""
    for seed in range(150):
        program = generate(seed)
        path = tmp_path / f"{seed}.txt"
        path.write_text(as_case(program, "it", Verdict(True)) + "\n")
        (case,) = read(path)
        assert named(case.program) == named(program), seed
        assert [m.spec.name for m in case.program.maps] == [m.spec.name for m in program.maps]
        assert [(f.pc, f.name, f.is_global) for f in case.program.funcs] == [(f.pc, f.name, f.is_global) for f in program.funcs]

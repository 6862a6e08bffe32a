"""The verifier's rules of a kernel release: each turns a verdict at the release of its row, and at no other."""

from __future__ import annotations

import pytest

from tcbpf.errors import VerifierError
from tcbpf.isa.asm import assemble_lines
from tcbpf.obj.program import MapSpec, Program
from tcbpf.tables.row import Release
from tcbpf.tables.rules import RULES, Rule
from tcbpf.verifier import verify

ARRAY = MapSpec("array", "array", 4, 8, 4)
PROGRAMS = {
    "array_key_in_bounds": """
        *(u32 *)(r10 -8) = 3
        r2 = r10
        r2 += -8
        r1 = map[array]
        call bpf_map_lookup_elem
        r0 = *(u64 *)(r0 +0)
        exit
    """,
}
"""Accepted where the rule holds, and refused where it does not."""


def accepted(text: str, kernel: Release) -> bool:
    """Tell whether kernels of that release accept a tc program."""
    made = assemble_lines(text, maps=["array"])
    try:
        verify(Program("rule", "sched_cls", made.insns, maps=(ARRAY,), license="GPL"), kernel=kernel)
    except VerifierError:
        return False
    return True


def test_every_rule_has_a_program() -> None:
    assert set(PROGRAMS) == set(RULES.names())


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_the_verdict_turns_at_its_release(rule: Rule) -> None:
    major, minor = rule.since
    assert accepted(PROGRAMS[rule.name], rule.since)
    assert not accepted(PROGRAMS[rule.name], (major, minor - 1))


def test_a_rule_that_names_no_release_never_holds() -> None:
    assert not Rule("none", "").holds((6, 18))


def test_a_rule_ends_with_the_first_release_without_it() -> None:
    rule = Rule("dropped", "", since=(5, 3), until=(6, 1))
    assert [rule.holds(kernel) for kernel in ((5, 2), (5, 3), (6, 0), (6, 1))] == [False, True, True, False]

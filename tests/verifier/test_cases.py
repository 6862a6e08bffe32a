"""The cases: each gets its verdict, the kernel's words and its reason's name from us, and the same from the live kernel."""

from __future__ import annotations

from functools import lru_cache

import pytest

from tcbpf.datapath.kernel import Kernel
from tcbpf.errors import VerifierError
from tcbpf.verifier import verify
from tcbpf.verifier.words.reasons import REASONS
from verifier.cases import Case, cases
from verifier.unprivileged import ask

kernel = pytest.mark.kernel

WITHOUT_CASE = {
    "not_supported": "what this verifier leaves out",
    "release": "what a later release has than the one asked for: test_kfuncs.py",
    "type_privilege": "the kernel says EPERM and no word: test_verify.py",
    "map_ptr_access": "every map type that these programs can name has a structure of the kernel's",
    "btf_write_field": "writes to a connection need the kernel's connection tracking: the kernel's own test_bpf_nf_fail",
    "not_acquired": "a guard: a register whose reference is gone is no pointer any more",
    "kfunc_memory_pair": "never the first line, but behind what is wrong with the memory",
    "kfunc_string": "no function of the kernel for these program types takes a constant string",
    "kfunc_btf": "a guard: the pointer's kind was found by its type before",
    "kfunc_allocated_reference": "a guard: an object without a reference is a borrowed one, which has a reason of its own",
    "graph_callback": "needs a tree in global data: the kernel's own rbtree_fail",
    "irq_family": "this verifier does not follow bpf_res_spin_lock_irqsave()",
    "dynptr_kind": "a guard: only dynptrs of ring buffers hold a reference, which is asked for before",
}
"""Reasons that no case shows, and why."""


def marked(chosen: list[Case]) -> list[object]:
    """Return cases as parameters, those that take long marked so."""
    return [pytest.param(case, id=str(case), marks=[pytest.mark.slow] if case.slow else []) for case in chosen]


def ours(case: Case) -> tuple[str, str]:
    """Return (reason, words), both empty for an accepted program."""
    try:
        verify(case.program, privileged=case.privilege != "none", perfmon=case.privilege == "all")
    except VerifierError as error:
        return str(error.reason), error.message
    return "", ""


def kernels(case: Case) -> tuple[int, str]:
    """Return the live kernel's (errno, words), 0 and "" for an accepted program."""
    try:
        Kernel().prog_load(case.program).close()
    except VerifierError as error:
        return error.errno, error.message
    return 0, ""


def expected(case: Case) -> tuple[int, str]:
    """Return the errno of the case's reason, and its words."""
    return REASONS[case.reject].errno if case.reject else 0, case.says


@lru_cache
def asked(privilege: str) -> dict[str, tuple[int, str]]:
    """Return what the live kernel says to users of a privilege about all their cases."""
    mine = [case for case in cases() if case.privilege == privilege]
    return dict(zip(map(str, mine), ask(privilege, kernels, mine), strict=True))


@pytest.mark.parametrize("case", marked(list(cases())))
def test_our_verdict(case: Case) -> None:
    assert ours(case) == (case.reject, case.says)


@pytest.mark.parametrize("case", marked([case for case in cases() if case.privilege == "all"]))
class TestKernel:
    pytestmark = kernel

    def test_the_kernels_verdict(self, case: Case) -> None:
        assert kernels(case) == expected(case)


@pytest.mark.parametrize("case", marked([case for case in cases() if case.privilege != "all"]))
class TestWithoutPrivilege:
    pytestmark = kernel

    def test_the_kernels_verdict(self, case: Case) -> None:
        assert asked(case.privilege)[str(case)] == expected(case)


def test_every_reason_has_a_case() -> None:
    seen = {case.reject for case in cases()} - {""}
    names = {row.name for row in REASONS}
    assert sorted(seen - names) == []
    assert sorted(names - seen - set(WITHOUT_CASE)) == []
    assert sorted(set(WITHOUT_CASE) - names) == sorted(set(WITHOUT_CASE) & seen) == []


def test_every_feature_accepts_and_rejects() -> None:
    verdicts: dict[str, set[bool]] = {}
    for case in cases():
        verdicts.setdefault(case.feature, set()).add(not case.reject)
    assert {feature for feature, both in verdicts.items() if len(both) < 2} == set()

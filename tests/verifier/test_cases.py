"""The cases: each gets its verdict, the kernel's words and its reason's name from us, and the same from the live kernel."""

from __future__ import annotations

from functools import lru_cache

import pytest

import kernel_oracle
from tcbpf.datapath.kernel import Kernel
from tcbpf.errors import VerifierError
from tcbpf.verifier import verify
from verifier.cases import Case, cases
from verifier.unprivileged import ask

kernel = [
    pytest.mark.kernel,
    pytest.mark.skipif(bool(kernel_oracle.missing()), reason=kernel_oracle.missing() or "the kernel answers"),
]


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


def words_of_kernel(case: Case) -> str:
    """Return what the live kernel says, "" for an accepted program."""
    try:
        Kernel().prog_load(case.program).close()
    except VerifierError as error:
        return error.message
    return ""


@lru_cache
def asked(privilege: str) -> dict[str, str]:
    """Return what the live kernel says to users of a privilege about all their cases."""
    mine = [case for case in cases() if case.privilege == privilege]
    return dict(zip(map(str, mine), ask(privilege, words_of_kernel, mine), strict=True))


@pytest.mark.parametrize("case", marked(list(cases())))
def test_our_verdict(case: Case) -> None:
    assert ours(case) == (case.reject, case.says)


@pytest.mark.parametrize("case", marked([case for case in cases() if case.privilege == "all"]))
class TestKernel:
    pytestmark = kernel

    def test_the_kernels_verdict(self, case: Case) -> None:
        assert words_of_kernel(case) == case.says


@pytest.mark.parametrize("case", marked([case for case in cases() if case.privilege != "all"]))
class TestWithoutPrivilege:
    pytestmark = kernel

    def test_the_kernels_verdict(self, case: Case) -> None:
        assert asked(case.privilege)[str(case)] == case.says


def test_every_feature_accepts_and_rejects() -> None:
    verdicts: dict[str, set[bool]] = {}
    for case in cases():
        verdicts.setdefault(case.feature, set()).add(not case.reject)
    assert {feature for feature, both in verdicts.items() if len(both) < 2} == set()

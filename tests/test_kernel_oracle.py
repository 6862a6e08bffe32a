"""Only a kernel that cannot be asked is skipped for: a refused load is a fault, and fails."""

from __future__ import annotations

import errno

import pytest

import kernel_oracle
from conftest import left_out


@pytest.mark.parametrize("code", [errno.EPERM, errno.EACCES, errno.ENOSYS])
def test_no_privilege_and_no_bpf_are_reasons(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_oracle, "verdict", lambda *_, **__: (code, ""))
    assert kernel_oracle.missing.__wrapped__()


@pytest.mark.parametrize("code", [errno.EINVAL, errno.E2BIG, errno.EFAULT, errno.ENOMEM])
def test_any_other_refusal_is_a_fault(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_oracle, "verdict", lambda *_, **__: (code, ""))
    with pytest.raises(OSError, match="refuses the smallest program"):
        kernel_oracle.missing.__wrapped__()


def test_a_required_kernel_that_is_missing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_oracle, "missing", lambda: "bpf(2): Operation not permitted")
    monkeypatch.setattr(kernel_oracle, "release", lambda: (6, 1))
    monkeypatch.delenv("TCBPF_REQUIRE_KERNEL", raising=False)
    with pytest.raises(pytest.skip.Exception, match="not permitted"):
        kernel_oracle.need()
    monkeypatch.setenv("TCBPF_REQUIRE_KERNEL", "1")
    with pytest.raises(pytest.fail.Exception, match="not permitted"):
        kernel_oracle.need()
    monkeypatch.setattr(kernel_oracle, "missing", lambda: "")
    with pytest.raises(pytest.fail.Exception, match=r"older than 6\.18"):
        kernel_oracle.need(since=(6, 18))


def test_the_summary_names_what_was_not_tested() -> None:
    refused = f"{kernel_oracle.REFUSED}: bpf(2): Operation not permitted"
    reasons = [refused, "no tcpdump", refused, "packet sockets need root"]
    assert left_out([], root=False) == ""
    told = f"not tested: 2 ({refused}); 1 (no tcpdump); 1 (packet sockets need root)"
    assert left_out(reasons, root=True) == told
    assert left_out(reasons, root=False).startswith(f"{told}. Root adds 3 of them")

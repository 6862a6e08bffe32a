"""The rows of kernel functions, held against the running kernel that they were read from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import kernel_oracle
from kernel_memory import symbols
from tcbpf.tables.kfuncs import KFUNCS, Param

ROOT = Path(__file__).parents[2]


def test_a_prototype_is_taken_apart() -> None:
    row = KFUNCS["bpf_dynptr_slice"]
    assert row.ret == Param("void *")
    assert [(p.type, p.name, p.pointer) for p in row.params] == [
        ("struct bpf_dynptr *", "p", True),
        ("u32", "offset", False),
        ("void *", "buffer__opt", True),
        ("u32", "buffer__szk", False),
    ]
    assert row.has("RET_NULL") and not row.has("ACQUIRE")
    assert row.progs == {"sched_cls", "sched_act", "socket_filter", "xdp", "cgroup_skb"}


def test_every_function_that_may_be_called_says_since_when() -> None:
    assert [row.name for row in KFUNCS if row.progs and row.since == (99, 0)] == []


@pytest.mark.kernel(since=(6, 18))
def test_the_rows_are_the_running_kernels() -> None:
    if not symbols():
        kernel_oracle.unavailable("/proc/kallsyms hides addresses")
    done = subprocess.run([sys.executable, str(ROOT / "scripts/generate_kfuncs.py"), "--check"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "kfuncs agree with the running kernel\n")

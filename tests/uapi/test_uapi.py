"""The generated numbers, against the rows that people write and against the running kernel."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from kernel_oracle import release, unavailable
from tcbpf.tables.actions import ACTIONS
from tcbpf.tables.helpers import HELPERS
from tcbpf.tables.insns import ATOMICS, JUMP
from tcbpf.tables.maps import FLAG_NAMES, MAP_TYPES
from tcbpf.tables.progs import PROG_TYPES
from tcbpf.uapi import bpf, tc

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/generate_uapi.py"


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_uapi", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_helper_ids() -> None:
    for row in HELPERS:
        assert getattr(bpf, f"BPF_FUNC_{row.name}") == row.id


def test_map_types_and_flags() -> None:
    for row in MAP_TYPES:
        assert getattr(bpf, f"BPF_MAP_TYPE_{row.name.upper()}") == row.number
    assert {row.number for row in MAP_TYPES} == set(bpf.BPF_MAP_TYPE) - {0}
    for value, name in FLAG_NAMES.items():
        assert getattr(bpf, name) == value


def test_program_and_attach_types() -> None:
    names = {0: "BPF_CGROUP_INET_INGRESS", 1: "BPF_CGROUP_INET_EGRESS"}
    for row in PROG_TYPES:
        assert getattr(bpf, f"BPF_PROG_TYPE_{row.name.upper()}") == row.number
        for section in row.sections:
            if section.attach_type or row.name == "cgroup_skb":
                word = section.name.replace("xdp.frags", "xdp").upper().replace("/", "_").replace("TC_", "TCX_")
                assert names.get(section.attach_type, f"BPF_{word}") == bpf.BPF_ATTACH_TYPE[section.attach_type]


def test_actions() -> None:
    for row in ACTIONS:
        assert getattr(tc, f"TC_ACT_{row.name.upper()}") == row.number


def test_opcodes() -> None:
    for row in JUMP:
        if hasattr(bpf, f"BPF_{row.name}"):  # the others are classic BPF's
            assert getattr(bpf, f"BPF_{row.name}") == row.code << 4
    assert {bpf.BPF_XCHG, bpf.BPF_CMPXCHG, bpf.BPF_FETCH} <= {row.imm for row in ATOMICS}


def test_header_reader() -> None:
    """Enumerations count on, refer back and stop at macros; definitions follow C's precedence."""
    text = "enum { A, B = 4, C, /* x */ D = (1 << 3) | B,\n};\n#define E (D + 1UL)\n#define F(x) x\n#define G sizeof(int)\n"
    assert generator().header_numbers(text, {}) == {"A": 0, "B": 4, "C": 5, "D": 12, "E": 13}


@pytest.mark.kernel
def test_no_drift_from_the_running_kernel() -> None:
    module = generator()
    if not module.BTF.exists():
        unavailable(f"no {module.BTF}")
    problems = module.drift()
    if release() > (6, 18):  # a newer kernel may have more, never other numbers
        problems = [problem for problem in problems if "is not here" not in problem]
    assert not problems

"""scripts/check_c fails on C that a compiler or cppcheck warns of."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FAULTS = {
    "no prototype": "int planted(void) { return 0; }",
    "a narrowing conversion": "static inline u8 planted(u64 x) { return x; }",
    "a shadowed name": "static inline int planted(int x) { { int x = 1; return x; } }",
}


def check(root: Path) -> subprocess.CompletedProcess[str]:
    """Run the check of a copy, with this Python's compiler."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {name: value for name, value in os.environ.items() if name != "TCBPF_REQUIRE_KERNEL"} | {"PATH": path}
    return subprocess.run([root / "scripts/check_c"], capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("text", FAULTS.values(), ids=FAULTS)
def test_a_fault_in_the_runtime_is_seen(tmp_path: Path, text: str) -> None:
    shutil.copytree(ROOT / "src/tcbpf/native/src", tmp_path / "src/tcbpf/native/src")
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/check_c", tmp_path / "scripts")
    with (tmp_path / "src/tcbpf/native/src/runtime.c").open("a") as file:
        file.write(f"\n{text}\n")
    done = check(tmp_path)
    assert done.returncode != 0
    assert "planted" in done.stderr or "-Werror" in done.stderr

"""The runtime under random use (stress.c), built to notice what it should not do.

AddressSanitizer and UndefinedBehaviorSanitizer where gcc or clang have them. The compiler that pip installs lacks
AddressSanitizer's library: its build traps on undefined behaviour, and buffers end at unreadable pages.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tcbpf.native.build import SOURCES

STRESS = Path(__file__).parent / "stress.c"
COMMON = ("-std=gnu11", "-g", "-O1", "-fwrapv", "-fno-strict-aliasing", "-Wno-attributes", f"-I{SOURCES}")
SANITIZED = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
GUARDED = (sys.executable, "-m", "ziglang", "cc", "-fsanitize=undefined", "-fsanitize-trap=undefined")


def build(directory: Path, *command: str) -> Path:
    program = directory / "stress"
    whole = (*command, *COMMON, str(STRESS), "-o", str(program))
    done = subprocess.run(whole, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return program


def with_asan(directory: Path) -> str:
    """Return a compiler that has AddressSanitizer, as probed with a program that it must catch, or ""."""
    source, program = directory / "probe.c", directory / "probe"
    source.write_text("int main(int argc, char **argv) { volatile char a[4]; a[argc + 3] = 1; return a[0]; }\n")
    for compiler in filter(shutil.which, ("gcc", "clang", "cc")):
        command = (compiler, "-fsanitize=address", str(source), "-o", str(program))
        made = subprocess.run(command, capture_output=True, check=False)
        if made.returncode == 0 and b"AddressSanitizer" in subprocess.run(program, capture_output=True, check=False).stderr:
            return compiler
    return ""


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("asan")
    compiler = with_asan(directory)
    if not compiler:
        pytest.skip("no compiler here has AddressSanitizer")
    return build(directory, compiler, *SANITIZED)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("guarded"), *GUARDED)


@pytest.mark.parametrize("seed", range(3))
def test_sanitized(sanitized: Path, seed: int) -> None:
    run(sanitized, seed, 2000)


@pytest.mark.parametrize("seed", range(3, 6))
def test_guarded(guarded: Path, seed: int) -> None:
    run(guarded, seed, 2000)


def run(program: Path, seed: int, rounds: int) -> None:
    done = subprocess.run((program, str(seed), str(rounds)), capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.startswith("ok")

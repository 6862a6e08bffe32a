"""The C sources: one translation unit, every file of which runtime.c includes, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from tcbpf.native.build import SOURCES

SRC = Path(SOURCES)
INCLUDE = re.compile(r'^#include "(.+\.c)"$', re.M)


def test_runtime_c_includes_every_c_file_once() -> None:
    included = INCLUDE.findall((SRC / "runtime.c").read_text())
    present = {str(path.relative_to(SRC)) for path in SRC.rglob("*.c")} - {"runtime.c"}
    assert len(included) == len(set(included))
    assert set(included) == present


def test_no_other_file_includes_a_c_file() -> None:
    for path in SRC.rglob("*.[ch]"):
        if path.name != "runtime.c":
            assert not INCLUDE.findall(path.read_text()), path

"""The C sources: one translation unit, every file of which runtime.c includes, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from tcbpf.native.build import SOURCES
from tcbpf.tables.maps import MAP_TYPES

SRC = Path(SOURCES)
MAP_TYPE = re.compile(r"^    TYPE\((\w+), +(\d+), +(.+?), +\w+, ", re.M)
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


def test_the_map_types_of_c_are_those_of_the_table() -> None:
    rows = MAP_TYPE.findall((SRC / "maps/types.h").read_text())
    ours = {(row.name, row.number) for row in MAP_TYPES if row.user}
    assert {(name.lower(), int(number)) for name, number, _ in rows} == ours
    for name, _, traits in rows:
        assert ("PER_CPU" in traits.split(" | ")) == MAP_TYPES[name.lower()].per_cpu, name
        assert ("CPU_RINGS" in traits) == (MAP_TYPES[name.lower()].records == "perf"), name
        assert ("LRU" in traits.split(" | ")) == name.startswith("LRU_")

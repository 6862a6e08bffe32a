"""The ELF reader against pyelftools, on every example."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from tcbpf.lang import compile_c
from tcbpf.obj import elf

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.c"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_sections_symbols_and_relocations_are_those_of_pyelftools(path):
    raw = compile_c(path)
    mine, other = elf.read(raw), ELFFile(io.BytesIO(raw))
    sections = list(other.iter_sections())
    assert [(s.name, s.size, s.flags) for s in mine.sections] == [(s.name, s["sh_size"], s["sh_flags"]) for s in sections]
    assert all(m.data == s.data() for m, s in zip(mine.sections, sections, strict=True) if s["sh_type"] == "SHT_PROGBITS")
    symbols = list(other.get_section_by_name(".symtab").iter_symbols())
    kind = {"STT_NOTYPE": 0, "STT_OBJECT": 1, "STT_FUNC": 2, "STT_SECTION": 3, "STT_FILE": 4}
    assert [(s.value, s.size, s.type) for s in mine.symbols] == [
        (s["st_value"], s["st_size"], kind[s["st_info"]["type"]]) for s in symbols
    ]
    assert all(m.name == s.name for m, s in zip(mine.symbols, symbols, strict=True) if m.type != elf.STT_SECTION)
    for index, rows in mine.relocations.items():
        (section,) = [s for s in sections if s["sh_type"] == "SHT_REL" and s["sh_info"] == index]
        assert [(r.offset, r.type, r.symbol) for r in rows] == sorted(
            (r["r_offset"], r["r_info_type"], r["r_info_sym"]) for r in section.iter_relocations()
        )

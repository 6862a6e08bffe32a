"""The large programs of `tcbpf bench` compile with the packaged compiler and are accepted by the live kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from tcbpf.datapath.kernel import Kernel
from tcbpf.lang.c import compile
from tcbpf.obj.link import link

PROGRAMS = sorted(Path(__file__).resolve().parents[2].joinpath("benchmarks/verify").glob("*.c"))


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_it_compiles_with_the_packaged_compiler(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCBPF_CC", "ziglang")
    assert len(link(compile(path)).insns) > 1500


@pytest.mark.kernel(since=(6, 9))
@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_the_kernel_accepts_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCBPF_CC", "ziglang")
    with Kernel() as kernel, kernel.prog_load(link(compile(path)), log_level=4) as prog:
        assert "processed" in prog.log

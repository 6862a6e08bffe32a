"""What `tcbpf bench` reports, without the minutes that measuring takes."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

import kernel_oracle
from tcbpf.cli import bench, measure, measure_verify
from tcbpf.cli import main as tcbpf
from tcbpf.errors import InputError

PROGRAMS = Path(__file__).parents[2] / "benchmarks"


def test_a_ratio_is_without_the_empty_program():
    empty = measure.Subject("empty", 2, {}, 1.0, times={"jit": 2.0, "kernel": 26.0})
    subject = measure.Subject("x", 10, {}, 1.0, times={"jit": 12.0, "kernel": 46.0})
    assert measure.ratio(subject, empty, "kernel") == 0.5
    assert measure.ratio(subject, empty, "native") is None
    assert bench.geomean([0.5, 2.0, 1.0]) == pytest.approx(1)


def test_there_are_eight_programs_and_an_empty_one():
    paths = measure.sources(PROGRAMS)
    assert paths[0].stem == "empty" and len(paths) > 8


def test_no_programs_is_said(tmp_path, capsys):
    with pytest.raises(InputError, match="no benchmark programs"):
        measure.sources(tmp_path)
    assert tcbpf(["bench", "--programs", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_program_runs_on_every_engine_and_gives_the_same():
    subject = measure.prepare(PROGRAMS / "fnv.c", None)
    measure.measure([subject], rounds=1)
    assert subject.times.keys() == {"jit", "native"} and all(time > 0 for time in subject.times.values())


def test_the_report_has_its_keys(tmp_path, monkeypatch, capsys):
    def prepare(path, kernel):
        return measure.Subject(path.stem, 10, {}, 5.0, times={"jit": 3.0, "native": 2.0})

    monkeypatch.setattr(measure, "prepare", prepare)
    monkeypatch.setattr(measure, "measure", lambda subjects, rounds: None)
    monkeypatch.setattr(measure, "loading", lambda path: {"insns": 1000.0, "cold_ms": 80.0, "cached_ms": 0.4})
    monkeypatch.setattr(measure, "wall", lambda *a, **k: 0.1)
    monkeypatch.setattr(bench, "_loop", lambda *a: 0.02)
    monkeypatch.setattr(measure_verify, "verifying", lambda *a: verified)
    monkeypatch.setattr(bench, "_kernel", lambda missing: missing.append("the kernel's JIT: not asked"))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    cost = measure_verify.Cost(7000, True, 500_000, 500_001, 5e4, 5e5, 60.0)
    verified = {"min": cost.ratio, "programs": {"large": cost.ratio}, "costs": {"large": asdict(cost)}}
    out = tmp_path / "bench.json"
    assert tcbpf(["bench", "--quick", "--json", str(out)]) == 0
    report = json.loads(out.read_text())
    assert {"run_vs_kernel_jit", "run_vs_native", "pcap_vs_tcpdump", "wall_vs_tcpdump", "compile_us_per_insn"} <= report.keys()
    assert report["verify_vs_kernel"]["programs"] == {"large": 0.1}
    assert report["run_vs_native"]["programs"]["flows"] > 0 and report["run_vs_kernel_jit"] is None
    printed = capsys.readouterr().out
    assert "not measured: the kernel's JIT" in printed and "not measured: tcpdump" in printed


@pytest.mark.slow
def test_all_of_it(tmp_path):
    assert tcbpf(["bench", "--quick", "--json", str(tmp_path / "bench.json")]) == 0


@pytest.mark.kernel
@pytest.mark.skipif(bool(kernel_oracle.missing()), reason=kernel_oracle.missing() or "the kernel answers")
def test_a_program_is_verified_beside_the_kernel(tmp_path):
    for name in ("flows.c", "packet.h"):
        shutil.copy(PROGRAMS / name, tmp_path)
    report = measure_verify.verifying(tmp_path, rounds=1)
    cost = report["costs"]["flows"]
    assert cost["same_verdict"] and cost["processed"] == cost["kernel_processed"] > cost["insns"]
    assert cost["peak_mb"] > 10 and report["min"] == cost["rate"] / cost["kernel_rate"]

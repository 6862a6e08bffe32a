"""What `tcbpf bench` reports, without the minutes that measuring takes."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

from tcbpf.cli import main as tcbpf
from tcbpf.cli.bench import capture as measure_capture
from tcbpf.cli.bench import command as bench
from tcbpf.cli.bench import measure
from tcbpf.cli.bench import verify as measure_verify
from tcbpf.errors import InputError, InternalError

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


def answer(self, environment):
    """What a command prints, without running it."""
    self.seconds = 0.1
    self.printed.append(json.dumps({"verdicts": {"0": 3}, "matches": 3, "duration_ns": 20_000_000}))


def test_the_report_has_its_keys(tmp_path, monkeypatch, capsys):
    def prepare(path, kernel):
        return measure.Subject(path.stem, 10, {}, 5.0, times={"jit": 3.0, "native": 2.0})

    monkeypatch.setattr(measure, "prepare", prepare)
    monkeypatch.setattr(measure, "measure", lambda subjects, rounds: None)
    monkeypatch.setattr(measure, "loading", lambda path: {"insns": 1000.0, "cold_ms": 80.0, "cached_ms": 0.4})
    monkeypatch.setattr(measure_capture, "start", lambda *a: {"cold_s": 1.0, "warm_s": 0.05, "python_s": 0.02})
    monkeypatch.setattr(measure_capture, "in_turns", lambda commands, *_: [command.once({}) for command in commands])
    monkeypatch.setattr(measure_capture.Timed, "once", answer)
    monkeypatch.setattr(measure_verify, "verifying", lambda *a: verified)
    monkeypatch.setattr(bench, "_kernel", lambda missing: missing.append("the kernel's JIT: not asked"))
    monkeypatch.setattr(shutil, "which", lambda name, **_: None)
    cost = measure_verify.Cost(7000, True, 500_000, 500_001, 5e4, 5e5, 60.0)
    verified = {"min": cost.ratio, "programs": {"large": cost.ratio}, "costs": {"large": asdict(cost)}}
    out = tmp_path / "bench.json"
    assert tcbpf(["bench", "--quick", "--json", str(out)]) == 0
    report = json.loads(out.read_text())
    assert {"run_vs_kernel_jit", "run_vs_native", "pcap_vs_tcpdump", "wall_vs_tcpdump", "compile_us_per_insn"} <= report.keys()
    assert report["cbpf_vs_tcpdump"] is None and report["pcap"]["mpps"] == 1.0
    assert report["compile_us_per_insn"]["fixed_ms"] == 5.0 and report["compile_us_per_insn"]["marginal_us"] == 75.0
    assert report["verify_vs_kernel"]["programs"] == {"large": 0.1}
    assert report["run_vs_native"]["programs"]["flows"] > 0 and report["run_vs_kernel_jit"] is None
    printed = capsys.readouterr().out
    assert "not measured: the kernel's JIT" in printed and "not measured: tcpdump" in printed


@pytest.mark.skipif(not shutil.which("tcpdump"), reason="no tcpdump here")
def test_tcpdump_is_asked_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(measure_capture, "EXPRESSIONS", ("ip6",))
    report = measure_capture.beside_tcpdump(PROGRAMS / "port.c", str(tmp_path), 500, 1)
    for key in ("pcap_vs_tcpdump", "wall_vs_tcpdump"):
        assert report[key]["programs"]["port"] == report[key]["ratio"] > 0
    for key in ("cbpf_vs_tcpdump", "cbpf_wall_vs_tcpdump"):
        assert report[key]["programs"]["ip6"] == pytest.approx(report[key]["geomean"]) and report[key]["geomean"] > 0


@pytest.mark.skipif(not shutil.which("tcpdump"), reason="no tcpdump here")
def test_other_packets_are_no_comparison(tmp_path, monkeypatch):
    monkeypatch.setattr(measure_capture, "EXPRESSIONS", ())
    monkeypatch.setattr(measure_capture, "PORT", "udp dst port 123")
    with pytest.raises(InternalError, match="packets match"):
        measure_capture.beside_tcpdump(PROGRAMS / "port.c", str(tmp_path), 500, 1)


def test_other_results_are_no_comparison(monkeypatch):
    packets = iter([b"one", b"another"])
    monkeypatch.setattr(measure.Skb, "packet", lambda self: next(packets))
    with pytest.raises(InternalError, match="not the same work"):
        measure.prepare(PROGRAMS / "fnv.c", None)


@pytest.mark.slow
def test_all_of_it(tmp_path):
    assert tcbpf(["bench", "--quick", "--json", str(tmp_path / "bench.json")]) == 0


@pytest.mark.kernel
def test_a_program_is_verified_beside_the_kernel(tmp_path):
    for name in ("flows.c", "packet.h"):
        shutil.copy(PROGRAMS / name, tmp_path)
    report = measure_verify.verifying(tmp_path, rounds=1)
    cost = report["costs"]["flows"]
    assert cost["same_verdict"] and cost["processed"] == cost["kernel_processed"] > cost["insns"]
    assert cost["peak_mb"] > 10 and report["min"] == cost["rate"] / cost["kernel_rate"]

"""scripts/bench_history.py keeps ratios, and shows how they moved on one class of machine."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

import bench_history

REPORT = {"run_vs_kernel_jit": {"geomean": 0.5}, "pcap_vs_tcpdump": None, "times_ns": {"empty": 1}, "missing": ["tcpdump"]}


def save(directory: Path, day: int, ratio: float) -> None:
    report = REPORT | {"run_vs_kernel_jit": {"geomean": ratio}}
    bench_history.save(report, directory, datetime(2026, 1, day, 12, 0, tzinfo=UTC), "0.1.0", "abc")


def test_an_entry_holds_ratios_and_no_times(tmp_path: Path) -> None:
    save(tmp_path, 2, 0.51239)
    entry = json.loads((tmp_path / "2026-01-02T1200.json").read_text())
    assert entry["ratios"] == {"run time / kernel JIT": 0.512}
    assert entry["missing"] == ["tcpdump"] and "times_ns" not in entry


def test_the_trend_is_of_one_class_of_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_history, "machine", lambda: "a")
    save(tmp_path, 1, 0.5)
    monkeypatch.setattr(bench_history, "machine", lambda: "b")
    save(tmp_path, 2, 5.0)
    monkeypatch.setattr(bench_history, "machine", lambda: "a")
    save(tmp_path, 3, 0.6)
    lines = bench_history.trend(tmp_path).splitlines()
    assert lines[2].split() == ["run", "time", "/", "kernel", "JIT", "0.50", "5.00", "0.60", "+20%"]


def test_every_entry_of_this_checkout_is_read() -> None:
    entries = list(bench_history.HISTORY.glob("*.json"))
    assert entries
    assert len(bench_history.trend(bench_history.HISTORY).splitlines()[1].split()) == 1 + len(entries)

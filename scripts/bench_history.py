#!/usr/bin/env python3
"""The ratios of `tcbpf bench` over time: one file of benchmarks/history for each measurement.

    bench_history.py                 print the trend, one column for each file, oldest first
    bench_history.py save [REPORT]   measure, or take a file of `tcbpf bench --json`, and keep its ratios

Kept are ratios to what was measured in the same run (the kernel's JIT, its verifier, C, tcpdump); times are of one machine and
are not kept. A ratio moves with the machine too: compare columns of one class.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
HISTORY = ROOT / "benchmarks/history"
RATIOS = {
    # name in the history: (key of the report, key of its summary)
    "run time / kernel JIT": ("run_vs_kernel_jit", "geomean"),
    "run time / C": ("run_vs_native", "geomean"),
    "verifier rate / kernel, least": ("verify_vs_kernel", "min"),
    "capture rate / tcpdump": ("pcap_vs_tcpdump", "ratio"),
    "capture wall time / tcpdump": ("wall_vs_tcpdump", "ratio"),
    "classic rate / tcpdump": ("cbpf_vs_tcpdump", "geomean"),
    "classic wall time / tcpdump": ("cbpf_wall_vs_tcpdump", "geomean"),
}


def kept(report: dict[str, Any]) -> dict[str, float]:
    """Return the ratios of a report; what was not measured is left out."""
    return {name: round(report[key][part], 3) for name, (key, part) in RATIOS.items() if report.get(key)}


def machine() -> str:
    """Return the class of this machine: architecture, CPUs, kernel release."""
    release = ".".join(platform.release().split(".")[:2])
    return f"{platform.machine()}, {os.cpu_count()} CPUs, Linux {release}"


def measure() -> dict[str, Any]:
    """Return the report of a new measurement."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "report.json"
        subprocess.run([sys.executable, "-m", "tcbpf", "bench", "--json", str(path)], check=True)
        return dict(json.loads(path.read_text()))


def save(report: dict[str, Any], directory: Path, now: datetime, version: str, commit: str) -> Path:
    """Write one entry and return its path."""
    if not kept(report):
        raise SystemExit("the report holds no ratios: the measurement did not end")
    entry = {"date": f"{now:%Y-%m-%d}", "version": version, "commit": commit, "machine": machine(), "ratios": kept(report)}
    if report.get("missing"):
        entry["missing"] = report["missing"]
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{now:%Y-%m-%dT%H%M}.json"
    path.write_text(json.dumps(entry, indent=1) + "\n")
    return path


def trend(directory: Path) -> str:
    """Return the table of all entries, with the change from the last entry of the same machine class."""
    entries = [json.loads(path.read_text()) for path in sorted(directory.glob("*.json"))]
    if not entries:
        return f"no entries in {directory}"
    last = entries[-1]
    before = next((entry for entry in reversed(entries[:-1]) if entry["machine"] == last["machine"]), None)
    names = [name for name in RATIOS if any(name in entry["ratios"] for entry in entries)]
    rows = [["", *(entry["date"] for entry in entries), "change"], ["version", *(entry["version"] for entry in entries), ""]]
    for name in names:
        values = [entry["ratios"].get(name) for entry in entries]
        old = before["ratios"].get(name) if before else None
        change = f"{values[-1] / old - 1:+.0%}" if old and values[-1] is not None else ""
        rows.append([name, *("-" if value is None else f"{value:.2f}" for value in values), change])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join([name.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(cells, widths[1:], strict=True))])
        for name, *cells in rows
    ]
    return "\n".join(line.rstrip() for line in lines) + f"\nlast: {last['machine']}, commit {last['commit']}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("save", nargs="?", choices=["save"], help="keep a measurement")
    parser.add_argument("report", nargs="?", type=Path, help="a file of `tcbpf bench --json`")
    parser.add_argument("--directory", type=Path, default=HISTORY)
    args = parser.parse_args()
    if args.save:
        import tcbpf

        report = json.loads(args.report.read_text()) if args.report else measure()
        asked = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
        commit = asked.stdout.strip() or "?"
        print(save(report, args.directory, datetime.now(UTC), tcbpf.__version__, commit))
    print(trend(args.directory))
    return 0


if __name__ == "__main__":
    sys.exit(main())

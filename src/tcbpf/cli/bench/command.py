"""`tcbpf bench`: ratios, side by side in one run. Times of this machine mean little on another; ratios travel."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from tcbpf import files as newfile
from tcbpf.cli.bench import capture as measure_capture
from tcbpf.cli.bench import measure
from tcbpf.cli.bench import verify as measure_verify
from tcbpf.cli.bench.measure import geomean
from tcbpf.cli.output import table
from tcbpf.datapath.kernel import Kernel
from tcbpf.errors import CompileError, InputError, NotSupported, SysError
from tcbpf.lang import c

PACKETS = 1_000_000


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("--json", metavar="FILE", help="write the figures there, with each program's parts")
    parser.add_argument(
        "--programs",
        metavar="DIR",
        type=Path,
        default=Path(__file__).parents[4] / "benchmarks",
        help="the benchmark programs (default: those of the checkout)",
    )
    parser.add_argument("--rounds", type=int, default=measure.ROUNDS, metavar="N", help="rounds; the least of them counts")
    parser.add_argument("--packets", type=int, default=PACKETS, metavar="N", help="packets of the generated capture")
    parser.add_argument("--quick", action="store_true", help="one round, a small capture: does it work?")


def main(args: argparse.Namespace) -> int:
    """Measure, print and write."""
    if args.quick:
        args.rounds, args.packets = 1, 20_000
    if args.rounds < 1 or args.packets < 1:
        raise InputError("nothing to measure", hint="--rounds and --packets are at least 1")
    if args.json:  # before minutes of work, not after
        newfile.write(args.json, b"{}\n")
    missing: list[str] = []
    report = {
        **_programs(args, missing),
        "verify_vs_kernel": _verifying(args, missing),
        **_captures(args, missing),
        "missing": missing,
    }
    if args.json:
        newfile.write(args.json, json.dumps(report, indent=1).encode() + b"\n")
    show(report)
    return 0


def _programs(args: argparse.Namespace, missing: list[str]) -> dict[str, Any]:
    """Return the ratios of single programs."""
    kernel = _kernel(missing)
    paths = measure.sources(args.programs)
    measure.prepare(paths[0], None)  # pays what only the first compilation pays
    subjects = [measure.prepare(path, kernel) for path in paths]
    measure.measure(subjects, args.rounds)
    empty, rest = subjects[0], subjects[1:]
    report: dict[str, Any] = {"times_ns": {s.name: {e: round(t, 2) for e, t in s.times.items()} for s in subjects}}
    for key, engine in (("run_vs_kernel_jit", "kernel"), ("run_vs_native", "native")):
        ratios = {s.name: r for s in rest if (r := measure.ratio(s, empty, engine)) is not None}
        report[key] = {"geomean": geomean(ratios.values()), "programs": ratios} if ratios else None
    load = report["load"] = measure.loading(args.programs / "thousand.c")
    parts = {s.name: s.compile_ms * 1000 / s.insns for s in rest}
    report["compile_us_per_insn"] = {
        "geomean": geomean(parts.values()),
        "programs": parts,
        "insns": {s.name: s.insns for s in rest},
        "fixed_ms": empty.compile_ms,
        "marginal_us": (load["cold_ms"] - empty.compile_ms) * 1000 / load["insns"],
    }
    if kernel is not None:
        kernel.close()
    return report


def _kernel(missing: list[str]) -> Any:
    try:
        kernel = Kernel()
        kernel.load(c.compile(Path(__file__).parents[4] / "benchmarks" / "empty.c"))
    except (NotSupported, SysError) as error:
        missing.append(f"the kernel's JIT: {error}")
        return None
    return kernel


def _verifying(args: argparse.Namespace, missing: list[str]) -> dict[str, Any] | None:
    """Return our verifier's cost beside the kernel's on large programs; None without the programs or the kernel."""
    directory = args.programs / "verify"
    if not directory.is_dir():
        missing.append(f"large programs to verify: no directory {directory}")
        return None
    try:
        return measure_verify.verifying(directory, min(args.rounds, measure_verify.ROUNDS))
    except (NotSupported, SysError, CompileError) as error:
        missing.append(f"large programs to verify: {error}")
        return None


def _captures(args: argparse.Namespace, missing: list[str]) -> dict[str, Any]:
    """Return the comparison over a capture, and the cost of starting."""
    program, times = args.programs / "port.c", 1 if args.quick else 15
    with tempfile.TemporaryDirectory(prefix="tcbpf-bench-") as scratch:
        report = {
            "start": measure_capture.start(program, scratch, times),
            **measure_capture.beside_tcpdump(program, scratch, args.packets, times),
        }
    if report["pcap_vs_tcpdump"] is None:
        missing.append("tcpdump: not installed")
    return report


def show(report: dict[str, Any]) -> None:
    """Print the report for a person."""
    kernel, native, compiling = (report[key] for key in ("run_vs_kernel_jit", "run_vs_native", "compile_us_per_insn"))
    rows = []
    for name, insns in compiling["insns"].items():
        times = report["times_ns"][name]
        rows.append(
            (
                name,
                insns,
                *(_ns(times.get(engine)) for engine in ("jit", "kernel", "native")),
                _ratio(kernel, name),
                _ratio(native, name),
                round(compiling["programs"][name]),
            )
        )
    rows.append(("geometric mean", "", "", "", "", _ratio(kernel), _ratio(native), round(compiling["geomean"])))
    table(
        ("program", "insns", "ns", "kernel", "native", "/kernel", "/native", "µs/insn"),
        rows,
        title="one run: ours, the kernel's JIT and C at -O3; what an empty program costs is subtracted from the ratios",
    )
    if report["verify_vs_kernel"] is not None:
        print()
        measure_verify.show(report["verify_vs_kernel"])
    load, start, pcap = report["load"], report["start"], report["pcap"]
    rest = [
        ("compile: of any program", f"{compiling['fixed_ms']:.1f} ms"),
        ("compile: of each further instruction", f"{compiling['marginal_us']:.0f} µs"),
        (f"load {load['insns']:.0f} instructions, cold", f"{load['cold_ms']:.0f} ms"),
        ("the same, from the code cache", f"{load['cached_ms']:.2f} ms"),
        ("start to verdict, nothing kept", f"{start['cold_s'] * 1e3:.0f} ms"),
        ("start to verdict, warm", f"{start['warm_s'] * 1e3:.0f} ms, of which {start['python_s'] * 1e3:.0f} Python's own"),
        (f"packet loop over {pcap['packets']} packets", f"{pcap['mpps']:.1f} million a second"),
    ]
    if report["pcap_vs_tcpdump"] is not None:
        classic, whole = report["cbpf_vs_tcpdump"], report["cbpf_wall_vs_tcpdump"]
        rest += [
            (f"tcpdump '{measure_capture.PORT}'", f"{pcap['tcpdump_mpps']:.1f} million a second"),
            ("packet loop over tcpdump, rate", f"{report['pcap_vs_tcpdump']['ratio']:.1f} times"),
            ("whole process over tcpdump, wall time", f"{report['wall_vs_tcpdump']['ratio']:.2f} of it"),
            *(
                (
                    f"cbpf run '{text}' over tcpdump",
                    f"{rate:.1f} times its rate, {whole['programs'][text]:.2f} of its wall time",
                )
                for text, rate in classic["programs"].items()
            ),
        ]
    print()
    table(("measure", ""), rest)
    for line in report["missing"]:
        print(f"not measured: {line}")


def _ns(time: float | None) -> str:
    return "-" if time is None else f"{time:.1f}"


def _ratio(part: dict[str, Any] | None, name: str = "") -> str:
    if part is None:
        return "-"
    return f"{part['programs'][name] if name else part['geomean']:.2f}"

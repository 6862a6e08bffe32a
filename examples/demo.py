"""The main job, once through: a classifier in C, compiled, verified, run over real traffic in this process, and where we
are root on the live kernel too, with the same result."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.table import Table

import tcbpf
from tcbpf.cli.diff import compare
from tcbpf.cli.output import rate, verdict_name

HERE = Path(__file__).parent
SOURCE = HERE / "dns_guard.c"
CAPTURE = HERE / "captures" / "mixed.pcapng"
T = TypeVar("T")
console = Console(highlight=False)


def step(number: int, title: str) -> None:
    """Print a step's heading."""
    console.print(f"\n[bold cyan]{number}[/] [bold]{title}[/]")


def timed(what: Callable[[], T]) -> tuple[T, float]:
    """Return what() and how many milliseconds it took."""
    start = time.perf_counter()
    result = what()
    return result, (time.perf_counter() - start) * 1e3


def run_in_process() -> None:
    """Verify, compile to machine code, and run over the capture; then read the flow table."""
    step(1, f"Compile {SOURCE.name}")
    obj, ms = timed(lambda: tcbpf.compile(str(SOURCE)))
    functions, maps = ", ".join(obj.functions), ", ".join(obj.maps)
    console.print(f"  functions {functions}; maps {maps}; license {obj.license}  [dim]{ms:.0f} ms[/]")

    with tcbpf.User() as dp:
        step(2, "Ask the verifier")
        prog, ms = timed(lambda: dp.load(obj, section="tc"))
        console.print(f"  [green]accept[/]: {prog.insns_processed} instructions processed  [dim]{ms:.0f} ms[/]")

        step(3, f"Run over {CAPTURE.name}, in this process")
        stats = prog.run_pcap(str(CAPTURE))
        table = Table("verdict", "packets", "share", box=None, padding=(0, 3, 0, 2))
        for verdict, count in sorted(stats.verdicts.items()):
            table.add_row(f"{verdict} {verdict_name(verdict)}", str(count), f"{100 * count / stats.packets:.1f}%")
        console.print(table)
        console.print(f"  {stats.packets} packets, {stats.bytes} bytes: {rate(stats.packets, stats.duration_ns)}")

        step(4, "The busiest flows, from the map")
        flows = sorted(dp.maps["flows"].items(), key=lambda item: -item[1]["bytes"])[:5]
        table = Table("source", "packets", "bytes", box=None, padding=(0, 3, 0, 2))
        for address, flow in flows:
            table.add_row(str(address), str(flow["packets"]), str(flow["bytes"]))
        console.print(table)


def run_on_kernel() -> int:
    """Give the same packets to the live kernel; return 1 when anything differs."""
    step(5, "The same on the live kernel")
    try:
        with tcbpf.Kernel() as dp, dp.load(tcbpf.compile(str(SOURCE)), section="tc"):
            pass
    except (tcbpf.SysError, tcbpf.NotSupported) as error:
        console.print(f"  [yellow]not here:[/] {error}")
        return 0
    outcome = compare(tcbpf.compile(str(SOURCE)), str(CAPTURE), "dns_guard")
    skipped = f" [dim]({outcome.skipped} are larger than BPF_PROG_TEST_RUN takes)[/]" if outcome.skipped else ""
    if outcome.difference is None:
        console.print(f"  [green]identical[/]: {outcome.packets} packets: verdict, bytes, context, maps{skipped}")
        return 0
    diff = outcome.difference
    console.print(f"  [red]packet {diff.packet}: {diff.what} differs[/]: user {diff.user!r}, kernel {diff.kernel!r}")
    return 1


if __name__ == "__main__":
    run_in_process()
    sys.exit(run_on_kernel())

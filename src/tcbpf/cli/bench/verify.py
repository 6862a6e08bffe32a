"""The cost of verifying large programs, beside the live kernel: verdict, instructions processed, time and memory."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tcbpf.cli.output import table
from tcbpf.datapath.kernel import Kernel
from tcbpf.errors import NotSupported, SysError, VerifierError
from tcbpf.lang import c
from tcbpf.obj.link import link
from tcbpf.obj.program import Program

ROUNDS = 3
_TIME = re.compile(r"^verification time (\d+) usec$", re.MULTILINE)
_PROCESSED = re.compile(r"^processed (\d+) insns", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Cost:
    """One program: both verdicts, what each processed, and instructions per second; `peak_mb` is our whole process."""

    insns: int
    same_verdict: bool
    processed: int
    kernel_processed: int
    rate: float
    kernel_rate: float
    peak_mb: float

    @property
    def ratio(self) -> float:
        """Return our rate over the kernel's."""
        return self.rate / self.kernel_rate


def verifying(directory: Path, rounds: int = ROUNDS) -> dict[str, Any]:
    """Return the cost of each program in the directory: the least of several rounds, both sides taking turns.

    Raises:  NotSupported, SysError when the live kernel cannot be asked.
    """
    costs = {path.stem: _cost(path, rounds) for path in sorted(directory.glob("*.c"))}
    return {
        "min": min(cost.ratio for cost in costs.values()),
        "programs": {name: cost.ratio for name, cost in costs.items()},
        "costs": {name: asdict(cost) for name, cost in costs.items()},
    }


def _cost(path: Path, rounds: int) -> Cost:
    program = link(c.compile(path))
    ours, theirs = [], []
    for _ in range(rounds):
        theirs.append(_ask_kernel(program))
        ours.append(_ask_us(path))
    accept, processed, seconds, peak = min(ours, key=lambda answer: answer[2])
    kernel_accept, kernel_processed, kernel_seconds = min(theirs, key=lambda answer: answer[2])
    return Cost(
        len(program.insns),
        accept == kernel_accept,
        processed,
        kernel_processed,
        processed / seconds,
        kernel_processed / kernel_seconds,
        peak,
    )


def _ask_kernel(program: Program) -> tuple[bool, int, float]:
    """Return the live kernel's verdict, what it processed, and its own time in seconds."""
    with Kernel() as kernel:
        try:
            with kernel.prog_load(program, log_level=4) as prog:
                accept, log = True, prog.log
        except VerifierError as error:
            accept, log = False, error.log
    took, processed = _TIME.search(log), _PROCESSED.search(log)
    if took is None or processed is None:
        raise NotSupported("the kernel does not say how long its verifier took")
    return accept, int(processed[1]), int(took[1]) / 1e6


def _ask_us(path: Path) -> tuple[bool, int, float, float]:
    """Return our verdict, what we processed, seconds, and megabytes: of a process that does only this."""
    command = [sys.executable, "-m", "tcbpf", "verify", "--json", str(path)]
    with tempfile.TemporaryFile() as out:
        child = subprocess.Popen(command, stdout=out)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read()
    if not text:
        raise SysError(5, " ".join(command), "it printed nothing")
    said = json.loads(text)
    return said["verdict"] == "accept", said["insns_processed"], said["time_ms"] / 1e3, usage.ru_maxrss / 1024


def show(part: dict[str, Any]) -> None:
    """Print what `verifying` returned, for a person."""
    rows = [
        (
            name,
            cost["insns"],
            "same" if cost["same_verdict"] else "DIFFERENT",
            cost["processed"],
            cost["kernel_processed"],
            f"{cost['rate'] / 1e3:.0f}",
            f"{cost['kernel_rate'] / 1e3:.0f}",
            f"{part['programs'][name]:.3f}",
            f"{cost['peak_mb']:.0f}",
        )
        for name, cost in part["costs"].items()
    ]
    table(
        ("program", "insns", "verdict", "processed", "kernel's", "thousand/s", "kernel's", "ratio", "peak MB"),
        rows,
        title="verifying large programs: instructions processed, and their rate beside the live kernel's verifier",
    )

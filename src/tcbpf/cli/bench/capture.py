"""Whole commands over a capture, beside tcpdump: the packet rate, and the wall time of the command.

A rate is of the packets alone: ours as the command reports it, tcpdump's from the extra time that a large capture takes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tcbpf.cli.bench.measure import Timed, geomean, in_turns
from tcbpf.errors import InternalError
from tcbpf.net.generate import generate
from tcbpf.net.pcap import read

FEW = 10
PORT = "udp dst port 53"
"""The filter of benchmarks/port.c as an expression."""

EXPRESSIONS = (PORT, "tcp port 80 and not host 10.0.0.1", "ip6", "src net 10.0.0.0/22 and (tcp dst port 443 or udp)")
"""The classic filters that both run."""


RATIOS = ("pcap_vs_tcpdump", "wall_vs_tcpdump", "cbpf_vs_tcpdump", "cbpf_wall_vs_tcpdump")


@dataclass
class Pair:
    """One filter, run by both."""

    ours: Timed
    theirs: Timed
    classic: bool

    @property
    def duration(self) -> float:
        """Our command's least reported time for the packets, in seconds."""
        return min(int(json.loads(text)["duration_ns"]) for text in self.ours.printed) / 1e9

    @property
    def matches(self) -> int:
        """The matching packets that our command reports."""
        report = json.loads(self.ours.printed[0])
        return int(report["matches"] if self.classic else report["verdicts"].get("0", 0))


def start(program: Path, scratch: str, times: int) -> dict[str, float]:
    """Return the seconds until a first verdict: with an empty cache, with a full one, and Python's own start-up."""
    few, kept = f"{scratch}/few.pcap", {"XDG_CACHE_HOME": f"{scratch}/cache"}
    generate(few, FEW)
    cold, warm = (Timed(*tcbpf(), "run", str(program), few) for _ in range(2))
    bare = Timed(sys.executable, "-c", "pass")
    cold.once(kept)
    in_turns([warm, bare], kept, times)
    return {"cold_s": cold.seconds, "warm_s": warm.seconds, "python_s": bare.seconds}


def tcbpf() -> tuple[str, ...]:
    """Return the command as it is installed, or as the package that is running."""
    script = shutil.which("tcbpf", path=os.path.dirname(sys.executable))
    return (script,) if script else (sys.executable, "-m", "tcbpf")


def beside_tcpdump(program: Path, scratch: str, packets: int, times: int) -> dict[str, Any]:
    """Return rates and wall times over a capture of that many packets; without tcpdump, ours alone.

    Raises:  InternalError when both do not match the same packets.
    """
    few, many, kept = f"{scratch}/few.pcap", f"{scratch}/many.pcap", {"XDG_CACHE_HOME": f"{scratch}/cache"}
    generate(few, FEW)
    generate(many, packets)
    tcpdump = shutil.which("tcpdump") or ""
    pairs, begins = asked(program, many, tcpdump), Timed(tcpdump, "-r", few, "-w", "/dev/null", PORT)
    for pair in pairs.values():  # what the first time costs is `start`'s
        pair.ours.once(kept)
        pair.ours.seconds = float("inf")
    turns = [command for pair in pairs.values() for command in (pair.ours, pair.theirs)]
    in_turns([begins, *turns] if tcpdump else turns[::2], kept, times)
    port = pairs["port"]
    ours = {"packets": packets, "mpps": packets / port.duration / 1e6, "wall_s": port.ours.seconds}
    if not tcpdump:
        return {"pcap": ours, **dict.fromkeys(RATIOS)}
    for pair in pairs.values():
        agree(pair, many, f"{scratch}/found.pcap")
    rates = {name: max(pair.theirs.seconds - begins.seconds, 1e-6) / pair.duration for name, pair in pairs.items()}
    walls = {name: pair.ours.seconds / pair.theirs.seconds for name, pair in pairs.items()}
    theirs = {"tcpdump_mpps": ours["mpps"] / rates["port"], "tcpdump_wall_s": port.theirs.seconds}
    return {
        "pcap_vs_tcpdump": {"ratio": rates["port"], "programs": {"port": rates["port"]}},
        "wall_vs_tcpdump": {"ratio": walls["port"], "programs": {"port": walls["port"]}},
        "cbpf_vs_tcpdump": classic(pairs, rates),
        "cbpf_wall_vs_tcpdump": classic(pairs, walls),
        "pcap": ours | theirs,
    }


def asked(program: Path, capture: str, tcpdump: str) -> dict[str, Pair]:
    """Return the filters to compare: the program, and each expression as a classic filter."""

    def theirs(expression: str) -> Timed:
        return Timed(tcpdump, "-r", capture, "-w", "/dev/null", expression)

    pairs = {"port": Pair(Timed(*tcbpf(), "run", "--json", str(program), capture), theirs(PORT), False)}
    for text in EXPRESSIONS:
        pairs[text] = Pair(Timed(*tcbpf(), "cbpf", "run", "--json", text, capture), theirs(text), True)
    return pairs


def classic(pairs: dict[str, Pair], ratios: dict[str, float]) -> dict[str, Any]:
    """Return the classic filters' share of the ratios."""
    parts = {name: ratio for name, ratio in ratios.items() if pairs[name].classic}
    return {"geomean": geomean(parts.values()), "programs": parts}


def agree(pair: Pair, capture: str, scratch: str) -> None:
    """Check that tcpdump matches as many packets as we do.

    Raises:  InternalError.
    """
    tcpdump, *_, expression = pair.theirs.command
    subprocess.run([tcpdump, "-r", capture, "-w", scratch, expression], capture_output=True, check=True)
    theirs = sum(1 for _ in read(scratch))
    if theirs != pair.matches:
        raise InternalError(f"{expression!r}: {pair.matches} packets match, {theirs} for tcpdump")

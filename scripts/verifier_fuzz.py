#!/usr/bin/env python3
"""Hunt for programs on which our verifier and the live kernel differ.

    python scripts/verifier_fuzz.py [--seed N] [--count N] [--seconds N] [--minimise] [--mutate CORPUS ...]

Each program is judged by both. What differs is printed as it is found: "unsound" (we accept, the kernel rejects), "strict" (we
reject, the kernel accepts), "message", "processed" (counts more than 10 % apart) or "odd" (we gave no verdict); with --minimise
it is made small first. With --mutate the programs are those of other corpora (cases, selftests, ...), changed. The figures
follow every 10,000 programs and at the end.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from generator import generate
from generator.case import as_case
from generator.minimise import minimise
from generator.mutate import MAX_INSNS, mutate
from generator.oracle import Oracle, Verdict, ask_us
from tcbpf.obj.program import Program
from verifier_corpora import CORPORA

KINDS = ("unsound", "strict", "odd", "message", "processed")
BIG = 30_000
"""Programs of which the kernel processes more are not asked of us: one such would cost as much as thousands."""


@dataclass
class Tally:
    """What was counted so far."""

    programs: int = 0
    both_accept: int = 0
    both_reject: int = 0
    big: int = 0
    unasked: int = 0  # that the kernel could not be asked about: a map or BTF that it refuses
    found: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        agree = self.both_accept + self.both_reject
        judged = self.programs - self.big - self.unasked
        rejects = max(self.both_reject, 1)
        accepts = max(self.both_accept, 1)
        found = self.found
        return (
            f"{self.programs} programs ({self.big} too big, {self.unasked} unasked): agree {agree / max(judged, 1):.4%}, "
            f"accepted {self.both_accept}, rejected {self.both_reject}, unsound {found['unsound']}, "
            f"strict {found['strict']}, odd {found['odd']}, message equal {1 - found['message'] / rejects:.3%}, "
            f"processed within 10 % {1 - found['processed'] / accepts:.3%}"
        )


def difference(kernel: Verdict, ours: Verdict) -> str:
    """Return which of KINDS two verdicts differ by, "" for none."""
    if kernel.odd:
        return ""
    if ours.odd:
        return "odd"
    if ours.accept != kernel.accept:
        return "unsound" if ours.accept else "strict"
    if not ours.accept:
        return "" if ours.message == kernel.message or not kernel.message else "message"
    return "" if 0.9 <= ours.processed / max(kernel.processed, 1) <= 1.1 else "processed"


def judge(oracle: Oracle, program: Program, tally: Tally) -> tuple[str, Verdict, Verdict]:
    """Ask both and count."""
    kernel = oracle.ask(program)
    tally.programs += 1
    if kernel.odd or kernel.processed > BIG:
        tally.big += not kernel.odd
        tally.unasked += bool(kernel.odd)
        return "", kernel, kernel
    ours = ask_us(program)
    kind = difference(kernel, ours)
    if kind:
        tally.found[kind] += 1
    if ours.accept == kernel.accept and not ours.odd:
        tally.both_accept += ours.accept
        tally.both_reject += not ours.accept
    return kind, kernel, ours


def smallest(oracle: Oracle, program: Program, kind: str, kernel: Verdict, ours: Verdict) -> str:
    """Return the smallest program found on which the verdicts differ in the same way, as a case file."""

    def wrong(trial: Program) -> bool:
        theirs = oracle.ask(trial)
        if theirs.odd or theirs.processed > BIG or theirs.accept != kernel.accept or _shape(theirs) != _shape(kernel):
            return False
        mine = ask_us(trial)
        return difference(theirs, mine) == kind and (kind not in ("strict", "message") or _shape(mine) == _shape(ours))

    small = minimise(program, wrong)
    verdict = oracle.ask(small)
    return f"{as_case(small, kind, verdict)}\n# we: {ask_us(small)}"


def _shape(verdict: Verdict) -> str:
    """Return a message without its numbers."""
    return re.sub(r"-?\d+|0x[0-9a-f]+", "N", verdict.message)


def main() -> int:
    """Hunt."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--minimise", action="store_true", help="print what differs as the smallest program that does")
    parser.add_argument("--mutate", nargs="+", default=[], metavar="CORPUS", help="change programs of these corpora instead")
    args = parser.parse_args()
    pool = [
        item.program
        for name in args.mutate
        for item in CORPORA[name]()
        if item.program is not None and item.privilege == "all" and len(item.program.insns) <= MAX_INSNS
    ]
    oracle, tally, start = Oracle(), Tally(), time.monotonic()
    for seed in range(args.seed, args.seed + args.count):
        program = mutate(seed, pool) if pool else generate(seed)
        kind, kernel, ours = judge(oracle, program, tally)
        if kind:
            print(f"{kind} {seed}\n  kernel {kernel} ({kernel.processed})\n  we     {ours} ({ours.processed})", flush=True)
            if args.minimise:
                print(smallest(oracle, program, kind, kernel, ours), flush=True)
        if tally.programs % 10_000 == 0:
            print(f"{tally}, {tally.programs / (time.monotonic() - start):.0f}/s", flush=True)
        if time.monotonic() - start > args.seconds:
            break
    print(f"{tally}, {tally.programs / (time.monotonic() - start):.0f}/s")
    return 1 if tally.found["unsound"] else 0


if __name__ == "__main__":
    sys.exit(main())

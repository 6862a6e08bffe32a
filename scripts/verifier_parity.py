"""Our verifier beside the live kernel's: the same programs, both verdicts, by feature.

    python scripts/verifier_parity.py [selftests] [cases] [examples] [generated] [--count N] [--seed N] [--list] [--floor]

Acceptances and rejections are counted apart, since a verifier that always says yes agrees on half of such a corpus. With
--floor the status is 1 when a corpus falls below what scripts/verifier_parity.json says was reached, or accepts anything that
the kernel rejects and that is not named there.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tcbpf.datapath.kernel import Kernel
from tcbpf.datapath.kernel.syscall import btf_load
from tcbpf.errors import SysError, TcbpfError, VerifierError
from tcbpf.obj import link, load, programs
from tcbpf.obj.program import Program
from tcbpf.verifier import verify
from tcbpf.verifier.log import STATS
from tcbpf.verifier.reading import comparable

HERE = Path(__file__).parent
TYPES = {"sched_cls", "sched_act", "socket_filter", "xdp", "cgroup_skb"}
SECTIONS = ("tc", "classifier", "action", "socket", "xdp", "cgroup_skb", "cgroup/skb", "tcx", "netkit")
SECONDS = 120
"""How long one program may take us; a longer one counts as a disagreement."""


@dataclass(frozen=True, slots=True)
class Item:
    """One program of a corpus."""

    feature: str
    name: str
    program: Program


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one side said. `odd` is set when it was no verdict at all (a crash, a time-out, a map that cannot be made)."""

    accept: bool
    message: str = ""
    processed: int = 0
    odd: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """Both verdicts on one program."""

    item: Item
    ours: Verdict
    kernel: Verdict
    logs: tuple[bool, ...] = ()                    # whether both wrote the same log, at level 1 and at level 2

    @property
    def agree(self) -> bool:
        """Whether both gave the same verdict."""
        return not self.ours.odd and self.ours.accept == self.kernel.accept

    @property
    def unsound(self) -> bool:
        """Whether we accept what the kernel rejects."""
        return self.ours.accept and not self.kernel.accept


def selftests() -> Iterator[Item]:
    """Yield the kernel's own tests of the five program types."""
    from kernel_selftests import objects
    for path in objects():
        try:
            yield from of_object(path, path.stem.removeprefix("verifier_"))
        except TcbpfError as error:
            print(f"not read: {path.name}: {error}", file=sys.stderr)


def examples() -> Iterator[Item]:
    """Yield the programs of examples/."""
    from tcbpf.lang import compile
    for path in sorted((HERE.parent / "examples").glob("*.c")):
        obj = compile(str(path))
        for row in programs(obj):
            yield Item("examples", f"{path.name}:{row.name}", link(obj, program=row.name))


def generated(count: int, seed: int) -> Iterator[Item]:
    """Yield random programs, each of its own seed."""
    sys.path.insert(0, str(HERE.parent / "tests"))
    from generator import generate
    for number in range(seed, seed + count):
        yield Item("generated", f"seed {number}", generate(number))


def of_object(path: Path, feature: str) -> Iterator[Item]:
    """Yield an object's programs of the five types."""
    obj = load(str(path))
    for row in programs(obj):
        if row.type not in TYPES or not row.section.lstrip("?").startswith(SECTIONS):
            continue
        try:
            program = link(obj, program=row.name)
        except TcbpfError as error:
            print(f"not linked: {path.name}: {row.name}: {error}", file=sys.stderr)
            continue
        yield Item(feature, row.name, program)


def ask_kernel(program: Program) -> Verdict:
    """Return the live kernel's verdict."""
    with Kernel() as kernel:
        try:
            with kernel.prog_load(program, log_level=4) as prog:
                return Verdict(True, processed=prog.insns_processed)
        except VerifierError as error:
            return Verdict(False, error.message, processed=processed(error.log))
        except TcbpfError as error:
            return Verdict(False, odd=str(error))


def ask_us(program: Program) -> Verdict:
    """Return our verdict, within SECONDS."""
    def late(*_: Any) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        return Verdict(True, processed=verify(program).insns_processed)
    except VerifierError as error:
        return Verdict(False, error.message, processed=processed(error.log))
    except TimeoutError:
        return Verdict(False, odd=f"took more than {SECONDS} s")
    except TcbpfError as error:
        return Verdict(False, odd=f"{type(error).__name__}: {error}")
    except Exception as error:                               # a crash is what this is here to find
        return Verdict(False, odd=f"crash: {type(error).__name__}: {error}")
    finally:
        signal.alarm(0)


def same_logs(program: Program) -> tuple[bool, ...]:
    """Return, for level 1 and for level 2, whether both sides write the same."""
    program = as_loaded(program)
    return tuple(comparable(log_of(program, level, verify)) == comparable(log_of(program, level, load_live))
                 for level in (1, 2))


def as_loaded(program: Program) -> Program:
    """Return the program without its BTF when the kernel refuses that and does without: it has no source lines then."""
    if program.btf is None or not program.raw_func_info:
        return program
    try:
        os.close(btf_load(program.btf.raw))
    except SysError:
        funcs = tuple(replace(func, type_id=0) for func in program.funcs)
        return replace(program, btf=None, lines=(), funcs=funcs, raw_func_info=b"", raw_line_info=b"")
    return program


def log_of(program: Program, level: int, ask: Callable[..., Any]) -> str:
    """Return the log that one side writes of a program, whatever its verdict."""
    try:
        return str(ask(program, log_level=level | STATS).log)
    except VerifierError as error:
        return error.log


def load_live(program: Program, *, log_level: int) -> Any:
    """Load a program into the live kernel for a moment."""
    with Kernel() as kernel, kernel.prog_load(program, log_level=log_level) as prog:
        return prog


def processed(log: str) -> int:
    """Return N of "processed N insns"."""
    for line in reversed(log.splitlines()):
        if line.startswith("processed "):
            return int(line.split()[1])
    return 0


def compare(items: Iterator[Item], *, logs: bool) -> list[Result]:
    """Ask both sides about every item, and for their logs where they agree."""
    results, start = [], time.monotonic()
    for number, item in enumerate(items, 1):
        kernel = ask_kernel(item.program)
        if not kernel.odd:
            ours = ask_us(item.program)
            same = same_logs(item.program) if logs and not ours.odd and ours.accept == kernel.accept else ()
            results.append(Result(item, ours, kernel, same))
        if sys.stderr.isatty():
            print(f"\r{number} programs, {time.monotonic() - start:.0f} s ", end="", file=sys.stderr)
    return results


def figures(results: list[Result]) -> dict[str, Any]:
    """Return what a corpus is judged by."""
    rejected = [r for r in results if not r.kernel.accept and not r.ours.accept and not r.ours.odd]
    accepted = [r for r in results if r.kernel.accept and r.ours.accept and r.kernel.processed]
    return {
        "programs": len(results),
        "agree": share(r.agree for r in results),
        "agree_accept": share(r.agree for r in results if r.kernel.accept),
        "agree_reject": share(r.agree for r in results if not r.kernel.accept),
        "unsound": sorted(f"{r.item.feature}/{r.item.name}" for r in results if r.unsound),
        "message_equal": share(r.ours.message == r.kernel.message for r in rejected),
        "log_equal_1": share(r.logs[0] for r in results if r.logs),
        "log_equal_2": share(r.logs[1] for r in results if r.logs),
        "processed_within_10_percent": share(0.9 <= r.ours.processed / r.kernel.processed <= 1.1 for r in accepted),
    }


def share(which: Iterable[bool]) -> float:
    """Return how much of `which` is true, 1 of none."""
    marks = list(which)
    return round(sum(marks) / len(marks), 4) if marks else 1.0


def show(name: str, results: list[Result], *, everything: bool) -> None:
    """Print a corpus by feature, then the disagreements."""
    console = Console(width=150, highlight=False)
    table = Table(title=f"{name}: {len(results)} programs", title_justify="left")
    for head in ("feature", "agree", "both accept", "both reject", "we accept", "we reject", "odd", "message equal"):
        table.add_column(head, justify="left" if head == "feature" else "right")
    groups: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        groups[result.item.feature].append(result)
    for feature, rows in sorted(groups.items()):
        counts = Counter((r.ours.accept, r.kernel.accept) for r in rows if not r.ours.odd)
        same = sum(r.ours.message == r.kernel.message for r in rows if not r.ours.accept and not r.kernel.accept)
        table.add_row(feature, f"{sum(r.agree for r in rows)}/{len(rows)}", *map(str, (
            counts[True, True], counts[False, False], counts[True, False], counts[False, True],
            sum(bool(r.ours.odd) for r in rows), same)))
    console.print(table)
    for result in results:
        if everything and False in result.logs:
            console.print(f"{result.item.feature}/{result.item.name}: other log at level {result.logs.index(False) + 1}")
        if not result.agree or (everything and result.ours.message != result.kernel.message):
            console.print(f"{result.item.feature}/{result.item.name}", markup=False)
            console.print(f"  kernel {said(result.kernel)}\n  we     {said(result.ours)}", markup=False)


def said(verdict: Verdict) -> str:
    """Return a verdict on one line."""
    return verdict.odd or ("accept" if verdict.accept else f"reject: {verdict.message}")


def below(name: str, reached: dict[str, Any], floor: dict[str, Any]) -> list[str]:
    """Return what is worse than the floor."""
    worse = [f"{name}: {key} {reached[key]} < {least}" for key, least in floor.items()
             if isinstance(least, float) and reached[key] < least]
    return worse + [f"{name}: accepts {one}, which the kernel rejects" for one in reached["unsound"]
                    if one not in floor["unsound"]]


CORPORA: dict[str, Callable[[], Iterator[Item]]] = {"selftests": selftests, "examples": examples}
"""And `generated`, which takes --count and --seed."""


def main() -> int:
    """Ask, print, and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", nargs="*", default=["examples", "selftests"], help=f"{', '.join(CORPORA)}, generated")
    parser.add_argument("--count", type=int, default=10_000, metavar="N", help="how many programs to generate")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the first one's seed")
    parser.add_argument("--feature", default="", help="only this feature of a corpus")
    parser.add_argument("--logs", action="store_true", help="compare the logs of level 1 and 2 as well")
    parser.add_argument("--list", action="store_true", help="print differing messages too")
    parser.add_argument("--floor", action="store_true", help="fail below what was reached")
    parser.add_argument("--json", metavar="FILE", help="write the figures")
    args = parser.parse_args()
    floors = json.loads((HERE / "verifier_parity.json").read_text()) if args.floor else {}
    reached, worse = {}, []
    for name in args.corpus:
        corpus = generated(args.count, args.seed) if name == "generated" else CORPORA[name]()
        items = (item for item in corpus if args.feature in ("", item.feature))
        results = compare(items, logs=args.logs)
        show(name, results, everything=args.list)
        reached[name] = figures(results)
        print(json.dumps(reached[name], indent=1))
        worse += below(name, reached[name], floors[name]) if name in floors else []
    if args.json:
        Path(args.json).write_text(json.dumps(reached, indent=1) + "\n")
    for line in worse:
        print(line, file=sys.stderr)
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())

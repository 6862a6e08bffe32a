"""Our verifier beside the live kernel's: the same programs, both verdicts, by feature.

    python scripts/verifier_parity.py [cases] [examples] [selftests] [more] [unprivileged] [generated] [--count N] [--seed N]
                                      [--logs] [--list] [--floor] [--reached]

`selftests` are the kernel's own tests of its verifier and of tc, `more` its other tests of the same program types, and
`unprivileged` those programs of both that a user without privilege may load, asked without privilege on both sides.

Acceptances and rejections are counted apart, since a verifier that always says yes agrees on half of such a corpus. With
--floor the status is 1 when a corpus falls below what scripts/verifier_parity.json says was reached, or accepts anything that
the kernel rejects and that is not named there; --reached writes that file anew.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tcbpf.datapath.kernel import Kernel
from tcbpf.datapath.kernel.syscall import btf_load
from tcbpf.errors import SysError, TcbpfError, VerifierError
from tcbpf.obj.program import Program
from tcbpf.verifier import verify
from tcbpf.verifier.state.log import STATS
from tcbpf.verifier.words.log_reader import comparable
from verifier_corpora import CORPORA, Item, generated

HERE = Path(__file__).parent
FLOORS = HERE / "verifier_parity.json"
SECONDS = 120
"""How long one program may take us; a longer one counts as a disagreement."""


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
    logs: tuple[bool, ...] = ()  # whether both wrote the same log, at level 1 and at level 2

    @property
    def agree(self) -> bool:
        """Whether both gave the same verdict."""
        return not self.ours.odd and not self.kernel.odd and self.ours.accept == self.kernel.accept

    @property
    def unsound(self) -> bool:
        """Whether we accept what the kernel rejects."""
        return self.ours.accept and not self.kernel.accept


def ask_kernel(item: Item) -> Verdict:
    """Return the live kernel's verdict."""
    assert item.program is not None
    with Kernel() as kernel:
        try:
            with kernel.prog_load(item.program, log_level=1) as prog:
                return Verdict(True, processed=prog.insns_processed)
        except VerifierError as error:
            return Verdict(False, error.message, processed=processed(error.log))
        except TcbpfError as error:
            return Verdict(False, odd=str(error))


def ask_us(item: Item) -> Verdict:
    """Return our verdict, within SECONDS."""

    def late(*_: Any) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        assert item.program is not None
        verified = verify(item.program, privileged=item.privilege != "none", perfmon=item.privilege == "all")
        return Verdict(True, processed=verified.insns_processed)
    except VerifierError as error:
        return Verdict(False, error.message, processed=processed(error.log))
    except TimeoutError:
        return Verdict(False, odd=f"took more than {SECONDS} s")
    except TcbpfError as error:
        return Verdict(False, odd=f"{type(error).__name__}: {error}")
    except Exception as error:  # a crash is what this is here to find
        return Verdict(False, odd=f"crash: {type(error).__name__}: {error}")
    finally:
        signal.alarm(0)


def same_logs(item: Item) -> tuple[bool, ...]:
    """Return, for level 1 and for level 2, whether both sides write the same."""
    assert item.program is not None
    program = as_loaded(item.program)
    return tuple(
        comparable(log_of(program, level, verify)) == comparable(log_of(program, level, load_live)) for level in (1, 2)
    )


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


def compare(items: Iterable[Item], *, logs: bool) -> list[Result]:
    """Ask both sides about every item, the kernel first, and for their logs where they agree."""
    known = list(items)
    unasked = Verdict(False, odd="not asked")
    results = [Result(item, Verdict(False, odd=item.problem), unasked) for item in known if item.problem]
    for privilege in ("all", "bpf", "none"):
        mine = [item for item in known if item.program is not None and item.privilege == privilege]
        verdicts = map(ask_kernel, mine) if privilege == "all" else asked_without(privilege, mine)
        for number, (item, kernel) in enumerate(zip(mine, verdicts, strict=True), 1):
            ours = unasked if kernel.odd else ask_us(item)
            alike = logs and privilege == "all" and not ours.odd and ours.accept == kernel.accept
            results.append(Result(item, ours, kernel, same_logs(item) if alike else ()))
            if sys.stderr.isatty():
                print(f"\r{number} of {len(mine)} programs ", end="", file=sys.stderr)
    return results


def asked_without(privilege: str, items: list[Item]) -> list[Verdict]:
    """Return the live kernel's verdicts for a user with no more than a privilege."""
    if not items:
        return []
    sys.path.insert(0, str(HERE.parent / "tests"))
    from verifier.unprivileged import ask

    return ask(privilege, ask_kernel, items)


def figures(results: list[Result]) -> dict[str, Any]:
    """Return what a corpus is judged by. A program that we cannot link though the kernel could counts as a disagreement."""
    judged = [r for r in results if not r.kernel.odd]
    rejected = [r for r in judged if not r.kernel.accept and not r.ours.accept and not r.ours.odd]
    accepted = [r for r in judged if r.kernel.accept and r.ours.accept and r.kernel.processed]
    return {
        "programs": len(results),
        "not_linked": sum(missed(r) for r in results),
        "not_judged_by_kernel": sum(bool(r.kernel.odd) and not missed(r) for r in results),
        "agree": share(r.agree for r in results if missed(r) or not r.kernel.odd),
        "agree_accept": share(r.agree for r in judged if r.kernel.accept),
        "agree_reject": share(r.agree for r in judged if not r.kernel.accept),
        "unsound": sorted(f"{r.item.feature}/{r.item.name}" for r in judged if r.unsound),
        "message_equal": share(r.ours.message == r.kernel.message for r in rejected),
        **{
            f"log_equal_{level}": share(r.logs[level - 1] for r in results if r.logs)
            for level in (1, 2)
            if any(r.logs for r in results)
        },
        "processed_within_10_percent": share(0.9 <= r.ours.processed / r.kernel.processed <= 1.1 for r in accepted),
    }


def missed(result: Result) -> bool:
    """Tell whether we could not link what another loader can."""
    return bool(result.item.problem) and not result.item.absent


def share(which: Iterable[bool]) -> float:
    """Return how much of `which` is true, 1 of none."""
    marks = list(which)
    return round(sum(marks) / len(marks), 4) if marks else 1.0


def show(name: str, results: list[Result], *, everything: bool) -> None:
    """Print a corpus by feature, then the disagreements."""
    console = Console(width=150, highlight=False)
    table = Table(title=f"{name}: {len(results)} programs", title_justify="left")
    for head in (
        "feature",
        "agree",
        "both accept",
        "both reject",
        "we accept",
        "we reject",
        "odd",
        "not judged",
        "message equal",
    ):
        table.add_column(head, justify="left" if head == "feature" else "right")
    groups: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        groups[result.item.feature].append(result)
    for feature, rows in sorted(groups.items()):
        judged = [r for r in rows if not r.kernel.odd]
        counts = Counter((r.ours.accept, r.kernel.accept) for r in judged if not r.ours.odd)
        same = sum(r.ours.message == r.kernel.message for r in judged if not r.ours.accept and not r.kernel.accept)
        odd = sum(missed(r) or (bool(r.ours.odd) and not r.kernel.odd) for r in rows)
        unknown = sum(bool(r.kernel.odd) and not missed(r) for r in rows)
        table.add_row(
            feature,
            f"{sum(r.agree for r in rows)}/{len(rows) - unknown}",
            *map(str, (counts[True, True], counts[False, False], counts[True, False], counts[False, True], odd, unknown, same)),
        )
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
    worse = [
        f"{name}: {key} {reached[key]} < {least}"
        for key, least in floor.items()
        if (isinstance(least, float) or (key == "programs" and name != "generated")) and reached.get(key, least) < least
    ]
    return worse + [
        f"{name}: accepts {one}, which the kernel rejects" for one in reached["unsound"] if one not in floor["unsound"]
    ]


def main() -> int:
    """Ask, print, and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "corpus", nargs="*", default=["cases", "examples", "selftests"], help=f"{', '.join(CORPORA)}, generated"
    )
    parser.add_argument("--count", type=int, default=2000, metavar="N", help="how many programs to generate")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the first one's seed")
    parser.add_argument("--feature", default="", help="only this feature of a corpus")
    parser.add_argument("--logs", action="store_true", help="compare the logs of level 1 and 2 as well")
    parser.add_argument("--list", action="store_true", help="print differing messages too")
    parser.add_argument("--floor", action="store_true", help="fail below what was reached")
    parser.add_argument("--reached", action="store_true", help=f"write {FLOORS.name} anew")
    parser.add_argument("--json", metavar="FILE", help="write the figures")
    args = parser.parse_args()
    floors = json.loads(FLOORS.read_text()) if FLOORS.exists() else {}
    reached, worse = {}, []
    for name in args.corpus:
        if name not in (*CORPORA, "generated"):
            parser.error(f"no corpus {name!r}: {', '.join(CORPORA)}, generated")
        try:
            corpus = generated(args.count, args.seed) if name == "generated" else CORPORA[name]()
            results = compare((item for item in corpus if args.feature in ("", item.feature)), logs=args.logs)
        except TcbpfError as error:
            worse.append(f"{name}: not asked: {error}")
            continue
        show(name, results, everything=args.list)
        reached[name] = figures(results)
        print(json.dumps(reached[name], indent=1))
        worse += below(name, reached[name], floors[name]) if args.floor and name in floors else []
    if args.reached:
        FLOORS.write_text(json.dumps(floors | reached, indent=1, sort_keys=True) + "\n")
    if args.json:
        Path(args.json).write_text(json.dumps(reached, indent=1) + "\n")
    for line in worse:
        print(line, file=sys.stderr)
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())

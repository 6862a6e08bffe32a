"""The programs that our verifier and the live kernel's are compared on, by corpus."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tcbpf.errors import TcbpfError
from tcbpf.obj import link, load, programs
from tcbpf.obj.program import Program
from tcbpf.tables.progs import PROG_TYPES

ROOT = Path(__file__).resolve().parent.parent
TYPES = {"sched_cls", "sched_act", "socket_filter", "xdp", "cgroup_skb"}
SECTIONS = ("tc", "classifier", "action", "socket", "xdp", "cgroup_skb", "cgroup/skb", "tcx", "netkit")
VERIFIER_TESTS = ("verifier_*.c", "test_tc*.c")


@dataclass(frozen=True, slots=True)
class Item:
    """One program of a corpus; `privilege` is "all", "bpf" (CAP_BPF alone) or "none".

    `problem` says why there is no program to ask about: we cannot read or link it. It is `absent` when no loader could, since
    it calls a function that the running kernel has not.
    """

    feature: str
    name: str
    program: Program | None
    privilege: str = "all"
    problem: str = ""
    absent: bool = False


def selftests() -> Iterator[Item]:
    """Yield the kernel's own tests of its verifier and of tc, those of the five program types."""
    from kernel_selftests import objects

    for path in objects(VERIFIER_TESTS):
        yield from of_object(path, path.stem.removeprefix("verifier_"))


def more() -> Iterator[Item]:
    """Yield the programs of the five types of the kernel's other tests."""
    from kernel_selftests import objects

    for path in objects(("*.c",), without=VERIFIER_TESTS, sections=SECTIONS):
        yield from of_object(path, path.stem)


def cases() -> Iterator[Item]:
    """Yield the programs of tests/verifier/cases."""
    sys.path.insert(0, str(ROOT / "tests"))
    from verifier.cases import cases as read

    for case in read():
        if not case.slow:
            yield Item(case.feature, case.name, case.program, case.privilege)


def unprivileged() -> Iterator[Item]:
    """Yield the programs of the types that users without privilege may load, to be asked without: BTF needs CAP_BPF."""
    for corpus in (cases, selftests):
        for item in corpus():
            program = item.program
            if program is not None and PROG_TYPES[program.type].unprivileged and item.privilege in ("all", "none"):
                maps = tuple(replace(handle.spec, btf=None) for handle in program.maps)
                yield Item(item.feature, item.name, replace(program, maps=maps, btf=None, raw_func_info=b""), "none")


def examples() -> Iterator[Item]:
    """Yield the programs of examples/."""
    from tcbpf.lang import compile

    for path in sorted((ROOT / "examples").glob("*.c")):
        obj = compile(str(path))
        for row in programs(obj):
            yield Item("examples", f"{path.name}:{row.name}", link(obj, program=row.name))


def generated(count: int, seed: int) -> Iterator[Item]:
    """Yield random programs, each of its own seed."""
    sys.path.insert(0, str(ROOT / "tests"))
    from generator import generate

    for number in range(seed, seed + count):
        yield Item("generated", f"seed {number}", generate(number))


def of_object(path: Path, feature: str) -> Iterator[Item]:
    """Yield an object's programs of the five types, an object that cannot be read as one of them."""
    try:
        obj = load(str(path))
    except TcbpfError as error:
        yield Item(feature, "*", None, problem=f"not read: {error}")
        return
    for row in programs(obj):
        if row.type not in TYPES or not row.section.lstrip("?").startswith(SECTIONS):
            continue
        try:
            yield Item(feature, row.name, link(obj, program=row.name))
        except TcbpfError as error:
            absent = "is neither defined in the object nor a kernel function" in str(error)
            yield Item(feature, row.name, None, problem=f"not linked: {error}", absent=absent)


CORPORA: dict[str, Callable[[], Iterator[Item]]] = {
    "cases": cases,
    "examples": examples,
    "selftests": selftests,
    "more": more,
    "unprivileged": unprivileged,
}
"""And `generated`, which takes a count and a seed."""

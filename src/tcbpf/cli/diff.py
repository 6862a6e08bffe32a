"""`tcbpf diff`: the same program and packets on both datapaths; the first difference, if any."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass, field
from typing import Any

from tcbpf.cli.arguments import add_json, add_program, read_object, unpinned
from tcbpf.datapath.base import Datapath, Prog, Run
from tcbpf.datapath.choose import open_datapath
from tcbpf.datapath.kernel.progs import untaken
from tcbpf.errors import InputError, MapError, NotSupported
from tcbpf.maps.map import UNLISTED, Map
from tcbpf.net.pcap import read
from tcbpf.obj import programs
from tcbpf.obj.link import Listed, choose, tail_section
from tcbpf.obj.program import Object
from tcbpf.tables.maps import MAP_TYPES, having
from tcbpf.tables.progs import of_unknown_type

COMPARED = ("mark", "priority", "cb", "tstamp", "gso_segs", "gso_size")
"""Writable context fields that BPF_PROG_TEST_RUN gives back."""

QUEUES = having(lambda row: "map_pop_elem" in row.helpers)
WORD = 8
"""Bytes of a map value that are compared, or left out, together."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The first difference: packet number from 1 (0 for maps), the differing thing, and both sides."""

    packet: int
    what: str
    user: Any
    kernel: Any


@dataclass(frozen=True, slots=True)
class Side:
    """A datapath, and the program loaded on it."""

    dp: Datapath
    prog: Prog


@dataclass(slots=True)
class Outcome:
    """A whole comparison, and what it left out: packets, maps without elements to list, and what no two runs agree on."""

    packets: int = 0
    skipped: int = 0
    unlisted: list[str] = field(default_factory=list)
    unsteady: list[str] = field(default_factory=list)
    difference: Difference | None = None


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_program(parser)
    parser.add_argument("capture", metavar="CAPTURE", nargs="+", help="pcap or pcapng files of Ethernet frames")
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="at most N packets of each capture")
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    """Compare, every program of the object when none is named; 0 when all are identical, 1 when not.

    Raises:  InputError when no program was compared.
    """
    obj, named = unpinned(read_object(args.program)), bool(args.section or args.name)
    worst, compared = 0, 0
    for row in chosen(obj, args):
        try:
            if not named and of_unknown_type(row.section):
                raise NotSupported(f"{row.name}: a section {row.section} is for programs of another type")
            for path in args.capture:
                outcome = compare(obj, path, row.name, args.limit)
                worst |= outcome.difference is not None
                compared += 1
                show(args, path, row.name, outcome)
        except NotSupported as error:
            if named:
                raise
            leave_out(args, row.name, error)
    if not compared:
        raise InputError("no program of it runs on both datapaths", where=args.program)
    return worst


def chosen(obj: Object, args: argparse.Namespace) -> list[Listed]:
    """Return the chosen programs; targets of tail calls only when they are named.

    Raises:  InputError when there is none; it lists the choices.
    """
    if args.section or args.name or not obj.entries:
        return [choose(obj, args.section, args.name)]
    listed = programs(obj)
    return [p for p in listed if not tail_section(p.section)] or list(listed)


def leave_out(args: argparse.Namespace, name: str, why: NotSupported) -> None:
    """Say that a program was not compared, and why."""
    if args.json:
        print(json.dumps({"object": args.program, "program": name, "left_out": str(why)}))
    else:
        print(f"{args.program}: left out: {why}")


def show(args: argparse.Namespace, path: str, name: str, outcome: Outcome) -> None:
    """Print one outcome."""
    diff = outcome.difference
    if args.json:
        print(
            json.dumps(
                {
                    "object": args.program,
                    "program": name,
                    "capture": path,
                    "packets": outcome.packets,
                    "skipped": outcome.skipped,
                    "unlisted": outcome.unlisted,
                    "unsteady": outcome.unsteady,
                    "identical": diff is None,
                    "difference": diff
                    and {"packet": diff.packet, "what": diff.what, "user": repr(diff.user), "kernel": repr(diff.kernel)},
                }
            )
        )
        return
    left_out = [f"{outcome.skipped} packets outside what BPF_PROG_TEST_RUN takes"] if outcome.skipped else []
    left_out += [f"the contents of {', '.join(outcome.unlisted)}"] if outcome.unlisted else []
    left_out += [f"what differs from run to run in {', '.join(outcome.unsteady)}"] if outcome.unsteady else []
    words = f"; left out: {'; '.join(left_out)}" if left_out else ""
    if diff is None:
        print(f"{path}: {name}: identical, {outcome.packets - outcome.skipped} packets{words}")
        return
    print(f"{path}: {name}: {'packet ' + str(diff.packet) if diff.packet else 'afterwards'}: {diff.what} differs{words}")
    print(f"  user    {show_side(diff.user)}\n  kernel  {show_side(diff.kernel)}")


def show_side(value: Any) -> str:
    """Return one side of a difference; packets as hex."""
    return value.hex(" ", 2) if isinstance(value, bytes) else str(value)


def compare(obj: Object, path: str, name: str, limit: int = 0) -> Outcome:
    """Run every packet of `path` through the program `name` on both datapaths, on one CPU, until something differs.

    `obj` pins no map. A second run on the user datapath, after the kernel's, tells what depends on more than the packets: a
    time, a random number. That is left out, as are packets that BPF_PROG_TEST_RUN does not take.

    Raises:  InputError when there is no packet, or none that both take.
    """
    outcome, why = Outcome(), ""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})  # per-CPU map values of all lie on this CPU
    try:
        with open_datapath("user") as user, open_datapath("kernel") as kernel, open_datapath("user") as again:
            sides = [Side(dp, dp.load(obj, program=name)) for dp in (user, kernel, again)]
            for number, packet in enumerate(read(path), 1):
                if limit and number > limit:
                    break
                outcome.packets += 1
                if reason := untaken(packet.data):
                    outcome.skipped, why = outcome.skipped + 1, reason
                    continue
                runs = [parts(side.prog.run(packet.data)) for side in sides]
                for what in [what for what in runs[0] if what in runs[1]]:
                    note(outcome, number, what, *(run[what] for run in runs))
                if outcome.difference:
                    return outcome
            if outcome.packets > outcome.skipped:
                compare_maps(outcome, sides)
    finally:
        os.sched_setaffinity(0, before)
    if outcome.packets == outcome.skipped:
        raise InputError("no packet that both datapaths take" if outcome.packets else "no packets", where=path, hint=why)
    return outcome


def note(outcome: Outcome, number: int, what: str, ours: Any, theirs: Any, again: Any) -> None:
    """Add what one part of three runs showed to the outcome."""
    if ours != again and what not in outcome.unsteady:
        outcome.unsteady.append(what)
    if ours != theirs and what not in outcome.unsteady and outcome.difference is None:
        outcome.difference = Difference(number, what, ours, theirs)


def parts(run: Run) -> dict[str, Any]:
    """Return what is compared of a run, by name."""
    fields = {f"ctx.{name}": run.ctx[name] for name in COMPARED if name in run.ctx}
    return {"verdict": run.verdict, "packet": run.packet, **fields}


def compare_maps(outcome: Outcome, sides: list[Side]) -> None:
    """Compare what the maps hold, without the words that differ between two runs on one datapath."""
    for maps in zip(*(side.prog.maps for side in sides), strict=True):
        name = maps[0].spec.name
        ours, theirs, again = (contents(side.dp, map) for side, map in zip(sides, maps, strict=True))
        if ours is None or theirs is None or again is None:
            outcome.unlisted.append(name)
            continue
        if ours != again:
            outcome.unsteady.append(f"map {name}")
            ours, theirs = steady(ours, ours, again), steady(theirs, ours, again)
        if ours != theirs:
            outcome.difference = Difference(0, f"map {name}", *only_different(ours, theirs))
            return


def contents(dp: Datapath, map: Map) -> dict[bytes, bytes] | None:
    """Return all that a map holds, raw: by key; by place in a queue or stack; by both keys in a map of maps.

    Returns: None when user space cannot list it.
    """
    values = MAP_TYPES[map.spec.type].values
    if values not in ("bytes", "map"):
        return None
    try:
        if map.spec.type in QUEUES:
            return {place.to_bytes(4): value for place, value in enumerate(iter(lambda: map.raw.pop(b""), None))}
        found = {key: value for key in map.raw_keys() if (value := map.raw.lookup(key)) is not None}
    except MapError as error:
        if error.errno not in UNLISTED:
            raise
        return None
    if values == "bytes":
        return found
    inside: dict[bytes, bytes] = {}
    for key, id in found.items():
        held = contents(dp, dp.map_by_id(int.from_bytes(id, sys.byteorder)))
        if held is None:
            return None
        inside |= {key: b"", **{key + inner: value for inner, value in held.items()}}
    return inside


def steady(side: dict[bytes, bytes], ours: dict[bytes, bytes], again: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Return a side's elements without those that one of two runs lacks, and without the words in which the two differ."""
    both = ours.keys() & again.keys()
    kept = side if ours.keys() == again.keys() else {key: value for key, value in side.items() if key in both}
    return {key: settled(value, ours[key], again[key]) if key in both else value for key, value in kept.items()}


def settled(value: bytes, ours: bytes, again: bytes) -> bytes:
    """Return a value with zeros for the words in which two others differ."""
    words = range(0, len(value), WORD)
    return b"".join(value[at : at + WORD] if ours[at : at + WORD] == again[at : at + WORD] else bytes(WORD) for at in words)


def only_different(x: dict[bytes, bytes], y: dict[bytes, bytes]) -> tuple[str, str]:
    """Return both sides' first differing element, as text."""
    key = next(k for k in sorted({*x, *y}) if x.get(k) != y.get(k))
    first, second = (f"{key.hex()} = {side[key].hex() if key in side else 'absent'}" for side in (x, y))
    return first, second

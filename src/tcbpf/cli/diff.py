"""`tcbpf diff`: the same program and packets on both datapaths; the first difference, if any."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tcbpf.cli.arguments import add_json, add_program, read_object, unpinned
from tcbpf.datapath.choose import open_datapath
from tcbpf.datapath.kernel.progs import untaken
from tcbpf.errors import InputError, MapError
from tcbpf.maps.map import UNLISTED
from tcbpf.net.pcap import read
from tcbpf.obj import programs
from tcbpf.obj.link import choose, tail_section
from tcbpf.obj.program import Object
from tcbpf.tables.maps import MAP_TYPES

COMPARED = ("mark", "priority", "cb", "tstamp", "gso_segs", "gso_size")
"""Writable context fields that BPF_PROG_TEST_RUN gives back."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The first difference: packet number from 1 (0 for maps), the differing thing, and both sides."""

    packet: int
    what: str
    user: Any
    kernel: Any


@dataclass(slots=True)
class Outcome:
    """A whole comparison."""

    packets: int = 0
    skipped: int = 0
    unlisted: tuple[str, ...] = ()
    difference: Difference | None = None


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_program(parser)
    parser.add_argument("capture", metavar="CAPTURE", nargs="+", help="pcap or pcapng files of Ethernet frames")
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="at most N packets of each capture")
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    """Compare, every program of the object when none is named; 0 when all are identical, 1 when not."""
    obj, worst = unpinned(read_object(args.program)), 0
    for name in chosen(obj, args):
        for path in args.capture:
            outcome = compare(obj, path, name, args.limit)
            worst |= outcome.difference is not None
            show(args, path, name, outcome)
    return worst


def chosen(obj: Object, args: argparse.Namespace) -> list[str]:
    """Return the functions of the chosen programs; targets of tail calls only when they are named.

    Raises:  InputError when there is none; it lists the choices.
    """
    if args.section or args.name or not obj.entries:
        return [choose(obj, args.section, args.name).name]
    listed = programs(obj)
    return [p.name for p in listed if not tail_section(p.section)] or [p.name for p in listed]


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
                    "identical": diff is None,
                    "difference": diff
                    and {"packet": diff.packet, "what": diff.what, "user": repr(diff.user), "kernel": repr(diff.kernel)},
                }
            )
        )
        return
    skipped = f", {outcome.skipped} outside what BPF_PROG_TEST_RUN takes" if outcome.skipped else ""
    skipped += f", not the contents of {', '.join(outcome.unlisted)}" if outcome.unlisted else ""
    if diff is None:
        print(f"{path}: {name}: identical, {outcome.packets} packets{skipped}")
        return
    print(f"{path}: {name}: {'packet ' + str(diff.packet) if diff.packet else 'afterwards'}: {diff.what} differs{skipped}")
    print(f"  user    {show_side(diff.user)}\n  kernel  {show_side(diff.kernel)}")


def show_side(value: Any) -> str:
    """Return one side of a difference; packets as hex."""
    return value.hex(" ", 2) if isinstance(value, bytes) else str(value)


def compare(obj: Object, path: str, name: str, limit: int = 0) -> Outcome:
    """Run every packet of `path` through the program `name` on both datapaths, on one CPU, until something differs.

    `obj` pins no map. Packets that BPF_PROG_TEST_RUN does not take are left out.
    """
    outcome = Outcome()
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})  # per-CPU map values of both lie on this CPU
    try:
        with open_datapath("user") as user, open_datapath("kernel") as kernel:
            ours, theirs = (dp.load(obj, program=name) for dp in (user, kernel))
            for number, packet in enumerate(read(path), 1):
                if limit and number > limit:
                    break
                outcome.packets += 1
                if untaken(packet.data):
                    outcome.skipped += 1
                    continue
                a, b = ours.run(packet.data), theirs.run(packet.data)
                for what, x, y in pairs(a, b):
                    if x != y:
                        outcome.difference = Difference(number, what, x, y)
                        return outcome
            for map, x, y in map_pairs(ours, theirs):
                if x is None or y is None:
                    outcome.unlisted += (map,)
                elif x != y:
                    outcome.difference = Difference(0, f"map {map}", *only_different(x, y))
                    break
    finally:
        os.sched_setaffinity(0, before)
    if not outcome.packets:
        raise InputError("no packets", where=path)
    return outcome


def pairs(a: Any, b: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield the parts of two runs that are compared: name, ours, theirs."""
    yield "verdict", a.verdict, b.verdict
    yield "packet", a.packet, b.packet
    for name in COMPARED:
        if name in a.ctx and name in b.ctx:
            yield f"ctx.{name}", a.ctx[name], b.ctx[name]


def map_pairs(ours: Any, theirs: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield the contents of each map of both programs, raw, in no order."""
    for x, y in zip(ours.maps, theirs.maps, strict=True):
        listed = MAP_TYPES[x.spec.type].values in ("bytes", "map")
        yield x.spec.name, *((contents(x), contents(y)) if listed else (None, None))


def contents(map: Any) -> dict[bytes, bytes] | None:
    """Return all elements of a map, raw; None when its type has none to list."""
    try:
        return {key: value for key in map.raw_keys() if (value := map.raw.lookup(key)) is not None}
    except MapError as error:
        if error.errno not in UNLISTED:
            raise
        return None


def only_different(x: dict[bytes, bytes], y: dict[bytes, bytes]) -> tuple[str, str]:
    """Return both sides' first differing element, as text."""
    key = next(k for k in sorted({*x, *y}) if x.get(k) != y.get(k))
    first, second = (f"{key.hex()} = {side[key].hex() if key in side else 'absent'}" for side in (x, y))
    return first, second

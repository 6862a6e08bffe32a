"""`tcbpf run`: a classifier over a capture."""

from __future__ import annotations

import argparse
import json
from typing import Any

from tcbpf.cli.arguments import add_datapath, add_json, add_program, load_program
from tcbpf.datapath.choose import open_datapath


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_program(parser)
    parser.add_argument("capture", metavar="CAPTURE", help="a pcap or pcapng file of Ethernet frames")
    parser.add_argument("--out", metavar="FILE", help="write the packets that pass, as the program left them, to this pcapng")
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="stop after N packets")
    parser.add_argument("--maps", action="store_true", help="print the maps afterwards")
    add_json(parser)
    add_datapath(parser)


def main(args: argparse.Namespace) -> int:
    """Run, and print verdict counts and the rate."""
    with open_datapath(args.datapath) as dp:
        prog = load_program(dp, args)
        stats = prog.run_pcap(args.capture, out=args.out, limit=args.limit)
        maps = {m.spec.name: list(m.items()) for m in prog.maps if m.spec.type != "prog_array"} if args.maps else {}
        report: dict[str, Any] = {
            "program": prog.name, "datapath": dp.name, "packets": stats.packets, "bytes": stats.bytes,
            "verdicts": {str(verdict): count for verdict, count in sorted(stats.verdicts.items())},
            "duration_ns": stats.duration_ns, "skipped": stats.skipped,
        }
        if args.out:
            report["kept"] = stats.kept
    if args.json:
        if args.maps:
            report["maps"] = {name: [{"key": k, "value": v} for k, v in items] for name, items in maps.items()}
        print(json.dumps(report, default=str))
        return 0
    show(report, maps)
    return 0


def show(report: dict[str, Any], maps: dict[str, list[tuple[Any, Any]]]) -> None:
    """Print the report for a person."""
    from tcbpf.cli.words import rate, table, verdict_name
    packets = report["packets"]
    table(("verdict", "", "packets", "share"),
          [(number, verdict_name(int(number)), count, f"{100 * count / packets:.1f}%")
           for number, count in report["verdicts"].items()],
          title=f"{report['program']} on the {report['datapath']} datapath")
    print(f"{packets} packets, {report['bytes']} bytes, {rate(packets, report['duration_ns'])}"
          + (f", {report['kept']} kept" if "kept" in report else "")
          + (f"; {report['skipped']} not run: larger or smaller than this datapath takes" if report["skipped"] else ""))
    for name, items in maps.items():
        table(("key", "value"), [(text(k), text(v)) for k, v in items], title=f"map {name}")


def text(value: Any) -> str:
    """Return a typed map value on one line."""
    if isinstance(value, dict):
        return " ".join(f"{k}={text(v)}" for k, v in value.items())
    return str(value)

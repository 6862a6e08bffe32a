"""`tcbpf replay`: a capture through a device of the user datapath."""

from __future__ import annotations

import argparse
import json
from typing import Any

from tcbpf.cli.arguments import add_datapath, add_json
from tcbpf.cli.output import rate, table, verdict_name
from tcbpf.control.objects import Link
from tcbpf.control.request import Op, Request
from tcbpf.datapath.choose import open_datapath
from tcbpf.datapath.result import whole_or_not
from tcbpf.errors import InputError, TcError


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("capture", metavar="CAPTURE", help="a pcap or pcapng file of Ethernet frames")
    parser.add_argument("--dev", required=True, metavar="DEV", help="the device")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--ingress", action="store_true", help="the packets arrive on the device")
    which.add_argument("--egress", action="store_true", help="the packets leave through the device")
    parser.add_argument("--out", metavar="DIR", help="write packets per stack and wire: DIR/DEV-{ingress,egress}.pcapng")
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="stop after N packets")
    parser.add_argument("--home", default="", metavar="DIR", help="the user datapath's directory")
    add_json(parser)
    add_datapath(parser)


def main(args: argparse.Namespace) -> int:
    """Replay, and print the verdicts and the devices' counters."""
    with open_datapath(args.datapath, home=args.home, lasting=True) as dp:
        try:
            done, fault = whole_or_not(
                lambda: dp.replay(args.capture, args.dev, ingress=args.ingress, out=args.out, limit=args.limit)
            )
        except TcError as error:
            names = ", ".join(link.name for link in dp.apply(Request(Op.SHOW, Link(""))) if isinstance(link, Link))
            raise InputError(f"no device {args.dev!r}", where="replay", hint=f"there are {names}") from error
    report: dict[str, Any] = {
        "capture": args.capture,
        "device": args.dev,
        "direction": "ingress" if args.ingress else "egress",
        "packets": done.packets,
        "bytes": done.bytes,
        "verdicts": {str(verdict): count for verdict, count in sorted(done.verdicts.items())},
        "devices": done.devices,
        "lost": done.lost,
        "duration_ns": done.duration_ns,
    }
    if args.json:
        print(json.dumps(report))
    else:
        show(report)
    if fault is not None:
        raise fault
    return 0


def show(report: dict[str, Any]) -> None:
    """Print the report for a person."""
    packets = report["packets"] or 1
    table(
        ("verdict", "", "packets", "share"),
        [
            (number, verdict_name(int(number)), count, f"{100 * count / packets:.1f}%")
            for number, count in report["verdicts"].items()
        ],
        title=f"{report['device']} {report['direction']}",
    )
    table(
        ("device", "rx packets", "rx bytes", "rx dropped", "tx packets", "tx bytes", "tx dropped"),
        [(name, *row.values()) for name, row in report["devices"].items()],
    )
    for cause, count in report["lost"].items():
        print(f"lost, {cause}: {count}")
    print(f"{report['packets']} packets, {report['bytes']} bytes, {rate(report['packets'], report['duration_ns'])}")

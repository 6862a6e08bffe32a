"""`tcbpf prog-run`: one program, one packet, as BPF_PROG_TEST_RUN gives it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tcbpf import files as newfile
from tcbpf.cli.arguments import add_datapath, add_json, add_program, load_program, read_ctx
from tcbpf.cli.output import verdict_name
from tcbpf.datapath.choose import open_datapath
from tcbpf.errors import InputError


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_program(parser)
    parser.add_argument("--data-in", required=True, metavar="FILE|HEX", help="the packet: raw bytes in a file, or hex digits")
    parser.add_argument("--data-out", metavar="FILE", help="write the packet as the program left it")
    parser.add_argument("--ctx", default="", metavar="FIELD=N,...", help="context fields before the run: mark=7,cb=1:2:3:4:5")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="run N times and report the mean duration")
    add_json(parser)
    add_datapath(parser)


def main(args: argparse.Namespace) -> int:
    """Run once (or `repeat` times) and print verdict, context and packet."""
    packet = read_packet(args.data_in)
    with open_datapath(args.datapath) as dp:
        run = load_program(dp, args).run(packet, read_ctx(args.ctx), args.repeat)
    if args.data_out:
        newfile.write(args.data_out, run.packet)
    if args.json:
        print(
            json.dumps(
                {
                    "verdict": run.verdict,
                    "name": verdict_name(run.verdict),
                    "duration_ns": run.duration_ns,
                    "ctx": dict(run.ctx),
                    "packet": run.packet.hex(),
                }
            )
        )
        return 0
    name = verdict_name(run.verdict)
    print(f"verdict {run.verdict}" + (f" ({name})" if name else "") + f", {run.duration_ns} ns")
    print("ctx     " + " ".join(f"{k}={v}" for k, v in run.ctx.items() if v not in (0, [0] * 5)))
    print("packet  " + ("unchanged" if run.packet == packet else f"{len(packet)} to {len(run.packet)} bytes"))
    for line in hexdump(run.packet, before=packet):
        print(line)
    return 0


def read_packet(text: str) -> bytes:
    """Return the bytes of a file or of hex digits (blanks and colons allowed).

    Raises:  InputError when it is neither.
    """
    if Path(text).is_file():
        return Path(text).read_bytes()
    try:
        return bytes.fromhex(text.replace(":", ""))
    except ValueError:
        raise InputError(f"{text[:40]!r} is neither a file nor hex digits", where="--data-in") from None


def hexdump(packet: bytes, *, before: bytes) -> list[str]:
    """Return 16 bytes a line, with `*` before a line that the program changed."""
    lines = []
    for off in range(0, len(packet), 16):
        row = packet[off : off + 16]
        mark = " " if row == before[off : off + 16] else "*"
        lines.append(f"{mark} {off:04x}  {row.hex(' ', 1)}")
    return lines

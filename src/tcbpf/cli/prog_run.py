"""`tcbpf prog-run`: one program, one packet, as BPF_PROG_TEST_RUN gives it."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from tcbpf import filekind
from tcbpf import files as newfile
from tcbpf.cli.arguments import TIMEOUT, add, add_datapath, add_json, add_program, load_program, read_ctx, refuse_same_file
from tcbpf.cli.output import verdict_name
from tcbpf.datapath.choose import open_datapath
from tcbpf.errors import InputError
from tcbpf.net.pcap import read


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_program(parser)
    parser.add_argument("--data-in", required=True, metavar="FILE|HEX", help="a capture, a packet's bytes, or hex digits")
    parser.add_argument("--packet", type=int, metavar="N", help="packet N of a capture (1)")
    parser.add_argument("--data-out", metavar="FILE", help="write the packet as the program left it")
    parser.add_argument("--ctx", default="", metavar="FIELD=N,...", help="context fields before the run: mark=7,cb=1:2:3:4:5")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="run N times and report the mean duration")
    add(parser, TIMEOUT)
    add_json(parser)
    add_datapath(parser)


def main(args: argparse.Namespace) -> int:
    """Run once (or `repeat` times) and print verdict, context and packet."""
    refuse_same_file(args.data_out, args.data_in, args.program)
    packet = read_packet(args.data_in, args.packet)
    with open_datapath(args.datapath) as dp:
        run = load_program(dp, args).run(packet, read_ctx(args.ctx), args.repeat, timeout=args.timeout)
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


def read_packet(text: str, number: int | None = None) -> bytes:
    """Return packet `number` (by default the first) of a capture, the bytes of a file, or those of hex digits.

    Blanks and colons are allowed between the digits.

    Raises:  InputError when it is none of them, has no such packet, or a number was given for a single packet.
    """
    kind = filekind.of_path(text) if os.path.isfile(text) else ""
    if kind in filekind.CAPTURES:
        return packet_of(text, 1 if number is None else number)
    if number is not None:
        raise InputError("--packet chooses a packet of a capture", where="--data-in", hint="a pcap or pcapng file")
    if kind:
        return Path(text).read_bytes()
    try:
        return bytes.fromhex(text.replace(":", ""))
    except ValueError:
        raise InputError(f"{text[:40]!r} is neither a file nor hex digits", where="--data-in") from None


def packet_of(path: str, number: int) -> bytes:
    """Return a packet of a capture, counted from 1.

    Raises:  InputError.
    """
    last = 0
    for packet in read(path):
        last = packet.number
        if last == number:
            return packet.data
    raise InputError(f"no packet {number}", where=path, hint=f"1 to {last}" if last else "the capture is empty")


def hexdump(packet: bytes, *, before: bytes) -> list[str]:
    """Return 16 bytes a line, with `*` before a line that the program changed."""
    lines = []
    for off in range(0, len(packet), 16):
        row = packet[off : off + 16]
        mark = " " if row == before[off : off + 16] else "*"
        lines.append(f"{mark} {off:04x}  {row.hex(' ', 1)}")
    return lines

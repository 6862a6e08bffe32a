"""The corpus of filters and packets, and random classic programs, most of which load or nearly do."""

from __future__ import annotations

import random
from pathlib import Path

from tcbpf.cbpf import Classic, Filter, assemble
from tcbpf.cbpf.expression import compile_expression
from tcbpf.net.pcap import read
from tcbpf.tables.cbpf import CLASSIC, EXTENSIONS, SKF_AD_OFF, SKF_LL_OFF, SKF_NET_OFF, Mode

HERE = Path(__file__).parent
ROWS = [row for row in CLASSIC if row.loads]
ENDS = [row for row in ROWS if row.name == "ret"]
CAPTURES = sorted((HERE.parent.parent / "examples" / "captures").glob("*.pcapng"))


def random_program(rng: random.Random) -> Filter:
    """Return instructions that mostly keep the rules; the more there are, the rarer each breaks one."""
    size = rng.choice([1, 2, 3, 4, 6, 10, 20, 40])
    stored: list[int] = []
    return tuple(_instruction(rng, size - pc - 2, 0.5 / size, stored) for pc in range(size))


def _instruction(rng: random.Random, left: int, flaw: float, stored: list[int]) -> Classic:
    """Return one; a jump skips up to `left`."""
    wrong = rng.random() < flaw
    row = rng.choice(ENDS if left < 0 and not wrong else list(CLASSIC) if wrong else ROWS)
    k, jt, jf = rng.choice([0, 1, 2, 12, 14, 23, 40, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, rng.getrandbits(32)]), 0, 0
    if row.mode is Mode.MEM:
        k = rng.choice(stored) if row.name[:2] == "ld" and stored and rng.random() < 0.95 else rng.randrange(16 + wrong)
        stored += [k] * (row.name[:2] == "st")
    elif row.mode is Mode.IMM and row.name in ("lsh", "rsh"):
        k = rng.randrange(32) if not wrong else rng.choice([32, 33, k])
    elif row.mode is Mode.IMM and row.name in ("div", "mod"):
        k = 0 if wrong else k or 1
    elif row.mode is Mode.LABEL:
        k = rng.randrange(max(left, 0) + 1) if not wrong else rng.choice([left + 1, 0xFFFFFFFF, k])
    elif row.mode is Mode.ABS and rng.random() < 0.3:
        k = SKF_AD_OFF + rng.choice([row.off for row in EXTENSIONS] + [40] if not wrong else [2, 41, 64, 0xFFF])
    elif row.size and rng.random() < 0.3:
        k = rng.choice([SKF_NET_OFF, SKF_LL_OFF]) + rng.randrange(40)
    elif row.branch:
        jt, jf = (rng.randrange(min(max(left, 0), 255) + 1 + wrong) for _ in "tf")
    elif rng.random() < 0.05:
        jt, jf = rng.randrange(256), rng.randrange(256)  # nobody looks at them
    code = rng.randrange(65536) if wrong and rng.random() < 0.2 else row.code
    return Classic(code, jt, jf, k)


def lines(name: str) -> list[str]:
    return [line for line in (HERE / name).read_text().splitlines() if not line.startswith("#")]


def expressions() -> list[tuple[str, str]]:
    """Link type and expression."""
    return [("EN10MB", text) for text in lines("expressions.txt")] + [
        (link, text) for link, _, text in (line.partition(" ") for line in lines("links.txt"))
    ]


def corpus() -> dict[str, Filter]:
    filters = {text: assemble(text.replace(";", "\n")) for text in lines("filters.txt")}
    for link, text in expressions():
        for optimize in (True, False):
            filters[f"{link} {text} -O{int(optimize)}"] = compile_expression(text, link_type=link, optimize=optimize)
    return filters


def packets() -> list[bytes]:
    """Some packets of each capture, some cut short, some random."""
    rng = random.Random(2)
    chosen = []
    for path in CAPTURES:
        recorded = [packet.data for packet in read(path)]
        chosen += rng.sample(recorded, min(12, len(recorded)))
    chosen += [packet[: rng.randrange(1, len(packet))] for packet in chosen[::5]]
    return chosen + [rng.randbytes(rng.randrange(1, 200)) for _ in range(20)]

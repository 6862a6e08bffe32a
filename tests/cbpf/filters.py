"""The corpus of filters and packets, and random classic programs, about half of which load."""

from __future__ import annotations

import random
from pathlib import Path

from tcbpf.cbpf import Classic, Filter, assemble
from tcbpf.cbpf.expression import compile_expression
from tcbpf.net.pcap import read
from tcbpf.tables.cbpf import CLASSIC

HERE = Path(__file__).parent
CAPTURES = sorted((HERE.parent.parent / "examples" / "captures").glob("*.pcapng"))


def random_program(rng):
    size = rng.choice([1, 2, 3, 4, 6, 10])
    program = [Classic(random_code(rng), *(rng.randrange(3) * (rng.random() < .7) for _ in "tf"), random_k(rng, size))
               for _ in range(size)]
    if rng.random() < .9:
        program[-1] = Classic(rng.choice([0x06, 0x16]), 0, 0, 1)
    return tuple(program)


def random_code(rng):
    return rng.choice([row.code for row in CLASSIC]) if rng.random() < .98 else rng.randrange(65536)


def random_k(rng, size):
    extension = 0xFFFFF000 + rng.choice([0, 4, 8, 12, 13, 40, 44, 56, 60, 64, 61])
    return rng.choice([0, 1, 2, 3, 15, 16, 31, 32, rng.randrange(size + 1), extension, rng.getrandbits(32)])


def lines(name: str) -> list[str]:
    return [line for line in (HERE / name).read_text().splitlines() if not line.startswith("#")]


def corpus() -> dict[str, Filter]:
    filters = {text: assemble(text.replace(";", "\n")) for text in lines("filters.txt")}
    for text in lines("expressions.txt"):
        for optimize in (True, False):
            filters[f"{text} -O{int(optimize)}"] = compile_expression(text, optimize=optimize)
    return filters


def packets() -> list[bytes]:
    """Some packets of each capture, some cut short, some random."""
    rng = random.Random(2)
    chosen = []
    for path in CAPTURES:
        recorded = [packet.data for packet in read(path)]
        chosen += rng.sample(recorded, min(12, len(recorded)))
    chosen += [packet[:rng.randrange(1, len(packet))] for packet in chosen[::5]]
    return chosen + [rng.randbytes(rng.randrange(1, 200)) for _ in range(20)]

"""Random classic programs, about half of which load."""

from __future__ import annotations

from tcbpf.cbpf import Classic
from tcbpf.tables.cbpf import CLASSIC


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

"""The live kernel prints what we compute, instruction by instruction, over random programs."""

from __future__ import annotations

import random

import pytest

from verifier.against_kernel import differences
from verifier.programs import program

pytestmark = pytest.mark.kernel(since=(6, 18))


def compare(seed: int, programs: int) -> int:
    rng = random.Random(seed)
    compared = 0
    for _ in range(programs):
        text = program(rng, rng.randrange(2, 24))
        count, found = differences(text)
        assert not found, "\n".join(str(difference) for difference in found)
        compared += count
    return compared


@pytest.mark.parametrize("seed", range(4))
def test_random_programs(seed):
    assert compare(seed, 250) > 2000


@pytest.mark.slow
def test_many_random_programs():
    assert compare(1000, 200_000) > 1_000_000

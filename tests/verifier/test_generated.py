"""Random programs: our verdict, our words and our count are the live kernel's.

scripts/verifier_fuzz.py does the same for as long as one likes.
"""

from __future__ import annotations

import pytest

from generator import generate
from generator.oracle import Oracle, ask_us

COUNT = 800
pytestmark = pytest.mark.kernel(since=(6, 18))


def test_generated_programs_get_the_kernels_verdict() -> None:
    oracle = Oracle()
    differ, counts, rejects, words = [], 0, 0, 0
    for seed in range(COUNT):
        program = generate(seed)
        kernel, ours = oracle.ask(program), ask_us(program)
        assert not kernel.odd, (seed, kernel.odd)
        if ours.odd or ours.accept != kernel.accept:
            differ.append((seed, str(kernel), str(ours)))
        elif ours.accept:
            counts += not 0.9 <= ours.processed / kernel.processed <= 1.1
        else:
            rejects += 1
            words += ours.message == kernel.message
    assert not differ
    assert rejects > COUNT / 5 and words >= 0.97 * rejects
    assert counts <= COUNT / 100

"""Generated programs that are accepted, on random packets: interpreter, machine code and live kernel give the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from generator import generate
from generator.execute import Engines, is_reproducible, is_short, packets
from tcbpf.errors import NotSupported, VerifierError
from tcbpf.verifier import verify

COUNT = 12
FAULTLESS = 150


@pytest.fixture(params=["ours", pytest.param("kernel", marks=pytest.mark.kernel)])
def engines(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engines]:
    made = Engines(tmp_path, kernel=request.param == "kernel")
    yield made
    made.close()


def test_all_engines_give_the_same(engines: Engines) -> None:
    seeds = (seed for seed in range(10_000) if is_short(generate(seed)) and is_reproducible(generate(seed)))
    for _ in range(COUNT):
        seed = next(seeds)
        outcomes = engines.run(generate(seed), packets(seed))
        first = outcomes.pop("interp")
        for name, other in outcomes.items():
            assert other == first, (seed, name)


def test_what_is_accepted_never_faults(tmp_path: Path) -> None:
    """The interpreter checks every access although the verifier has proved it: an InternalError here is a wrong proof."""
    engines, ran = Engines(tmp_path, kernel=False), 0
    del engines.all["jit"]
    for seed in range(FAULTLESS):
        program = generate(seed)
        try:
            if program.type == "xdp" or not is_short(program) or verify(program).insns_processed > 2000:
                continue
            engines.run(program, packets(seed)[:1])
            ran += 1
        except (VerifierError, NotSupported):
            continue
    engines.close()
    assert ran > FAULTLESS / 6

"""Random programs: our verdict and words are the live kernel's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

import kernel_oracle
from tcbpf.datapath.kernel import Kernel
from tcbpf.errors import VerifierError
from tcbpf.maps.map import Map
from tcbpf.verifier import verify
from verifier.generate import MAPS, generate

COUNT = 400
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(bool(kernel_oracle.missing()), reason=kernel_oracle.missing() or "the kernel answers"),
]


@pytest.fixture(scope="module")
def live() -> Iterator[tuple[Map, ...]]:
    maps = tuple(Kernel().map_create(spec) for spec in MAPS)
    yield maps
    for made in maps:
        made.raw.close()


def test_generated_programs_get_the_kernels_verdict(live: tuple[Map, ...]) -> None:
    kernel = Kernel()
    differ = []
    for seed in range(COUNT):
        program = generate(seed)
        try:
            verify(program)
            ours = ""
        except VerifierError as error:
            ours = error.message
        try:
            kernel.prog_load(replace(program, maps=live), log_level=1).close()
            refused, log = False, ""
        except VerifierError as error:
            refused, log = True, error.log
        if bool(ours) != refused or (ours and ours not in log.splitlines()):
            differ.append((seed, ours, log.splitlines()[-4:]))
    assert not differ

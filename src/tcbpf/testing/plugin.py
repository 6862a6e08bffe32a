"""The pytest plugin: a `bpf` fixture, so that a tc program's test reads like any other.

    def test_drops_blocked_dns(bpf):
        prog = bpf.load(tcbpf.compile("dns_guard.c"), section="tc")
        assert prog.run(packet).verdict == 2

`pytest --bpf-datapath kernel` runs the same tests on the live kernel. A program that may loop for long is stopped after ten
seconds (TCBPF_TIMEOUT; `prog.run(packet, timeout=60)` gives one run more).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tcbpf.datapath.base import Datapath

# The import inside the fixture is for start-up time: pytest loads this plugin in every project where tcbpf is installed.


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --bpf-datapath."""
    parser.addoption("--bpf-datapath", choices=("user", "kernel"), default="user", help="where the bpf fixture runs programs")


@pytest.fixture
def bpf(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Datapath]:
    """A datapath of the test's own: maps and programs go when the test ends."""
    monkeypatch.setenv("TCBPF_TIMEOUT", os.environ.get("TCBPF_TIMEOUT", "10"))
    from tcbpf.datapath.choose import open_datapath

    with open_datapath(request.config.getoption("--bpf-datapath")) as datapath:
        yield datapath

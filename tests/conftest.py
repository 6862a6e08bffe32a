"""Fixtures that rooms share."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

import kernel_oracle

settings.register_profile(  # time is not asserted; fixtures that examples share hold no state of theirs
    "untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.load_profile("untimed")

if TYPE_CHECKING:
    from tcbpf.datapath.base import Datapath


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test marked `kernel` where there is none to ask, before its fixtures; TCBPF_REQUIRE_KERNEL=1 fails it."""
    if (mark := item.get_closest_marker("kernel")) is not None:
        kernel_oracle.need(**mark.kwargs)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in one line what the skipped tests leave untested, and why."""
    skipped = terminalreporter.stats.get("skipped", [])
    if line := left_out((report.longrepr[2].removeprefix("Skipped: ") for report in skipped), root=os.geteuid() == 0):
        terminalreporter.write_line(line, yellow=True)


def left_out(reasons: Iterable[str], *, root: bool) -> str:
    """Return what was not tested, by reason, and for anyone but root how much of it root adds; "" for nothing."""
    counted = Counter(reasons)
    if not counted:
        return ""
    line = "not tested: " + "; ".join(f"{count:,} ({why})" for why, count in counted.most_common())
    gain = sum(count for why, count in counted.items() if why.startswith(kernel_oracle.REFUSED) or "root" in why)
    if not root and gain:
        line += f". Root adds {gain:,} of them: all that is compared with the live kernel"
    return line


def open_for_test(name: str, netns: str, home: Path) -> Datapath:
    """Return a datapath that shares nothing with another test's but the kernel itself."""
    if name == "user":
        from tcbpf.datapath.user import User

        return User(home=str(home))
    from tcbpf.datapath.kernel import Kernel

    return Kernel(netns=netns)


@pytest.fixture(scope="session")
def libpcap() -> None:
    """Skip where libpcap, asked, is not there."""
    from tcbpf.cbpf.expression import compile_expression
    from tcbpf.errors import NotSupported

    try:
        compile_expression("ip")
    except NotSupported as error:
        pytest.skip(str(error))


@pytest.fixture(params=["user", pytest.param("kernel", marks=pytest.mark.kernel)])
def datapath(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Datapath]:
    """Each datapath in turn; on the kernel's, requests act in a network namespace of the test's own."""
    from netns import netns

    if request.param == "user":
        with open_for_test("user", "", tmp_path) as made:
            yield made
        return
    with netns() as path, open_for_test("kernel", path, tmp_path) as made:
        yield made

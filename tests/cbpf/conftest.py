"""What the tests of classic BPF need of the machine."""

from __future__ import annotations

import pytest

from tcbpf.cbpf.expression import compile_expression
from tcbpf.errors import NotSupported


@pytest.fixture(scope="session")
def libpcap() -> None:
    """Skip where libpcap, asked, is not there."""
    try:
        compile_expression("ip")
    except NotSupported as error:
        pytest.skip(str(error))

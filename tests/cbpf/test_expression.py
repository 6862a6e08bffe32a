"""pcap-filter expressions: what tcpdump -ddd prints, we print."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tcbpf.cbpf import to_lines
from tcbpf.cbpf.expression import compile_expression
from tcbpf.errors import InputError

pytestmark = pytest.mark.usefixtures("libpcap")


@pytest.mark.skipif(not shutil.which("tcpdump"), reason="no tcpdump to compare with")
@pytest.mark.parametrize("flags", [[], ["-O"]])
@pytest.mark.parametrize("expression", [
    "", "ip", "tcp port 80 and not host 10.0.0.1", "tcp[tcpflags] & tcp-syn != 0", "vlan 5 and ip6", "ip broadcast",
    "portrange 20-30", "ether host 02:00:00:00:00:01", "icmp6", "len > 100", "ip6 protochain 6",
])
def test_same_as_tcpdump(expression, flags):
    theirs = subprocess.run(["tcpdump", "-ddd", "-y", "EN10MB", *flags, expression], capture_output=True, text=True, check=True)
    assert to_lines(compile_expression(expression, optimize=not flags)) == theirs.stdout


def test_errors():
    with pytest.raises(InputError, match="syntax error"):
        compile_expression("tcp porrt 80")
    with pytest.raises(InputError, match="no link type 'FOO'"):
        compile_expression("ip", link_type="FOO")
    assert compile_expression("ip", link_type="ETHERNET") == compile_expression("ip")

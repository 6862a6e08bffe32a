"""Converted filters on every engine, through the verifier, and what `cbpf run` keeps beside what tcpdump keeps."""

from __future__ import annotations

import shutil
import subprocess

import pytest

import tcbpf
from cbpf.filters import CAPTURES, corpus, packets
from tcbpf.cbpf import as_program, check
from tcbpf.cbpf.expression import compile_expression
from tcbpf.cbpf.step import run
from tcbpf.errors import FilterError
from tcbpf.net.pcap import read
from tcbpf.vm.executable import Options

pytestmark = pytest.mark.usefixtures("libpcap")


def loadable():
    for name, program in corpus().items():
        try:
            check(program)
        except FilterError:
            continue
        yield name, program


@pytest.mark.parametrize("engine", ["jit", "interp"])
def test_every_engine_returns_what_the_classic_machine_does(engine):
    chosen = [packet for packet in packets() if len(packet) >= 14][::1 if engine == "jit" else 9]
    filters = list(loadable())[:: 3 if engine == "jit" else 11]
    with tcbpf.User(options=Options(engine=engine)) as dp:
        for name, program in filters:
            with dp.prog_load(as_program(program)) as prog:
                for packet in chosen:
                    assert prog.run(packet).verdict & 0xFFFFFFFF == run(program, packet), (name, packet.hex())


@pytest.mark.skipif(not shutil.which("tcpdump"), reason="no tcpdump to compare with")
@pytest.mark.parametrize("expression", ["tcp port 80", "udp port 53", "vlan and ip", "icmp6 or arp", "ip[6:2] & 0x1fff != 0",
                                        "greater 1500", "not ip and not ip6", "tcp[tcpflags] & tcp-syn != 0"])
def test_matches_are_those_of_tcpdump(expression, tmp_path):
    with tcbpf.User() as dp, dp.prog_load(as_program(compile_expression(expression))) as prog:
        for capture in CAPTURES:
            ours, theirs = tmp_path / "ours.pcapng", tmp_path / "theirs.pcap"
            stats = prog.run_pcap(str(capture), out=str(ours))
            subprocess.run(["tcpdump", "-r", capture, "-w", theirs, expression], check=True, capture_output=True)
            kept = [packet.data for packet in read(ours)] if stats.kept else []
            assert kept == [packet.data for packet in read(theirs)], capture

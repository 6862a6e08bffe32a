"""Converted filters on every engine, through the verifier, and what `cbpf run` keeps beside what tcpdump keeps."""

from __future__ import annotations

import random
import shutil
import subprocess

import pytest

import tcbpf
from cbpf.filters import CAPTURES, corpus, expressions, packets
from cbpf.wire import frame
from tcbpf.cbpf import as_program, assemble, check, over_capture
from tcbpf.cbpf.expression import compile_expression
from tcbpf.cbpf.step import run
from tcbpf.datapath.kernel import Kernel
from tcbpf.errors import FilterError, NotSupported
from tcbpf.net.pcap import Writer, read
from tcbpf.vm.executable import Options

pytestmark = pytest.mark.usefixtures("libpcap")


def loadable():
    for name, program in corpus().items():
        try:
            check(program)
        except FilterError:
            continue
        yield name, program


@pytest.mark.parametrize("every", [25, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("engine", ["jit", "interp"])
def test_every_engine_returns_what_the_classic_machine_does(engine, every):
    chosen = [packet for packet in packets() if len(packet) >= 14][:: 1 if engine == "jit" else 9]
    filters = list(loadable())[::every]
    with tcbpf.User(options=Options(engine=engine)) as dp:
        for name, program in filters:
            with dp.prog_load(as_program(program)) as prog:
                for packet in chosen:
                    assert prog.run(packet).verdict & 0xFFFFFFFF == run(program, packet), (name, packet.hex())


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """A capture of every recorded packet, every third cut short as by a snap length, and of made ones."""
    path, rng = tmp_path_factory.mktemp("captures") / "everything.pcap", random.Random(6)
    recorded = [packet.data for capture in CAPTURES for packet in read(capture)][::2] + [frame(rng) for _ in range(200)]
    with Writer(path, format="pcap") as writer:
        for number, data in enumerate(recorded):
            writer.write(data[:96] if number % 3 == 0 else data, number * 1000, wire_len=len(data))
    return path


@pytest.mark.skipif(not shutil.which("tcpdump"), reason="no tcpdump to compare with")
@pytest.mark.parametrize("every", [12, pytest.param(1, marks=pytest.mark.slow)])
def test_matches_are_those_of_tcpdump(everything, tmp_path, every):
    """protochain loops, which no kernel loads; a shift by more than 31 gives 0 in libpcap's own machine alone."""
    ours, theirs, kept = tmp_path / "ours.pcapng", tmp_path / "theirs.pcap", 0
    chosen = [text for link, text in expressions() if link == "EN10MB" and "protochain" not in text and "<< ip" not in text]
    with tcbpf.User() as dp:
        for expression in chosen[::every]:
            with dp.prog_load(over_capture(compile_expression(expression))) as prog:
                stats = prog.run_pcap(str(everything), out=str(ours))
            subprocess.run(["tcpdump", "-r", everything, "-w", theirs, expression], check=True, capture_output=True)
            assert packets_of(ours) == packets_of(theirs), expression
            kept += stats.kept
    assert kept > 30 * len(chosen[::every])


def packets_of(path):
    return [(packet.data, packet.wire_len, packet.ts_ns) for packet in read(path)]


@pytest.mark.parametrize("engine", ["jit", "interp"])
def test_captures_of_other_links(tmp_path, engine):
    packet = bytes.fromhex("4500001c00000000401166ca0a0000010a0000020035003500080000")
    with Writer(tmp_path / "raw.pcapng", link_type=101) as writer:
        for number in range(3):
            writer.write(packet[:9] + bytes([17, 6][number % 2 :][:1]) + packet[10:], number)
    with (
        tcbpf.User(options=Options(engine=engine)) as dp,
        dp.prog_load(over_capture(compile_expression("udp", link_type="RAW"))) as prog,
    ):
        assert prog.run_pcap(str(tmp_path / "raw.pcapng"), out=str(tmp_path / "out")).kept == 2
        assert [packet.link_type for packet in read(tmp_path / "out", link_type=None)] == [101, 101]


@pytest.mark.kernel
def test_the_kernels_test_run_matches_the_same(tmp_path):
    program = over_capture(compile_expression("udp port 53"))
    with tcbpf.User() as user, Kernel() as kernel, user.prog_load(program) as ours, kernel.prog_load(program) as theirs:
        for capture in CAPTURES:
            kept = [prog.run_pcap(str(capture), out=str(tmp_path / "out")).kept for prog in (ours, theirs)]
            assert kept[0] == kept[1], capture
    for word in "poff", "hatype":
        with Kernel() as kernel, pytest.raises(NotSupported, match="only a classic filter"):
            kernel.prog_load(as_program(assemble(f"ld {word}\nret a")))

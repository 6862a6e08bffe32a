"""Every filter of the corpus on every packet: ours and the kernel's, through a real socket's filter.

A datagram sent to a Unix socket is the packet: the filter sees its bytes, and what it returns cuts or drops it.
"""

from __future__ import annotations

import random
import socket

import pytest

from cbpf.filters import corpus, packets, random_program
from tcbpf.cbpf import check, sockets
from tcbpf.cbpf.step import run
from tcbpf.errors import FilterError

ONLY_LINUX_LOOPS = "protochain"                              # compiles to a loop, which no kernel loads


class KernelFilter:
    """A Unix socket pair whose receiver has a filter."""

    def __init__(self) -> None:
        self.sender, self.receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.receiver.setblocking(False)

    def length(self, packet: bytes) -> int:
        """Return how many bytes of `packet` the attached filter let through."""
        self.sender.send(packet)
        try:
            return len(self.receiver.recv(65536))
        except BlockingIOError:
            return 0


@pytest.fixture
def kernel():
    pair = KernelFilter()
    with pair.sender, pair.receiver:
        yield pair


@pytest.mark.usefixtures("libpcap")
def test_corpus(kernel):
    filters = corpus()
    assert len(filters) >= 300
    chosen, matched = packets(), 0
    for name, program in filters.items():
        try:
            check(program)
        except FilterError:
            assert ONLY_LINUX_LOOPS in name, name
            continue
        sockets.attach(kernel.receiver, program)
        for packet in chosen:
            ours = min(run(program, packet), len(packet))
            assert kernel.length(packet) == ours, (name, packet.hex())
            matched += ours > 0
    assert matched > 1000


@pytest.mark.parametrize("count", [1_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_random_filters(kernel, count):
    rng, chosen, ran = random.Random(3), packets()[::4], 0
    while ran < count:
        program = random_program(rng)
        try:
            check(program)
        except FilterError:
            continue
        if any(insn.code & 7 == 0 and insn.k >= 0xFFE00000 for insn in program):
            continue                                         # metadata: a Unix datagram has none to compare
        ran += 1
        sockets.attach(kernel.receiver, program)
        for packet in rng.sample(chosen, 5):
            assert kernel.length(packet) == min(run(program, packet), len(packet)), (program, packet.hex())

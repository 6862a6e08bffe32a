"""Every filter of the corpus on every packet: ours and the kernel's, through a real socket's filter.

A datagram sent to a Unix socket is the packet: the filter sees its bytes, and what it returns cuts or drops it.
"""

from __future__ import annotations

import itertools
import random
import socket
import struct

import pytest

import tcbpf
from cbpf.filters import corpus, packets
from tcbpf.cbpf import as_program, assemble, check, sockets
from tcbpf.cbpf.step import run
from tcbpf.errors import FilterError
from tcbpf.vm.executable import Options

ONLY_LINUX_LOOPS = "protochain"  # compiles to a loop, which no kernel loads


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
@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_corpus(kernel, every):
    filters = dict(list(corpus().items())[::every])
    assert len(filters) * every >= 880
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


def attribute(kind: int, payload: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


@pytest.mark.parametrize("engine", ["jit", "interp"])
def test_netlink_attributes(kernel, engine):
    """`nla` and `nlan` over nested attributes, whole, cut and with lengths that lie."""
    rng = random.Random(4)
    inner = attribute(1, b"abc") + attribute(2 | 0x8000, b"") + attribute(3, b"12345678")
    whole = bytes(16) + attribute(7, b"x") + attribute(5, inner) + attribute(9, b"last")
    lies = [struct.pack("=HH", size, 1) + whole for size in (0, 3, 4, 0xFFFF)]
    messages = [whole, whole[:40], whole[:3], inner, *lies, whole + b"\1\2\3"]
    messages += [bytes(byte if rng.random() < 0.95 else rng.randrange(10) for byte in whole) for _ in range(20)]
    found = 0
    with tcbpf.User(options=Options(engine=engine)) as dp:
        for start, kind, word in itertools.product((0, 16, 24, 28, 0xFFFFFFFF), (1, 2, 5), ("nla", "nlan")):
            program = assemble(f"ld #{start:#x}\nldx #{kind}\nld #{word}\nret a")
            sockets.attach(kernel.receiver, program)
            with dp.prog_load(as_program(program)) as prog:
                for message in messages:
                    theirs = kernel.length(message)
                    assert prog.run(message).verdict == theirs, (start, kind, word, message.hex())
                    found += theirs > 0
    assert found > 60

"""Extensions, loads from headers, random filters: every engine returns what the kernel's filter on a packet socket does."""

from __future__ import annotations

import itertools
import os
import random
import socket

import pytest

import tcbpf
from cbpf.filters import packets, random_program
from cbpf.wire import frame, wire
from tcbpf.cbpf import Classic, as_program, assemble, check
from tcbpf.errors import FilterError
from tcbpf.tables.cbpf import EXTENSIONS, SKF_AD_OFF
from tcbpf.vm.executable import Options

pytestmark = pytest.mark.kernel

CHANGING = ("cpu", "rand")
"""Extensions that no two runs need agree on."""

LOADS = [
    "ld [0xfff00000]",
    "ldh [0xfff00002]",
    "ldb [0xfff00009]",
    "ldh [0xfff00100]",
    "ldb [0xffe00000]",
    "ldh [0xffe0000c]",
    "ld [0xffdfffff]",
    "ld [0x80000000]",
    "ldx #2; ldb [x + 0xfff00000]",
    "ldx #14; ldh [x + 0xffe00000]",
    "ldx #-1; ld [x + 0xfff00001]",
    "ldxb 4*([0xfff00000]&0xf); txa",
    "ldx #-1; ldb [x + 0xfff00000]",
    "ldx #-1; ldb [x + 0xffe00000]",
    "ldx #0x100000; ldb [x + 0xfff00001]",
    "ldi 5; ldx #3; ld [0xfffff028]",
    "ld len",
]


@pytest.fixture(scope="module")
def frames():
    """Recorded and made ones; half of them so long that no verdict of a byte is cut to their length."""
    rng = random.Random(5)
    chosen = [packet for packet in packets() if 20 <= len(packet) <= 9000][::3] + [frame(rng) for _ in range(250)]
    return [packet + bytes(200) * (number % 2) for number, packet in enumerate(chosen)]


class Both:
    """The wire, and a datapath for each engine."""

    def __init__(self, link):
        self.link = link
        self.jit, self.interp = (tcbpf.User(options=Options(engine=engine, cache=False)) for engine in ("jit", "interp"))

    def compare(self, program, frames, *, interpreted=5):
        """Compare all verdicts; every so many frames the interpreter's as well."""
        self.link.attach(program)
        with self.jit.prog_load(as_program(program)) as fast, self.interp.prog_load(as_program(program)) as slow:
            for number, sent in enumerate(frames):
                theirs, arrived, ctx = self.link.send(sent)
                for prog in (fast, slow)[: 1 + (number % interpreted == 0)]:
                    ours = prog.run(arrived, ctx).verdict & 0xFFFFFFFF
                    assert min(ours, len(arrived)) == theirs, (program, sent.hex(), arrived.hex(), ctx, ours)


@pytest.fixture(scope="module")
def both():
    with wire() as link:
        made = Both(link)
        with made.jit, made.interp:
            yield made


@pytest.mark.parametrize("name", [row.name for row in EXTENSIONS if row.name not in CHANGING])
def test_extensions(both, frames, name):
    both.compare(assemble(f"ldi 7\nldx #3\nld #{name}\nret a"), frames)
    for shift in (0, 7, 14):  # a packet socket tells no more of A than the frame is long
        both.compare(assemble(f"ldb #{name}\nrsh #{shift}\nand #127\nadd #1\nret a"), frames[1::16])


def test_loads_from_headers(both, frames):
    for text in LOADS:
        for shift in (0, 7, 14, 21, 28):
            both.compare(assemble(text.replace(";", "\n") + f"\nrsh #{shift}\nand #127\nadd #1\nret a"), frames[1:200:14])


@pytest.mark.parametrize("count", [150, pytest.param(100_000, marks=pytest.mark.slow)])
def test_random_filters(both, frames, count):
    rng, ran = random.Random(count), 0
    changing = [SKF_AD_OFF + EXTENSIONS[name].off for name in CHANGING]
    while ran < count:
        program = random_program(rng)
        if any(insn.k in changing for insn in program):
            continue
        try:
            check(program)
        except FilterError:
            continue
        both.compare(program, rng.sample(frames, 5))
        ran += 1


def test_what_changes(both):
    """`rand` is another number each time, `cpu` one that exists."""
    for name, dp in itertools.product(CHANGING, (both.jit, both.interp)):
        with dp.prog_load(as_program(assemble(f"ld #{name}\nret a"))) as prog:
            seen = {prog.run(bytes(20)).verdict for _ in range(20)}
            assert len(seen) == 20 if name == "rand" else seen <= set(range(os.cpu_count() or 1))


def test_the_type_of_a_device(both):
    """An Ethernet device is of type 1, the loopback of 772, which a test run takes for none; no device leaves A."""
    program = assemble("ldi 9\nld #hatype\nret a")
    for dp in (both.jit, both.interp):
        with dp.prog_load(as_program(program)) as prog:
            assert [prog.run(bytes(20), {"ifindex": index}).verdict for index in (7, 1, 0)] == [1, 772, 772]
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sender, receiver:
        tcbpf.cbpf.sockets.attach(receiver, (*program[:-1], Classic(6, 0, 0, 1)))
        sender.send(bytes(20))
        assert len(receiver.recv(100)) == 9

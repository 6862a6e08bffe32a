"""bpf_check_classic's rules, one by one, and against setsockopt(SO_ATTACH_FILTER) on random programs."""

from __future__ import annotations

import ctypes
import errno
import random
import socket

import pytest

from cbpf.filters import random_program
from tcbpf.cbpf import Classic, assemble, check, to_bytes
from tcbpf.errors import FilterError
from tcbpf.tables.cbpf import MAX_INSNS


@pytest.mark.parametrize(
    ("program", "pc", "rule"),
    [
        ((), -1, "length"),
        ((Classic(6),) * 4097, -1, "length"),
        ((Classic(0x99), Classic(6)), 0, "opcode"),
        ((Classic(0x0E),), 0, "opcode"),
        ((Classic(0x60, 0, 0, 16), Classic(6)), 0, "memory"),
        ((Classic(0x34), Classic(6)), 0, "division"),
        ((Classic(0x94), Classic(6)), 0, "division"),
        ((Classic(0x64, 0, 0, 32), Classic(6)), 0, "shift"),
        ((Classic(0x20, 0, 0, 0xFFFFF001), Classic(6)), 0, "extension"),
        ((Classic(0x05, 0, 0, 1), Classic(6)), 0, "jump"),
        ((Classic(0x05, 0, 0, 0xFFFFFFFF), Classic(6)), 0, "jump"),
        ((Classic(0x15, 1, 0, 0), Classic(6)), 0, "jump"),
        ((Classic(0x15, 0, 1, 0), Classic(6)), 0, "jump"),
        ((Classic(0x00),), 0, "end"),
        ((Classic(0x60, 0, 0, 1), Classic(6)), 0, "uninitialised"),
        ((Classic(0x05, 0, 0, 3000), *(Classic(0x20),) * 3000, Classic(6)), 0, "reach"),
        ((*(Classic(0x20),) * 3000, Classic(0x15, 0, 1), Classic(6), Classic(6)), 3000, "reach"),
    ],
)
def test_each_rule(program, pc, rule):
    with pytest.raises(FilterError) as caught:
        check(program)
    assert (caught.value.pc, caught.value.rule) == (pc, rule)


def test_memory_must_be_stored_on_every_path():
    check(assemble("ld #1 st M[1] ld M[1] ret a"))
    with pytest.raises(FilterError, match="every path"):
        check(assemble("jeq #0, over st M[1] over: ld M[1] ret a"))


class _Fprog(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def attach(sock, program):
    """Return 0, or the errno of SO_ATTACH_FILTER."""
    raw = to_bytes(program)
    buffer = ctypes.create_string_buffer(raw, len(raw))
    fprog = _Fprog(len(program), ctypes.addressof(buffer))
    try:
        sock.setsockopt(socket.SOL_SOCKET, 26, bytes(fprog))
    except OSError as error:
        return error.errno
    return 0


@pytest.mark.parametrize("load", [Classic(0x20, 0, 0, 14), Classic(0xB1, 0, 0, 40000), Classic(0x50, 0, 0, 0), Classic(0x9C)])
def test_the_longest_jump_is_the_kernels(load):
    """Found by halving on both sides; the kernel's EINVAL counts, not that a socket may not hold so much (ENOMEM)."""

    def longest(takes):
        least, most = 1, MAX_INSNS - 2
        while least < most:
            middle = (least + most + 1) // 2
            program = (Classic(0x05, 0, 0, middle), *(load,) * middle, Classic(6))
            least, most = (middle, most) if takes(program) else (least, middle - 1)
        return least

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        assert longest(loads) == longest(lambda program: attach(sock, program) != errno.EINVAL)


def loads(program):
    try:
        check(program)
    except FilterError:
        return False
    return True


@pytest.mark.parametrize("count", [5_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_check_agrees_with_the_kernel(count):
    rng, accepted = random.Random(1), 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        for _ in range(count):
            program = random_program(rng)
            ours = loads(program)
            assert (attach(sock, program) == 0) == ours, program
            accepted += ours
    assert count // 4 < accepted < count * 3 // 4

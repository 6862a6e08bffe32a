"""Filters on real sockets, over loopback and AF_UNIX; none of this needs root but the packet sockets."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from tcbpf import cbpf
from tcbpf.cbpf import as_program, assemble, sockets
from tcbpf.datapath.kernel import Kernel
from tcbpf.errors import FilterError, SysError


def test_attach_detach_lock():
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with a, b:
        sockets.attach(b, assemble("ldb [0] jeq #65, pass, drop pass: ret #2 drop: ret #0"))
        a.send(b"Beta")
        a.send(b"Alpha")
        assert b.recv(16) == b"Al"  # dropped, and cut to what the filter returned
        sockets.detach(b)
        a.send(b"Beta")
        assert b.recv(16) == b"Beta"
        with pytest.raises(SysError) as caught:
            sockets.detach(b)
        assert caught.value.errno == errno.ENOENT
        sockets.attach(b, assemble("ret #-1"))
        sockets.lock(b)
        with pytest.raises(SysError) as caught:
            sockets.detach(b)
        assert caught.value.errno == errno.EPERM


def test_a_filter_that_would_not_load_is_refused_before_the_kernel_sees_it():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, pytest.raises(FilterError, match="M\\[0\\]"):
        sockets.attach(sock, assemble("ld M[0] ret a"))


def udp():
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def test_reuseport_chooses_the_socket(given):
    with udp() as first, udp() as second, udp() as client:
        for sock in (first, second):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(("127.0.0.1", first.getsockname()[1] if sock is second else 0))
            sock.settimeout(2)
        sockets.attach_reuseport(first, given(assemble("ldb [0] and #1 ret a")))  # the payload's first byte
        for text, receiver in ((b"\x00zero", first), (b"\x01one", second), (b"\x02two", first)):
            client.sendto(text, first.getsockname())
            assert receiver.recv(16) == text
        sockets.detach_reuseport(first)


@pytest.fixture(params=["classic", pytest.param("extended", marks=pytest.mark.kernel)])
def given(request):
    """Turn a classic program into what is attached: itself, or its conversion, loaded (as a program and as a descriptor)."""
    if request.param == "classic":
        yield lambda program: program
        return
    with Kernel() as kernel:
        yield lambda program: kernel.prog_load(as_program(program))


@pytest.mark.parametrize("by_descriptor", [False, True])
def test_a_filter_of_either_kind(given, by_descriptor):
    program = given(assemble("ldb [0] jeq #65, pass, drop pass: ret #2 drop: ret #0"))
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with a, b:
        cbpf.attach(b, program.fileno() if by_descriptor and hasattr(program, "fileno") else program)
        a.send(b"Beta")
        a.send(b"Alpha")
        assert b.recv(16) == b"Al"
        cbpf.detach(b)
        a.send(b"Beta")
        assert b.recv(16) == b"Beta"


def test_what_is_no_program_is_refused(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, open(tmp_path / "x", "w") as file:
        with pytest.raises(SysError) as caught:
            sockets.attach(sock, file)
        assert caught.value.errno == errno.EINVAL
        with pytest.raises(SysError) as caught:
            sockets.attach(sock, 9999)
        assert caught.value.errno == errno.EBADF


@pytest.mark.kernel
def test_fanout_chooses_the_packet_socket(given):
    if os.geteuid():
        pytest.skip("packet sockets need root")

    def packet_socket():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
        sock.bind(("lo", 0x0800))
        sock.settimeout(2)
        return sock

    marker = os.urandom(8)
    with packet_socket() as first, packet_socket() as second, udp() as client:
        program = given(assemble("ret #1"))
        for sock in (first, second):
            sockets.join_fanout(sock, os.getpid(), program)
        client.sendto(marker, ("127.0.0.1", 9))
        while marker not in second.recv(2048):
            pass
        first.setblocking(False)
        try:
            while True:
                assert marker not in first.recv(2048)
        except BlockingIOError:
            pass

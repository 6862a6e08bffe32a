"""Filters on real sockets, over loopback and AF_UNIX; none of this needs root but the packet sockets."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from tcbpf.cbpf import assemble, sockets
from tcbpf.errors import FilterError, SysError


def test_attach_detach_lock():
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with a, b:
        sockets.attach(b, assemble("ldb [0] jeq #65, pass, drop pass: ret #2 drop: ret #0"))
        a.send(b"Beta")
        a.send(b"Alpha")
        assert b.recv(16) == b"Al"                           # dropped, and cut to what the filter returned
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


def test_reuseport_chooses_the_socket():
    with udp() as first, udp() as second, udp() as client:
        for sock in (first, second):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(("127.0.0.1", first.getsockname()[1] if sock is second else 0))
            sock.settimeout(2)
        sockets.attach_reuseport(first, assemble("ldb [0] and #1 ret a"))      # the payload's first byte
        for text, receiver in ((b"\x00zero", first), (b"\x01one", second), (b"\x02two", first)):
            client.sendto(text, first.getsockname())
            assert receiver.recv(16) == text
        sockets.detach_reuseport(first)


@pytest.mark.kernel
def test_fanout_chooses_the_packet_socket():
    if os.geteuid():
        pytest.skip("packet sockets need root")
    def packet_socket():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
        sock.bind(("lo", 0x0800))
        sock.settimeout(2)
        return sock
    marker = os.urandom(8)
    with packet_socket() as first, packet_socket() as second, udp() as client:
        for sock in (first, second):
            sockets.join_fanout(sock, os.getpid(), assemble("ret #1"))
        client.sendto(marker, ("127.0.0.1", 9))
        while marker not in second.recv(2048):
            pass
        first.setblocking(False)
        try:
            while True:
                assert marker not in first.recv(2048)
        except BlockingIOError:
            pass

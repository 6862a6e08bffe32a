"""Filters on real sockets: the setsockopt(2) calls that attach classic and extended programs.

Source:  socket(7), packet(7); include/uapi/asm-generic/socket.h, linux/if_packet.h.
"""

from __future__ import annotations

import ctypes
import socket
from collections.abc import Sequence
from typing import Protocol

from tcbpf.cbpf.insn import Classic, to_bytes
from tcbpf.cbpf.rules import check
from tcbpf.errors import SysError
from tcbpf.uapi.packet import PACKET_FANOUT, PACKET_FANOUT_CBPF, PACKET_FANOUT_DATA, PACKET_FANOUT_EBPF

SO_ATTACH_FILTER, SO_DETACH_FILTER, SO_LOCK_FILTER, SO_ATTACH_BPF = 26, 27, 44, 50
SO_ATTACH_REUSEPORT_CBPF, SO_ATTACH_REUSEPORT_EBPF, SO_DETACH_REUSEPORT_BPF = 51, 52, 68
SOL_PACKET = 263


class HasFileno(Protocol):
    """A loaded program of the kernel datapath."""

    def fileno(self) -> int: ...


Attachable = Sequence[Classic] | int | HasFileno
"""A classic program, or a loaded extended one, or its file descriptor."""


class _Fprog(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def attach(sock: socket.socket, program: Attachable) -> None:
    """Let `sock` receive only what `program` passes, cut to the length it returns.

    Raises:  FilterError when the kernel would not load a classic program; SysError.
    """
    _set(sock, socket.SOL_SOCKET, SO_ATTACH_FILTER, SO_ATTACH_BPF, program, "attach a filter")


def detach(sock: socket.socket) -> None:
    """Detach the filter of `sock`.

    Raises:  SysError: ENOENT when it has none, EPERM when it is locked.
    """
    _setsockopt(sock, socket.SOL_SOCKET, SO_DETACH_FILTER, 0, "detach the filter")


def lock(sock: socket.socket) -> None:
    """Lock the filter of `sock` for the socket's lifetime."""
    _setsockopt(sock, socket.SOL_SOCKET, SO_LOCK_FILTER, 1, "lock the filter")


def attach_reuseport(sock: socket.socket, program: Attachable) -> None:
    """Let `program` choose, by the index it returns, which socket of the SO_REUSEPORT group of `sock` gets a packet."""
    _set(sock, socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, SO_ATTACH_REUSEPORT_EBPF, program, "attach a reuseport program")


def detach_reuseport(sock: socket.socket) -> None:
    """Detach the reuseport program of the group of `sock`."""
    _setsockopt(sock, socket.SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, 0, "detach the reuseport program")


def join_fanout(sock: socket.socket, group: int, program: Attachable) -> None:
    """Put a packet socket into fanout `group` (16 bits), whose `program` returns the index of the socket a packet goes to."""
    kind = PACKET_FANOUT_CBPF if isinstance(program, Sequence) else PACKET_FANOUT_EBPF
    _setsockopt(sock, SOL_PACKET, PACKET_FANOUT, group & 0xFFFF | kind << 16, "join a fanout group")
    _set(sock, SOL_PACKET, PACKET_FANOUT_DATA, PACKET_FANOUT_DATA, program, "set the fanout program")


def _set(sock: socket.socket, level: int, classic: int, extended: int, program: Attachable, asked: str) -> None:
    """Set the socket option for a classic or an extended `program`."""
    if not isinstance(program, Sequence):
        _setsockopt(sock, level, extended, program if isinstance(program, int) else program.fileno(), asked)
        return
    check(program)
    raw = to_bytes(program)
    array = ctypes.create_string_buffer(raw, len(raw))  # alive until the kernel has copied it
    _setsockopt(sock, level, classic, bytes(_Fprog(len(program), ctypes.addressof(array))), asked)


def _setsockopt(sock: socket.socket, level: int, option: int, value: int | bytes, asked: str) -> None:
    try:
        sock.setsockopt(level, option, value)
    except OSError as error:
        raise SysError(error.errno or 0, asked) from None

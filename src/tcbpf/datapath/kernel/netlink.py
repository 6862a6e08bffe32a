"""rtnetlink's wire: messages, a socket in a network namespace, and the kernel's extended acknowledgement.

Source:  include/uapi/linux/netlink.h; rtnetlink(7).
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import threading
from collections.abc import Iterator

from tcbpf.control.attributes import attrs, string
from tcbpf.control.request import Op
from tcbpf.errors import SysError, TcError
from tcbpf.uapi import netlink as uapi

SOL_NETLINK, NETLINK_CAP_ACK, NETLINK_EXT_ACK = 270, 10, 11
CLONE_NEWNET = 0x40000000

FLAGS = {
    Op.ADD: uapi.NLM_F_CREATE | uapi.NLM_F_EXCL,
    Op.REPLACE: uapi.NLM_F_CREATE | uapi.NLM_F_REPLACE,
    Op.CHANGE: 0,
    Op.LINK: uapi.NLM_F_REPLACE,
    Op.DELETE: 0,
    Op.GET: 0,
    Op.SHOW: uapi.NLM_F_DUMP,
}
"""The message flags of each verb."""

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port


class Rtnetlink:
    """A NETLINK_ROUTE socket, made in the network namespace `netns` (a name in /var/run/netns, "" for this one).

    What the kernel remarks beside a success goes to `warnings`.

    Raises:  SysError when the namespace cannot be entered.
    """

    def __init__(self, netns: str, warnings: list[str]) -> None:
        self.socket = _open_in(netns) if netns else _open()
        self.warnings = warnings
        self._sequence = 0

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()

    def ask(self, kind: int, flags: int, body: bytes, *, asked: str) -> list[tuple[int, bytes]]:
        """Send one request and return the (type, body) of each answer.

        Raises:  TcError with the kernel's errno and its extended acknowledgement.
        """
        self._sequence += 1
        flags |= uapi.NLM_F_REQUEST | (0 if flags & uapi.NLM_F_DUMP == uapi.NLM_F_DUMP else uapi.NLM_F_ACK)
        header = _HEADER.pack(_HEADER.size + len(body), kind, flags, self._sequence, 0)
        try:
            self.socket.send(header + body)
        except OSError as error:
            raise TcError(error.errno or 0, asked, "") from None
        answers: list[tuple[int, bytes]] = []
        while True:
            for answer, bits, payload in self._receive():
                if answer == uapi.NLMSG_ERROR:
                    code, words = _acknowledgement(bits, payload)
                    if code:
                        raise TcError(code, asked, words)
                    if words:
                        self.warnings.append(words)
                    return answers
                if answer == uapi.NLMSG_DONE:
                    code = struct.unpack_from("=i", payload)[0] if len(payload) >= 4 else 0
                    if code < 0:  # a dump that ended badly
                        raise TcError(-code, asked)
                    return answers
                if answer == uapi.NLMSG_OVERRUN:
                    raise TcError(errno.ENOBUFS, asked)
                answers.append((answer, payload))

    def _receive(self) -> Iterator[tuple[int, int, bytes]]:
        """Yield (type, flags, body) of the messages of one datagram that answer the present request."""
        try:
            raw = self.socket.recv(1 << 20)
        except OSError as error:
            raise TcError(error.errno or 0, "receive from rtnetlink") from None
        at = 0
        while at + _HEADER.size <= len(raw):
            size, kind, flags, sequence, _ = _HEADER.unpack_from(raw, at)
            if size < _HEADER.size or at + size > len(raw):
                return
            if sequence == self._sequence:
                yield kind, flags, raw[at + _HEADER.size : at + size]
            at += (size + 3) & ~3


def _acknowledgement(flags: int, payload: bytes) -> tuple[int, str]:
    """Return (errno or 0, the kernel's sentence) of an uapi.NLMSG_ERROR."""
    code = -struct.unpack_from("=i", payload)[0]
    if not flags & uapi.NLM_F_ACK_TLVS:
        return code, ""
    echoed = struct.unpack_from("=I", payload, 4)[0] if not flags & uapi.NLM_F_CAPPED else _HEADER.size
    return code, string(attrs(payload[4 + ((echoed + 3) & ~3) :]).get(uapi.NLMSGERR_ATTR_MSG))


def _open() -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    made.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
    made.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    made.bind((0, 0))
    return made


def _open_in(name: str) -> socket.socket:
    """Return a socket of another namespace, made by a thread that enters it.

    A thread's namespace is its own, and a socket keeps the one it was made in.
    """
    path = name if "/" in name else f"/var/run/netns/{name}"
    made: list[socket.socket] = []
    failed: list[SysError] = []

    def enter() -> None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            failed.append(SysError(error.errno or 0, f"open network namespace {name!r}", "ip netns list names them"))
            return
        try:
            if ctypes.CDLL(None, use_errno=True).setns(fd, CLONE_NEWNET) != 0:
                code = ctypes.get_errno()
                failed.append(
                    SysError(
                        code,
                        f"enter network namespace {name!r}",
                        "run as root or with CAP_SYS_ADMIN" if code == errno.EPERM else "",
                    )
                )
                return
            made.append(_open())
        finally:
            os.close(fd)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]

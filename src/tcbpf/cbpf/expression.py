"""pcap-filter expressions to classic BPF, by libpcap itself, loaded when it is there.

Source:  pcap_compile(3PCAP). Paper, "LLVM" (libpcap's compiler as a source of classic programs).
"""

from __future__ import annotations

import ctypes
from functools import cache

from tcbpf.errors import InputError, NotSupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tcbpf.cbpf.insn import Filter

SIZE = 8  # sizeof(struct sock_filter)
SNAPLEN = 262144
"""tcpdump's default, which an unoptimised `ret` of a match holds."""

_ALIASES = {"ETHERNET": "EN10MB"}
_LINK_TO_DLT = {100: 11, 101: 12, 106: 19}
"""Link types of captures whose DLT is another number here. Source: pcap-common.c, libpcap 1.10."""


class _Program(ctypes.Structure):
    """struct bpf_program."""

    _fields_ = (("len", ctypes.c_uint), ("insns", ctypes.c_void_p))


@cache
def _library() -> Any:
    """Return libpcap.

    Raises:  NotSupported naming the package when there is none.
    """
    pcap = _open("libpcap.so.0.8") or _open("libpcap.so.1") or _found()
    if pcap is None:
        raise NotSupported("pcap-filter expressions need libpcap: install the package libpcap0.8 (Debian) or libpcap")
    pcap.pcap_open_dead.restype = ctypes.c_void_p
    pcap.pcap_geterr.argtypes, pcap.pcap_geterr.restype = [ctypes.c_void_p], ctypes.c_char_p
    pcap.pcap_compile.argtypes = [ctypes.c_void_p, ctypes.POINTER(_Program), ctypes.c_char_p, ctypes.c_int, ctypes.c_uint32]
    pcap.pcap_datalink_val_to_name.restype = ctypes.c_char_p
    pcap.pcap_freecode.argtypes = [ctypes.POINTER(_Program)]
    pcap.pcap_close.argtypes = [ctypes.c_void_p]
    return pcap


def _open(name: str) -> Any:
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None


def _found() -> Any:
    """Return libpcap under another name; finding it may start a process or two."""
    from ctypes.util import find_library

    name = find_library("pcap")
    return _open(name) if name else None


def link_type_name(number: int) -> str:
    """Return the DLT name of a capture's link type, as compile_expression() takes it.

    Raises:  InputError when libpcap knows none; NotSupported without libpcap.
    """
    name = _library().pcap_datalink_val_to_name(_LINK_TO_DLT.get(number, number))
    if name is None:
        raise InputError(f"libpcap has no name for link type {number}")
    return str(name.decode())


def compile_expression(expression: str, *, link_type: str = "EN10MB", optimize: bool = True, snaplen: int = SNAPLEN) -> Filter:
    """Return the program that `tcpdump -ddd EXPRESSION` prints.

    link_type is a DLT name without DLT_: EN10MB (or ETHERNET), RAW, LINUX_SLL, ...
    Raises:  InputError in libpcap's words; NotSupported without libpcap.
    """
    from tcbpf.cbpf.insn import from_bytes

    return from_bytes(bytecode(expression, link_type=link_type, optimize=optimize, snaplen=snaplen))


def bytecode(expression: str, *, link_type: str = "EN10MB", optimize: bool = True, snaplen: int = SNAPLEN) -> bytes:
    """Return the program of compile_expression() as an array of struct sock_filter."""
    pcap = _library()
    number = pcap.pcap_datalink_name_to_val(_ALIASES.get(link_type.upper(), link_type).encode())
    if number < 0:
        raise InputError(f"no link type {link_type!r}", where="--link-type", hint="EN10MB, RAW, LINUX_SLL, ...")
    handle = pcap.pcap_open_dead(number, snaplen)
    program = _Program()
    try:
        if pcap.pcap_compile(handle, ctypes.byref(program), expression.encode(), int(optimize), 0) != 0:
            raise InputError(pcap.pcap_geterr(handle).decode(), where=repr(expression), hint="see pcap-filter(7)")
        raw = ctypes.string_at(program.insns, program.len * SIZE)
        pcap.pcap_freecode(ctypes.byref(program))
    finally:
        pcap.pcap_close(handle)
    return raw

"""pcap-filter expressions to classic BPF, by libpcap itself, loaded when it is there.

Source:  pcap_compile(3PCAP). Paper, "LLVM" (libpcap's compiler as a source of classic programs).
"""

from __future__ import annotations

import ctypes
import struct
import sys
from functools import cache

from tcbpf.errors import InputError, NotSupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tcbpf.cbpf.insn import Filter

SIZE = 8  # sizeof(struct sock_filter)
SNAPLEN = 262144
"""tcpdump's default, which an unoptimised `ret` of a match holds."""

SWAPPED = 0x10000
"""Added to a link type: its packets begin with a number in the other byte order (TCBPF_LINK_SWAPPED)."""

REJECTS_ALL = "expression rejects all packets"
_ALIASES = {"ETHERNET": "EN10MB"}
_HEADER = struct.Struct("IHHiIII")


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
    pcap.pcap_open_dead.restype = pcap.pcap_fopen_offline.restype = ctypes.c_void_p
    pcap.pcap_fopen_offline.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    pcap.pcap_geterr.argtypes, pcap.pcap_geterr.restype = [ctypes.c_void_p], ctypes.c_char_p
    pcap.pcap_compile.argtypes = [ctypes.c_void_p, ctypes.POINTER(_Program), ctypes.c_char_p, ctypes.c_int, ctypes.c_uint32]
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


def compile_expression(
    expression: str, *, link_type: str | int = "EN10MB", optimize: bool = True, snaplen: int = SNAPLEN
) -> Filter:
    """Return the program that `tcpdump -ddd EXPRESSION` prints.

    link_type is a DLT name without DLT_, EN10MB (or ETHERNET), RAW, LINUX_SLL, ..., or a capture's number: then it is what
    `tcpdump -r` runs on its packets.

    Raises:  InputError in libpcap's words; NotSupported without libpcap.
    """
    from tcbpf.cbpf.insn import from_bytes

    return from_bytes(bytecode(expression, link_type=link_type, optimize=optimize, snaplen=snaplen))


def bytecode(expression: str, *, link_type: str | int = "EN10MB", optimize: bool = True, snaplen: int = SNAPLEN) -> bytes:
    """Return the program of compile_expression() as an array of struct sock_filter."""
    pcap = _library()
    if isinstance(link_type, int):
        header = ctypes.create_string_buffer(_header(link_type, snaplen), _HEADER.size)
        handle = _open_capture(header)
    else:
        handle = pcap.pcap_open_dead(dlt(link_type), snaplen)
    program = _Program()
    try:
        if pcap.pcap_compile(handle, ctypes.byref(program), expression.encode(), int(optimize), 0) != 0:
            raise InputError(pcap.pcap_geterr(handle).decode(), where=repr(expression), hint="see pcap-filter(7)")
        raw = ctypes.string_at(program.insns, program.len * SIZE)
        pcap.pcap_freecode(ctypes.byref(program))
    finally:
        pcap.pcap_close(handle)
    return raw


def dlt(name: str) -> int:
    """Return the number of a DLT name.

    Raises:  InputError.
    """
    number = int(_library().pcap_datalink_name_to_val(_ALIASES.get(name.upper(), name).encode()))
    if number < 0:
        raise InputError(f"no link type {name!r}", where="--link-type", hint="EN10MB, RAW, LINUX_SLL, ...")
    return number


def _header(link: int, snaplen: int) -> bytes:
    """Return the file header of a pcap; a swapped link type's is of the other byte order."""
    order = "<" if (sys.byteorder == "little") != bool(link & SWAPPED) else ">"
    return struct.pack(order + _HEADER.format, 0xA1B2C3D4, 2, 4, 0, 0, snaplen, link % SWAPPED)


def _open_capture(header: Any) -> Any:
    """Return a handle on a capture without packets: libpcap compiles other programs for what was recorded than for a device.

    Raises:  InputError in libpcap's words.
    """
    libc, error = ctypes.CDLL(None), ctypes.create_string_buffer(256)
    libc.fmemopen.restype, libc.fmemopen.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
    handle = _library().pcap_fopen_offline(libc.fmemopen(header, len(header), b"r"), error)
    if not handle:
        raise InputError(error.value.decode(), where="libpcap")
    return handle

"""A classic instruction, a program of them, and their binary forms."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from tcbpf.errors import InputError
from tcbpf.tables.cbpf import CLASSIC, U32, Mode

_FILTER = struct.Struct("=HBBI")
SIZE = 8


class Classic(NamedTuple):
    """struct sock_filter.

    Units:   jt and jf count instructions to skip; k is unsigned.
    Source:  include/uapi/linux/filter.h.
    """

    code: int
    jt: int = 0
    jf: int = 0
    k: int = 0


Filter = tuple[Classic, ...]


def to_bytes(program: Iterable[Classic]) -> bytes:
    """Return the array of struct sock_filter, in host order."""
    return b"".join(_FILTER.pack(*insn) for insn in program)


def from_bytes(raw: bytes) -> Filter:
    """Return the program of an array of struct sock_filter.

    Raises:  InputError when the length is not a multiple of eight.
    """
    if len(raw) % SIZE:
        raise InputError(f"{len(raw)} bytes are not whole instructions", hint="struct sock_filter has 8 bytes")
    return tuple(Classic(*fields) for fields in _FILTER.iter_unpack(raw))


def targets(pc: int, insn: Classic) -> tuple[int, ...]:
    """Return where the jump at `pc` goes, taken first; () for other instructions."""
    row = CLASSIC.at(insn.code)
    if row is None:
        return ()
    if row.mode is Mode.LABEL:
        return ((pc + 1 + insn.k) & U32,)
    return (pc + 1 + insn.jt, pc + 1 + insn.jf) if row.branch else ()

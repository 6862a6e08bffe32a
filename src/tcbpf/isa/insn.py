"""One eBPF instruction slot: eight bytes, as RFC 9669 lays them out."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from tcbpf.errors import InputError

_SLOT = struct.Struct("<BBhi")
SLOT_SIZE = 8


class Insn(NamedTuple):
    """One 8-byte slot. A 16-byte instruction (LD_IMM64) is two of them, the second with code 0 and the upper word in imm.

    Units:   off and imm are signed; off counts slots for jumps and bytes for loads and stores.
    Source:  RFC 9669, section 3.1. Paper, "eBPF Architecture" (dst and src are 4 bits each, not 8).
    """

    code: int
    dst: int = 0
    src: int = 0
    off: int = 0
    imm: int = 0


def encode(insns: Iterable[Insn]) -> bytes:
    """Return the little-endian bytes of a program."""
    return b"".join(_SLOT.pack(i.code, i.dst | i.src << 4, i.off, i.imm) for i in insns)


def decode(raw: bytes) -> tuple[Insn, ...]:
    """Return the slots of a little-endian program.

    Raises:  InputError when the length is not a multiple of eight.
    """
    if len(raw) % SLOT_SIZE:
        raise InputError(f"{len(raw)} bytes are not whole instructions", hint="a program is a multiple of 8 bytes")
    return tuple(Insn(code, regs & 15, regs >> 4, off, imm) for code, regs, off, imm in _SLOT.iter_unpack(raw))

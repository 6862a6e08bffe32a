"""The running kernel's read-only data, read through bpf_probe_read_kernel: where the truth about its tables lies."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from functools import lru_cache

from kernel_oracle import bpf, load, map_create
from tcbpf.isa.insn import Insn

CHUNK = 1 << 20
PROTO = struct.Struct("<Q4?6I4x5QQQ")  # struct bpf_func_proto, 96 bytes with `allowed`
_ARRAY, _LOOKUP, _TEST_RUN = 2, 1, 10


@lru_cache(maxsize=1)
def symbols() -> dict[int, str]:
    """Return the names of the kernel's functions by address; empty when the kernel hides them."""
    names: dict[int, str] = {}
    with open("/proc/kallsyms") as file:
        for line in file:
            address, kind, name = line.split()[:3]
            if kind in "tTwW" and not name.startswith("__pfx_"):
                names.setdefault(int(address, 16), name)
    return {} if 0 in names else names


@lru_cache(maxsize=1)
def _window() -> int:
    """Return the fd of the map that reads land in."""
    fd, error = map_create(_ARRAY, 4, CHUNK, 1)
    if fd < 0:
        raise OSError(error, "map")
    return fd


def _signed(word: int) -> int:
    return word - (1 << 32) if word & 0x80000000 else word


def read(address: int, size: int = CHUNK) -> bytes | None:
    """Return `size` bytes of kernel memory, or None where there is none."""
    insns = [
        Insn(0x7A, 10, 0, -8, 0),
        Insn(0xBF, 2, 10),
        Insn(0x07, 2, 0, 0, -8),
        Insn(0x18, 1, 1, 0, _window()),
        Insn(0),
        Insn(0x85, 0, 0, 0, 1),
        Insn(0x55, 0, 0, 1, 0),
        Insn(0x95),
        Insn(0xBF, 1, 0),
        Insn(0xB7, 2, 0, 0, size),
        Insn(0x18, 3, 0, 0, _signed(address & 0xFFFFFFFF)),
        Insn(0, 0, 0, 0, _signed(address >> 32)),
        Insn(0x85, 0, 0, 0, 113),
        Insn(0x95),
    ]
    fd, error, log = load(insns)
    if fd < 0:
        raise OSError(error, log)
    packet, attr = ctypes.create_string_buffer(64), ctypes.create_string_buffer(144)
    struct.pack_into("<IIIIQQII", attr, 0, fd, 0, 64, 0, ctypes.addressof(packet), 0, 1, 0)
    _, error = bpf(_TEST_RUN, attr)
    os.close(fd)
    if error or struct.unpack_from("<I", attr, 4)[0]:
        return None
    key, value, attr = (ctypes.create_string_buffer(n) for n in (4, CHUNK, 144))
    struct.pack_into("<IIQQQ", attr, 0, _window(), 0, ctypes.addressof(key), ctypes.addressof(value), 0)
    _, error = bpf(_LOOKUP, attr)
    if error:
        raise OSError(error, "map look-up")
    return value.raw[:size]


def protos() -> Iterator[tuple[str, tuple[bool, ...], int, tuple[int, ...], tuple[int, ...]]]:
    """Yield every struct bpf_func_proto: function, (gpl, pkt, sleep, fastcall), ret, args, sizes or BTF pointers.

    Found by shape: eight aligned bytes that are the address of a bpf_ function, then four booleans, then types in range.
    """
    names = symbols()
    address = next(a for a, name in data_symbols() if name == "__start_rodata")
    while (chunk := read(address)) is not None:
        for index, (word,) in enumerate(struct.iter_unpack("<Q", chunk)):
            name = names.get(word, "")
            if not name.startswith("bpf_"):
                continue
            raw = chunk[index * 8 : index * 8 + PROTO.size]
            if len(raw) < PROTO.size:
                raw = read(address + index * 8, PROTO.size) or bytes(PROTO.size)
            if any(byte > 1 for byte in raw[8:12]):
                continue
            _, gpl, pkt, sleep, fast, ret, *rest = PROTO.unpack(raw)
            args, extra = tuple(rest[:5]), tuple(rest[5:10])
            if ret & 0xFF < 9 and ret >> 28 == 0 and all(arg & 0xFF < 24 and arg >> 28 == 0 for arg in args):
                yield name, (gpl, pkt, sleep, fast), ret, args, extra
        address += CHUNK


def data_symbols() -> Iterator[tuple[int, str]]:
    """Yield address and name of every symbol."""
    with open("/proc/kallsyms") as file:
        for line in file:
            address, _, name = line.split()[:3]
            yield int(address, 16), name

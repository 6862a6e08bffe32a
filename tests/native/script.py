"""Helper calls as data, run by the live kernel (as one program, through BPF_PROG_TEST_RUN) and by the runtime (directly)."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import kernel_oracle
from tcbpf.isa.insn import Insn
from tcbpf.native.library import helper
from tcbpf.native.runtime import Env, Skb
from tcbpf.tables.helpers import HELPERS
from tcbpf.tables.skb import SKB

FIELDS = (
    "len",
    "pkt_type",
    "protocol",
    "vlan_present",
    "vlan_tci",
    "vlan_proto",
    "hash",
    "mark",
    "gso_size",
    "gso_segs",
    "queue_mapping",
    "tc_index",
    "wire_len",
)
RECORD = 4096
_HELPER = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, *[ctypes.c_uint64] * 5)
_TEST_RUN, _LOOKUP = 10, 1


@dataclass(frozen=True)
class Out:
    """Memory that a helper fills."""

    size: int


@dataclass(frozen=True)
class Call:
    """One call; the packet is the first argument unless `bare`. Bytes and Out are passed as addresses of memory."""

    name: str
    args: tuple[int | bytes | Out, ...] = ()
    bare: bool = False


def call(name: str, *args: int | bytes | Out, bare: bool = False) -> Call:
    """Return a call."""
    return Call(name, args, bare)


@dataclass(frozen=True)
class Outcome:
    """What was seen: for every call r0 and the memory that it filled, then the fields; at the end the packet."""

    calls: tuple[tuple[int, tuple[bytes, ...], tuple[int, ...]], ...]
    packet: bytes


def ours(script: Sequence[Call], packet: bytes, ctx: Mapping[str, int] | None = None) -> Outcome:
    """Run by the runtime."""
    skb, env = Skb().load(packet, ctx), Env(seed=1)
    if ctx is None:
        skb.set("wire_len", 0)
    seen = []
    for one in script:
        memory: list[tuple[Out | bytes, ctypes.Array[ctypes.c_char]]] = []
        args = [] if one.bare else [skb.address]
        for arg in one.args:
            if isinstance(arg, int):
                args.append(arg & 0xFFFFFFFFFFFFFFFF)
                continue
            size = arg.size if isinstance(arg, Out) else len(arg)
            memory.append((arg, ctypes.create_string_buffer(b"\xaa" * size if isinstance(arg, Out) else arg, size)))
            args.append(ctypes.addressof(memory[-1][1]))
        r0 = _HELPER(helper(one.name))(env.address, *args, *[0] * (5 - len(args)))
        filled = tuple(buffer.raw for arg, buffer in memory if isinstance(arg, Out))
        seen.append((r0, filled, tuple(skb.get(name) for name in FIELDS)))
    return Outcome(tuple(seen), skb.packet())


def kernel(script: Sequence[Call], packet: bytes, ctx: Mapping[str, int] | None = None) -> Outcome:
    """Run by the live kernel."""
    map_fd, error = kernel_oracle.map_create(2, 4, RECORD, 1)
    assert not error, os.strerror(error)
    fd = -1
    try:
        insns, shape = _program(script, map_fd)
        fd, error, log = kernel_oracle.load(insns)
        assert fd >= 0, log[-2000:]
        after = _test_run(fd, packet, ctx)
        return Outcome(_read(_lookup(map_fd), shape), after)
    finally:
        os.close(map_fd)
        if fd >= 0:
            os.close(fd)


def _program(script: Sequence[Call], map_fd: int) -> tuple[list[Insn], list[list[int]]]:
    """Return the program, and for each call the sizes of what it fills."""
    code = [
        Insn(0xBF, 6, 1),
        Insn(0x62, 10, 0, -4, 0),
        Insn(0xBF, 2, 10),
        Insn(0x07, 2, 0, 0, -4),
        Insn(0x18, 1, 1, 0, map_fd),
        Insn(0),
        Insn(0x85, imm=1),
        Insn(0x55, 0, 0, 2, 0),
        Insn(0xB7),
        Insn(0x95),
        Insn(0xBF, 7, 0),
    ]
    at, shape = 0, []
    for one in script:
        stack, outs, loads = 0, [], [] if one.bare else [Insn(0xBF, 1, 6)]
        for reg, arg in enumerate(one.args, 1 if one.bare else 2):
            if isinstance(arg, int):
                loads += [Insn(0x18, reg, 0, 0, _signed(arg)), Insn(0, imm=_signed(arg >> 32))]
                continue
            raw = b"\xaa" * arg.size if isinstance(arg, Out) else arg
            stack -= (len(raw) + 7) // 8 * 8
            code += [Insn(0x72, 10, 0, stack + i, byte - 256 if byte > 127 else byte) for i, byte in enumerate(raw)]
            loads += [Insn(0xBF, reg, 10), Insn(0x07, reg, 0, 0, stack)]
            if isinstance(arg, Out):
                outs.append((stack, arg.size))
        code += [*loads, Insn(0x85, imm=HELPERS[one.name].id), Insn(0x7B, 7, 0, at)]
        at += 8
        for place, size in outs:
            for i in range(size):
                code += [Insn(0x71, 1, 10, place + i), Insn(0x73, 7, 1, at + i)]
            at += size
        at = (at + 3) // 4 * 4
        for name in FIELDS:
            code += [Insn(0x61, 1, 6, SKB[name].off), Insn(0x63, 7, 1, at)]
            at += 4
        at = (at + 7) // 8 * 8
        shape.append([size for _, size in outs])
    assert at <= RECORD
    return [*code, Insn(0xB7), Insn(0x95)], shape


def _signed(number: int) -> int:
    return (number & 0xFFFFFFFF ^ 0x80000000) - 0x80000000


def _read(record: bytes, shape: list[list[int]]) -> tuple[tuple[int, tuple[bytes, ...], tuple[int, ...]], ...]:
    at, seen = 0, []
    for sizes in shape:
        r0 = int.from_bytes(record[at : at + 8], "little")
        at += 8
        filled = []
        for size in sizes:
            filled.append(record[at : at + size])
            at += size
        at = (at + 3) // 4 * 4
        seen.append((r0, tuple(filled), struct.unpack_from(f"<{len(FIELDS)}I", record, at)))
        at = (at + 4 * len(FIELDS) + 7) // 8 * 8
    return tuple(seen)


def _test_run(fd: int, packet: bytes, ctx: Mapping[str, int] | None) -> bytes:
    attr = ctypes.create_string_buffer(144)
    given, after = ctypes.create_string_buffer(packet, len(packet)), ctypes.create_string_buffer(1 << 16)
    context = ctypes.create_string_buffer(192)
    for name, number in (ctx or {}).items():
        context[SKB[name].off : SKB[name].off + SKB[name].size] = number.to_bytes(SKB[name].size, "little")
    struct.pack_into(
        "<IIIIQQIIIIQQ",
        attr,
        0,
        fd,
        0,
        len(packet),
        len(after),
        ctypes.addressof(given),
        ctypes.addressof(after),
        1,
        0,
        192 if ctx else 0,
        0,
        ctypes.addressof(context) if ctx else 0,
        0,
    )
    _, error = kernel_oracle.bpf(_TEST_RUN, attr)
    assert not error, os.strerror(error)
    return after.raw[: struct.unpack_from("<I", attr, 12)[0]]


def _lookup(map_fd: int) -> bytes:
    attr, key = ctypes.create_string_buffer(144), ctypes.create_string_buffer(4)
    value = ctypes.create_string_buffer(RECORD)
    struct.pack_into("<IIQQQ", attr, 0, map_fd, 0, ctypes.addressof(key), ctypes.addressof(value), 0)
    _, error = kernel_oracle.bpf(_LOOKUP, attr)
    assert not error, os.strerror(error)
    return value.raw


def differences(script: Sequence[Call], packet: bytes, ctx: Mapping[str, int] | None = None) -> list[str]:
    """Return one line for everything that the kernel and the runtime see differently."""
    mine, theirs = ours(script, packet, ctx), kernel(script, packet, ctx)
    found = []
    for i, (one, a, b) in enumerate(zip(script, mine.calls, theirs.calls, strict=True)):
        place = f"{i} {one.name}{one.args}"
        if a[0] != b[0]:
            found.append(f"{place}: r0 {_signed(a[0])}, the kernel's {_signed(b[0])}")
        if a[1] != b[1]:
            found.append(f"{place}: memory {[x.hex() for x in a[1]]}, the kernel's {[x.hex() for x in b[1]]}")
        found += [
            f"{place}: {name} {x:#x}, the kernel's {y:#x}" for name, x, y in zip(FIELDS, a[2], b[2], strict=True) if x != y
        ]
    if mine.packet != theirs.packet:
        found.append(f"packet {mine.packet.hex()}, the kernel's {theirs.packet.hex()}")
    return found

"""Each helper called as its row says: the kernel accepts it, and forgets packet pointers exactly where the row says."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from kernel_oracle import map_create, verdict
from tcbpf.isa.insn import Insn
from tcbpf.tables.helpers import HELPERS, Arg, ArgType, Helper, RetType
from tcbpf.tables.maps import MAP_TYPES
from tcbpf.tables.progs import PROG_TYPES

pytestmark = pytest.mark.kernel(since=(6, 18))

HARD = {  # what only a subprogram, BTF or an object of its own can give
    ArgType.FUNC,
    ArgType.TIMER,
    ArgType.SPIN_LOCK,
    ArgType.KPTR,
    ArgType.DYNPTR,
    ArgType.PERCPU_BTF_ID,
    ArgType.CONST_STR,
    ArgType.RINGBUF_MEM,
    ArgType.BTF_ID,
}
SIZES = {"ringbuf": (0, 0, 4096, 0), "lpm_trie": (8, 8, 1, 1)}
ELSEWHERE = {  # what these five types may call, but the arguments do not tell
    "sk_release": "takes a reference that a look-up gave",
    "sk_assign": "takes a socket of a look-up, not of the context",
    "sk_storage_get": "its map needs BTF",
    "sk_storage_delete": "its map needs BTF",
    "copy_from_user": "sleepable programs only",
    "copy_from_user_task": "sleepable programs only",
}


def value(arg: Arg, reg: int, fd: int) -> list[Insn]:
    """Return what puts an argument of this type into `reg`; r6 is the context, r8 its socket, the stack is all zero."""
    match arg.type:
        case ArgType.CTX:
            return [Insn(0xBF, reg, 6)]
        case ArgType.CONST_MAP_PTR:
            return [Insn(0x18, reg, 1, 0, fd), Insn(0)]
        case ArgType.MAP_KEY | ArgType.MAP_VALUE | ArgType.MEM | ArgType.STACK:
            return [Insn(0xBF, reg, 10), Insn(0x07, reg, 0, 0, -256)]
        case ArgType.CONST_SIZE | ArgType.CONST_SIZE_OR_ZERO | ArgType.CONST_ALLOC_SIZE_OR_ZERO:
            return [Insn(0xB7, reg, 0, 0, 16)]
        case ArgType.SOCK_COMMON | ArgType.BTF_ID_SOCK_COMMON | ArgType.SOCKET:
            return [Insn(0xBF, reg, 8)]
    return [Insn(0xB7, reg)]


def program(row: Helper, prog: str, fd: int, after: list[Insn]) -> list[Insn]:
    """Return a program that calls a helper with valid arguments, then does `after`; r7 points at a packet byte."""
    context = PROG_TYPES[prog].context
    data, end, sock = (76, 80, 168) if context == "skb" else (0, 4, 0)
    insns = [Insn(0xBF, 6, 1), *(Insn(0x7A, 10, 0, -off) for off in range(8, 257, 8))]
    jumps = []
    if any(arg.type in (ArgType.SOCK_COMMON, ArgType.BTF_ID_SOCK_COMMON) for arg in row.args):
        insns.append(Insn(0x79, 8, 6, sock))
        jumps.append(len(insns))
        insns.append(Insn(0x15, 8))
    if PROG_TYPES[prog].direct_read:
        insns += [Insn(0x61, 7, 6, data), Insn(0x61, 9, 6, end), Insn(0xBF, 0, 7), Insn(0x07, 0, imm=1)]
        jumps.append(len(insns))
        insns.append(Insn(0x2D, 0, 9))
    for reg, arg in enumerate(row.args, 1):
        insns += value(arg, reg, fd)
    insns.append(Insn(0x85, imm=row.id))
    if row.ret.type in (RetType.SOCKET, RetType.SOCK_COMMON) and "lookup" in row.name:
        insns += [Insn(0x15, 0, 0, 2), Insn(0xBF, 1, 0), Insn(0x85, imm=HELPERS["sk_release"].id)]
    if row.name == "ringbuf_reserve":
        insns += [Insn(0x15, 0, 0, 3), Insn(0xBF, 1, 0), Insn(0xB7, 2), Insn(0x85, imm=HELPERS["ringbuf_discard"].id)]
    insns += after
    for at in jumps:
        insns[at] = insns[at]._replace(off=len(insns) - at - 1)
    return [*insns, Insn(0xB7), Insn(0x95)]


def callable_rows() -> Iterator[tuple[Helper, str]]:
    for row in HELPERS:
        if row.name not in ELSEWHERE and not any(arg.type in HARD for arg in row.args):
            yield row, next(p for p in ("sched_cls", "xdp", "cgroup_skb", "socket_filter") if p in row.progs)


def open_map(row: Helper) -> int:
    """Return a map that the helper takes, or -1 when it takes none."""
    if not any(arg.type is ArgType.CONST_MAP_PTR for arg in row.args):
        return -1
    kind = next(m for m in MAP_TYPES if row.name in m.helpers)
    if kind.name in SIZES:
        key, size, count, flags = SIZES[kind.name]
    else:
        key = kind.key_size if isinstance(kind.key_size, int) else 16 if kind.entries == "zero" else 4
        size = kind.value_size if isinstance(kind.value_size, int) else 8
        count, flags = 0 if kind.entries == "zero" else 1, 0
    fd, error = map_create(kind.number, key, size, count, flags)
    assert fd >= 0, (kind.name, error)
    return fd


def test_a_call_with_valid_arguments_is_accepted() -> None:
    differ = []
    for row, prog in callable_rows():
        fd = open_map(row)
        error, log = verdict(program(row, prog, fd, []), prog)
        if fd >= 0:
            os.close(fd)
        if error:
            differ.append((row.name, log.splitlines()[-2:]))
    assert not differ, differ


def test_packet_pointers_die_where_the_rows_say() -> None:
    differ, asked = [], 0
    for row, prog in callable_rows():
        if not PROG_TYPES[prog].direct_read or not row.args or row.args[0].type is not ArgType.CTX:
            continue
        fd = open_map(row)
        error, log = verdict(program(row, prog, fd, [Insn(0x71, 0, 7)]), prog)
        if fd >= 0:
            os.close(fd)
        asked += 1
        if bool(error) != row.changes_data or (error and "R7 invalid mem access 'scalar'" not in log):
            differ.append((row.name, log.splitlines()[-2:]))
    assert not differ, differ
    assert asked > 40


def test_a_call_with_its_last_argument_left_out_is_refused() -> None:
    """The kernel reads as many arguments as the row has: a register that nobody set is not readable."""
    for row, prog in callable_rows():
        if len(row.args) > 1:
            fd = open_map(row)
            insns = program(row, prog, fd, [])
            at = next(i for i, insn in enumerate(insns) if insn.code == 0x85)
            last = len(value(row.args[-1], 1, 0))
            insns[at - last : at] = [Insn(0xBF, 9, 6)] * last
            error, log = verdict(insns, prog)
            if fd >= 0:
                os.close(fd)
            assert error and f"R{len(row.args)} !read_ok" in log, (row.name, log.splitlines()[-2:])

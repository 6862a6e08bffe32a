"""The helper rows, among themselves and against the live kernel: who may call, with what licence, and the prototypes."""

from __future__ import annotations

import ctypes
import os
import struct

import pytest

import kernel_memory
from kernel_oracle import unavailable, verdict
from tcbpf.isa.insn import Insn
from tcbpf.tables.helpers import ALL, HELPERS, TC, ArgType, Helper, Mod, Ret, RetType
from tcbpf.tables.progs import PROG_TYPES

EXIT = Insn(0x95)
LAST_ID = 211  # BPF_FUNC_cgrp_storage_delete
REFUSED = ("program of this type cannot use helper", "unknown func", "invalid func")

ARG_NUMBER = {
    ArgType.CONST_MAP_PTR: 1,
    ArgType.MAP_KEY: 2,
    ArgType.MAP_VALUE: 3,
    ArgType.MEM: 4,
    ArgType.CONST_SIZE: 6,
    ArgType.CONST_SIZE_OR_ZERO: 7,
    ArgType.CTX: 8,
    ArgType.ANYTHING: 9,
    ArgType.SPIN_LOCK: 10,
    ArgType.SOCK_COMMON: 11,
    ArgType.SOCKET: 12,
    ArgType.BTF_ID: 13,
    ArgType.RINGBUF_MEM: 14,
    ArgType.CONST_ALLOC_SIZE_OR_ZERO: 15,
    ArgType.BTF_ID_SOCK_COMMON: 16,
    ArgType.PERCPU_BTF_ID: 17,
    ArgType.FUNC: 18,
    ArgType.STACK: 19,
    ArgType.CONST_STR: 20,
    ArgType.TIMER: 21,
    ArgType.KPTR: 22,
    ArgType.DYNPTR: 23,
}
RET_NUMBER = {
    RetType.INTEGER: 0,
    RetType.VOID: 1,
    RetType.MAP_VALUE: 2,
    RetType.SOCKET: 3,
    RetType.TCP_SOCK: 4,
    RetType.SOCK_COMMON: 5,
    RetType.MEM: 6,
    RetType.DYNPTR_MEM: 6,
    RetType.MEM_OR_BTF_ID: 7,
    RetType.BTF_ID: 8,
}
MOD_BIT = {
    Mod.MAYBE_NULL: 8,
    Mod.RDONLY: 9,
    Mod.RINGBUF: 10,
    Mod.RELEASE: 13,
    Mod.UNINIT: 15,
    Mod.DYNPTR_LOCAL: 16,
    Mod.DYNPTR_RINGBUF: 17,
    Mod.FIXED_SIZE: 18,
    Mod.TRUSTED: 20,
    Mod.ALIGNED: 25,
    Mod.WRITE: 26,
}
FUNCTION = {  # where the kernel's function is not named after the helper
    "get_prandom_u32": "bpf_user_rnd_u32",
    "perf_event_output": "bpf_skb_event_output",
    "sk_lookup_tcp": "bpf_tc_sk_lookup_tcp",
    "sk_lookup_udp": "bpf_tc_sk_lookup_udp",
    "skc_lookup_tcp": "bpf_tc_skc_lookup_tcp",
    "fib_lookup": "bpf_skb_fib_lookup",
    "check_mtu": "bpf_skb_check_mtu",
    "redirect_map": "bpf_xdp_redirect_map",
}


def number(row: object) -> int:
    """Return the kernel's number of an Arg or a Ret: its type and the bits of what qualifies it."""
    kind = RET_NUMBER[row.type] if isinstance(row, Ret) else ARG_NUMBER[row.type]  # type: ignore[attr-defined]
    return kind | sum(1 << bit for mod, bit in MOD_BIT.items() if mod in row.mod)  # type: ignore[attr-defined]


def test_every_mod_and_type_has_its_kernel_number() -> None:
    assert set(MOD_BIT) == set(Mod) - {Mod.NONE}
    assert set(ARG_NUMBER) == set(ArgType) and set(RET_NUMBER) == set(RetType)


def test_rows_are_complete() -> None:
    for row in HELPERS:
        assert row.progs and row.progs <= ALL and row.proto and row.source and row.since < (7, 0), row.name
        assert row.privilege in ("none", "bpf", "perfmon") and len(row.args) <= 5
        assert all(arg.size for arg in row.args if Mod.FIXED_SIZE in arg.mod)
    assert [row.id for row in HELPERS] == sorted(row.id for row in HELPERS)


def test_prototypes_agree_with_the_c_declarations() -> None:
    """As many C parameters as arguments, pointers where the types are pointers; varargs stand for no argument."""
    scalars = {ArgType.ANYTHING, ArgType.CONST_SIZE, ArgType.CONST_SIZE_OR_ZERO, ArgType.CONST_ALLOC_SIZE_OR_ZERO}
    for row in HELPERS:
        params = [p.strip() for p in row.proto.partition("(")[2].rstrip(")").split(",")]
        params = [p for p in params if p not in ("void", "...", "")]
        assert len(params) >= len(row.args), row.name
        for param, arg in zip(params, row.args, strict=False):
            if arg.type not in scalars and arg.type is not ArgType.FUNC:
                assert "*" in param, (row.name, param, arg)
        if row.name != "task_pt_regs":  # declared to return long, though it is a pointer
            assert ("*" in row.proto.partition("(")[0]) == (row.ret.type not in (RetType.INTEGER, RetType.VOID)), row.name


def test_what_tc_reaches_of_6_12() -> None:
    """The count of the 6.12 source tree: 58 of tc's own, 8 socket casts, 59 of the base set; 6.16 opened the base set."""
    assert len([row for row in HELPERS if row.progs >= TC and max(row.since, row.net_since) <= (6, 12)]) == 124


def test_defaults_fail_closed() -> None:
    row = Helper("x", 999, Ret(RetType.INTEGER))
    assert not row.progs and not row.pkt_access and row.since > (9, 0)


@pytest.mark.kernel(since=(6, 18))
@pytest.mark.parametrize("prog", PROG_TYPES.names())
def test_who_may_call_as_the_kernel_says(prog: str) -> None:
    """For every id: refused by type exactly where no row allows it, and refused without the GPL exactly where gpl_only."""
    differ = []
    for id in range(LAST_ID + 2):
        row = HELPERS.at(id)
        _, log = verdict([Insn(0x85, 0, 0, 0, id), EXIT], prog)
        reachable = not any(words in log for words in REFUSED)
        if reachable != (row is not None and prog in row.progs):
            differ.append((id, row and row.name, log))
        elif reachable and row:
            _, log = verdict([Insn(0x85, 0, 0, 0, id), EXIT], prog, "Proprietary")
            if ("cannot call GPL-restricted function" in log) != row.gpl_only:
                differ.append((id, row.name, log))
    assert not differ, differ


@pytest.mark.kernel(since=(6, 18))
def test_perfmon_is_needed_where_the_rows_say() -> None:
    """A child that keeps CAP_BPF and CAP_NET_ADMIN only is refused exactly the helpers of privilege "perfmon"."""
    out, back = os.pipe()
    child = os.fork()
    if not child:
        kept = 1 << 12 | 1 << 39
        header = ctypes.create_string_buffer(struct.pack("<II", 0x20080522, 0))
        sets = ctypes.create_string_buffer(struct.pack("<6I", *(kept & 0xFFFFFFFF,) * 2, 0, *(kept >> 32,) * 2, 0))
        ctypes.CDLL(None).capset(header, sets)
        for row in HELPERS:
            _, log = verdict([Insn(0x85, 0, 0, 0, row.id), EXIT], next(p for p in PROG_TYPES.names() if p in row.progs))
            if any(words in log for words in REFUSED):
                os.write(back, f"{row.name}\n".encode())
        os._exit(0)
    os.close(back)
    with os.fdopen(out) as lines:
        refused = set(lines.read().split())
    os.waitpid(child, 0)
    assert refused == {row.name for row in HELPERS if row.privilege == "perfmon"}


@pytest.mark.kernel(since=(6, 18))
def test_prototypes_are_those_in_the_running_kernel() -> None:
    """Each row's types, qualifiers, sizes and flags equal the bpf_func_proto found in the kernel's own read-only data."""
    if not kernel_memory.symbols():
        unavailable("/proc/kallsyms hides addresses")
    known: dict[str, list[tuple[tuple[bool, ...], int, tuple[int, ...], tuple[int, ...]]]] = {}
    for name, *proto in kernel_memory.protos():
        known.setdefault(name, []).append(tuple(proto))  # type: ignore[arg-type]
    differ, missing_protos = [], []
    for row in HELPERS:
        candidates = known.get(FUNCTION.get(row.name, f"bpf_{row.name}"), [])
        args = tuple(number(arg) for arg in row.args) + (0,) * (5 - len(row.args))
        flags = (row.gpl_only, row.pkt_access, row.might_sleep, row.fastcall)
        sizes = {i: arg.size for i, arg in enumerate(row.args) if arg.size}
        if not candidates:
            missing_protos.append(row.name)
        elif not any(
            (flags, number(row.ret), args) == (f, r, a) and all(extra[i] == size for i, size in sizes.items())
            for f, r, a, extra in candidates
        ):
            differ.append((row, candidates))
    assert not differ, differ
    assert missing_protos == ["tail_call"]  # has no function: the JIT writes it out

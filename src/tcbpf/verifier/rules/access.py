"""Loads, stores and atomics: which memory a pointer reaches, by its type.

Source:  check_mem_access(), check_load_mem(), check_store_reg(), check_atomic(), check_ptr_alignment(),
         kernel/bpf/verifier.c (v6.18).
"""

from __future__ import annotations

from typing import Final

from tcbpf.verifier.memory import graph, memory, stack
from tcbpf.verifier.memory.memory import UNKNOWN_OF
from tcbpf.verifier.memory.structs import read_kernel, write_kernel
from tcbpf.verifier.rules.alu import sign_extended
from tcbpf.verifier.state.env import Env
from tcbpf.verifier.state.insn_aux import Region
from tcbpf.verifier.state.insns import Ins
from tcbpf.verifier.state.state import REG_FP, UNKNOWN_REG, Reg
from tcbpf.verifier.values import tnum
from tcbpf.verifier.values.scalar import truncate
from tcbpf.verifier.values.tnum import MAX
from tcbpf.verifier.values.types import (
    BASE,
    BTF_ID,
    CTX,
    MAP_KEY,
    MAP_PTR,
    MAP_VALUE,
    MAYBE_NULL,
    MEM,
    NOT_INIT,
    PACKET,
    PACKET_META,
    RDONLY,
    SCALAR,
    SOCK_COMMON,
    SOCKET,
    STACK,
    TCP_SOCK,
    UNTRUSTED,
    XDP_SOCK,
    is_allocated,
    is_packet,
    is_socket,
    may_share_instruction,
    type_name,
)
from tcbpf.verifier.words.format import var_text

_ALIGN_WORDS: Final = {
    MAP_KEY: "key ",
    MAP_VALUE: "value ",
    CTX: "context ",
    STACK: "stack ",
    SOCKET: "sock ",
    SOCK_COMMON: "sock_common ",
    TCP_SOCK: "tcp_sock ",
    XDP_SOCK: "xdp_sock ",
}
_NET_IP_ALIGN: Final = 2


def load(env: Env, ins: Ins) -> int:
    """dst = *(size *)(src + off)."""
    regs = env.frame.regs
    pointer = regs[ins.src]
    if pointer.type == NOT_INIT:
        env.refuse("uninitialized_register", reg=ins.src)
    if ins.dst == REG_FP:
        env.refuse("frame_pointer_write")
    result = _read(env, ins, ins.src, pointer)
    _note_type(env, pointer.type)
    regs[ins.dst] = result
    return ins.next


def store(env: Env, ins: Ins) -> int:
    """*(size *)(dst + off) = src or imm."""
    regs = env.frame.regs
    value = -1
    if ins.use_reg:
        value = ins.src
        if regs[value].type == NOT_INIT:
            env.refuse("uninitialized_register", reg=value)
    pointer = regs[ins.dst]
    if pointer.type == NOT_INIT:
        env.refuse("uninitialized_register", reg=ins.dst)
    _write(env, ins, ins.dst, pointer, value)
    _note_type(env, pointer.type)
    return ins.next


def _note_type(env: Env, type: int) -> None:
    """Remember what memory the current instruction reaches; it must not be the context on one path and a map on another."""
    pc = env.pc
    seen = env.ptr_types[pc]
    if seen == type:
        return
    region = _region(type)
    aux = env.aux[pc]
    if seen == NOT_INIT:
        env.ptr_types[pc] = type
        aux.region = region
        return
    if not may_share_instruction(type, seen):
        mixed = type & BASE in (BTF_ID, MEM) and seen & BASE in (BTF_ID, MEM)
        if not mixed:
            env.refuse("different_pointers")
    if aux.region is not region:
        aux.region = Region.OTHER


_REGIONS: Final = {
    CTX: Region.CTX,
    STACK: Region.STACK,
    PACKET: Region.PACKET,
    PACKET_META: Region.PACKET,
    MAP_VALUE: Region.MAP_VALUE,
    MEM: Region.MEM,
}


def _region(type: int) -> Region:
    return _REGIONS.get(type & BASE, Region.OTHER)


# --- alignment ---------------------------------------------------------------------------------------------------------


def check_alignment(env: Env, reg: Reg, off: int, size: int, strict: bool) -> None:
    """Stack accesses, atomics, and with strict alignment all others, are aligned to their size.

    Raises:  Refused.
    """
    if size == 1 or not (strict or reg.type == STACK or env.strict_alignment):
        return
    packet = is_packet(reg.type)
    fixed = reg.off + off + (_NET_IP_ALIGN if packet else 0)
    value, mask = tnum.add(reg.val.value, reg.val.mask, fixed & MAX, 0)
    if not (value | mask) & (size - 1):
        return
    if packet:
        env.refuse("misaligned_packet", align=_NET_IP_ALIGN, var=var_text(reg.val), off=reg.off, add=off, size=size)
    env.refuse("misaligned", what=_ALIGN_WORDS.get(reg.type, ""), var=var_text(reg.val), off=reg.off, add=off, size=size)


# --- one access --------------------------------------------------------------------------------------------------------


def _read(env: Env, ins: Ins, regno: int, reg: Reg, *, strict: bool = False, wanted: bool = True) -> Reg:
    """Check a load and return what it gives.

    Raises:  Refused.
    """
    size, type = ins.size, reg.type
    if strict or type == STACK or env.strict_alignment:
        check_alignment(env, reg, ins.off, size, strict)
    off = ins.off + reg.off
    if type == STACK:
        return _sized(stack.read(env, regno, reg, off, size, wanted), ins, size)
    if is_packet(type):
        memory.check_packet(env, regno, reg, off, size)
    elif type == MAP_VALUE:
        memory.check_map_value(env, regno, reg, off, size, write=False)
        known = memory.read_map_value(env, ins, reg, off, size) if wanted else None
        return known if known is not None else _unknown(ins, size)
    elif type == CTX:
        result = memory.access_ctx(env, ins, regno, reg, ins.off, size, write=False)
        return result if result.type != SCALAR else _unknown(ins, size)
    elif type == MAP_KEY:
        memory.check_region(env, regno, reg, off, size, reg.map.key_size)
    elif type & BASE == MEM and not type & MAYBE_NULL:
        if not type & UNTRUSTED:
            memory.check_region(env, regno, reg, off, size, reg.mem_size)
    elif is_socket(type):
        memory.check_socket(env, regno, reg, off, size)
    elif type == MAP_PTR:
        return _narrowed(memory.access_map_pointer(env, ins, regno, reg, off, write=False), ins, size)
    elif is_allocated(type):
        return _narrowed(graph.access(env, regno, reg, off, size), ins, size)
    elif type & BASE == BTF_ID and not type & MAYBE_NULL:
        return _narrowed(read_kernel(env, regno, reg, off, size), ins, size)
    else:
        env.refuse("invalid_memory", reg=regno, type=type_name(type))
    return _unknown(ins, size)


def _unknown(ins: Ins, size: int) -> Reg:
    if ins.signed:
        return Reg(SCALAR, sign_extended(UNKNOWN_REG.val, size))
    return UNKNOWN_OF[size]


def _sized(reg: Reg, ins: Ins, size: int) -> Reg:
    """Return a value read from the stack cut to the size of the load."""
    if size == 8 or reg.type != SCALAR:
        return reg
    val = sign_extended(reg.val, size) if ins.signed else truncate(reg.val, size * 8)
    return reg if val is reg.val else Reg(SCALAR, val, 0, reg.id, 0, reg.delta)


def _narrowed(reg: Reg, ins: Ins, size: int) -> Reg:
    """Return what a kernel structure gave, a number being of the load's size."""
    return _unknown(ins, size) if reg.type == SCALAR else reg


def _write(env: Env, ins: Ins, regno: int, reg: Reg, value: int, *, strict: bool = False) -> None:
    """Check a store of register `value`, -1 for an immediate or an unknown value.

    Raises:  Refused.
    """
    size, type = ins.size, reg.type
    if strict or type == STACK or env.strict_alignment:
        check_alignment(env, reg, ins.off, size, strict)
    off = ins.off + reg.off
    if type == STACK:
        stack.write(env, ins, regno, reg, off, size, value)
        return
    leaks = value >= 0 and not env.allow_leaks and env.frame.regs[value].type != SCALAR
    if is_packet(type):
        if not env.type.direct_write:
            env.refuse("packet_write")
        if leaks:
            env.refuse("leak_packet", reg=value)
        memory.check_packet(env, regno, reg, off, size)
        env.writes_packet = True
    elif type == MAP_VALUE:
        if leaks:
            env.refuse("leak_map", reg=value)
        memory.check_map_value(env, regno, reg, off, size, write=True)
        memory.check_kptr_store(env, ins, reg, off, value)
    elif type == CTX:
        if leaks:
            env.refuse("leak_ctx", reg=value)
        memory.access_ctx(env, ins, regno, reg, ins.off, size, write=True)
    elif type == MAP_KEY:
        env.refuse("map_key_write", reg=regno)
    elif type & BASE == MEM and not type & MAYBE_NULL:
        if type & RDONLY:
            env.refuse("read_only_memory", reg=regno, type=type_name(type))
        if leaks:
            env.refuse("leak_mem", reg=value)
        memory.check_region(env, regno, reg, off, size, reg.mem_size)
    elif is_socket(type):
        env.refuse("read_only_memory", reg=regno, type=type_name(type))
    elif type == MAP_PTR:
        memory.access_map_pointer(env, ins, regno, reg, off, write=True)
    elif is_allocated(type):
        graph.access(env, regno, reg, off, size)
    elif type & BASE == BTF_ID and not type & MAYBE_NULL:
        write_kernel(env, reg, off)
    else:
        env.refuse("invalid_memory", reg=regno, type=type_name(type))


# --- atomics -----------------------------------------------------------------------------------------------------------


def atomic(env: Env, ins: Ins) -> int:
    """Read, change and write memory in one step, or load and store in order."""
    name = ins.row.name
    if name == "LOAD_ACQ":
        return _load_acquire(env, ins)
    if name == "STORE_REL":
        return _store_release(env, ins)
    regs = env.frame.regs
    _check_readable(env, ins.src)
    _check_readable(env, ins.dst)
    if name == "CMPXCHG":
        _check_readable(env, 0)
        if regs[0].type != SCALAR and not env.allow_leaks:
            env.refuse("leak_mem", reg=0)
    if regs[ins.src].type != SCALAR and not env.allow_leaks:
        env.refuse("leak_mem", reg=ins.src)
    pointer = regs[ins.dst]
    if not _atomic_ok(pointer.type):
        env.refuse("atomic_memory", reg=ins.dst, type=type_name(pointer.type))
    loaded = (0 if name == "CMPXCHG" else ins.src) if ins.row.fetch else -1
    if loaded == REG_FP:
        env.refuse("frame_pointer_write")
    if loaded >= 0:
        regs[loaded] = UNKNOWN_REG  # even when it is the address itself, which is then one no longer
        pointer = regs[ins.dst]
    _read(env, ins, ins.dst, pointer, strict=True, wanted=False)
    if loaded >= 0:
        result = _read(env, ins, ins.dst, pointer, strict=True)
        regs[loaded] = result
        pointer = regs[ins.dst]
    _note_type(env, pointer.type)
    _write(env, ins, ins.dst, pointer, -1, strict=True)
    return ins.next


def _check_readable(env: Env, regno: int) -> None:
    if env.frame.regs[regno].type == NOT_INIT:
        env.refuse("uninitialized_register", reg=regno)


def _atomic_ok(type: int) -> bool:
    return not (type == CTX or is_packet(type) or is_socket(type))


def _load_acquire(env: Env, ins: Ins) -> int:
    _check_readable(env, ins.src)
    pointer = env.frame.regs[ins.src]
    if ins.dst == REG_FP:
        env.refuse("frame_pointer_write")
    result = _read(env, ins, ins.src, pointer, strict=True)
    _note_type(env, pointer.type)
    if ins.dst != ins.src and not _atomic_ok(pointer.type):
        env.refuse("atomic_load_memory", reg=ins.src, type=type_name(pointer.type))
    env.frame.regs[ins.dst] = result
    return ins.next


def _store_release(env: Env, ins: Ins) -> int:
    _check_readable(env, ins.src)
    _check_readable(env, ins.dst)
    pointer = env.frame.regs[ins.dst]
    _write(env, ins, ins.dst, pointer, ins.src, strict=True)
    _note_type(env, pointer.type)
    if not _atomic_ok(pointer.type):
        env.refuse("atomic_memory", reg=ins.dst, type=type_name(pointer.type))
    return ins.next

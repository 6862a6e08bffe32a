"""Memory that is not the stack: the context, packet data, map values, helper memory, sockets.

Source:  check_mem_access() and what it calls, kernel/bpf/verifier.c; the *_is_valid_access() of net/core/filter.c (v6.18).
"""

from __future__ import annotations

from typing import Final, NoReturn

from tcbpf.tables import opcodes
from tcbpf.tables.maps import RDONLY_PROG, WRONLY_PROG
from tcbpf.tables.skb import SKB, XDP, Field, field_at
from tcbpf.verifier.memory.structs import read_map_struct
from tcbpf.verifier.paths.precision import mark_precise
from tcbpf.verifier.state.btf_record import BtfField, ProgramType
from tcbpf.verifier.state.env import MAX_VAR_OFF, Env
from tcbpf.verifier.state.insns import Ins
from tcbpf.verifier.state.map_info import MapInfo
from tcbpf.verifier.state.state import UNKNOWN_REG, ZERO, Reg
from tcbpf.verifier.values.scalar import SMIN, const, truncate
from tcbpf.verifier.values.types import (
    ALLOC,
    BASE,
    BTF_ID,
    MAP_KEY,
    MAP_VALUE,
    MAYBE_NULL,
    PACKET,
    PACKET_END,
    PACKET_META,
    PERCPU,
    RCU,
    SCALAR,
    SOCK_COMMON,
    SOCKET,
    TCP_SOCK,
    TRUSTED,
    UNTRUSTED,
    XDP_SOCK,
    type_name,
)
from tcbpf.verifier.words.format import var_text

UNKNOWN_OF: Final = {size: Reg(SCALAR, truncate(UNKNOWN_REG.val, size * 8)) for size in (1, 2, 4, 8)}
_FIELD_POINTERS: Final = {
    "pkt": PACKET,
    "pkt_meta": PACKET_META,
    "pkt_end": PACKET_END,
    "sock_common_or_null": SOCK_COMMON | MAYBE_NULL,
}


# --- a range inside a region -------------------------------------------------------------------------------------------


def _check_range(env: Env, regno: int, reg: Reg, off: int, size: int, limit: int, zero_ok: bool, more: str = "") -> None:
    """[off, off + size) lies in [0, limit)."""
    if off >= 0 and (size > 0 or (size == 0 and zero_ok)) and off + size <= limit:
        return
    further = (more.format(reg=regno),) if more else ()
    if reg.type == MAP_VALUE:
        env.refuse("map_value_bounds", more=further, size_of=limit, off=off, size=size, end=off + size)
    if reg.type == MAP_KEY:
        env.refuse("map_key_bounds", more=further, size_of=limit, off=off, size=size)
    if reg.type in (PACKET, PACKET_META):
        env.refuse("packet_bounds", more=further, off=off, size=size, reg=regno, id=reg.id, range=limit, end=off + size)
    env.refuse("memory_bounds", more=further, size_of=limit, off=off, size=size)


def check_region(env: Env, regno: int, reg: Reg, off: int, size: int, limit: int, zero_ok: bool = False) -> None:
    """Check an access with a possibly unknown offset into a region of `limit` bytes.

    Units:   off includes the pointer's fixed part.
    Raises:  Refused.
    """
    low = reg.val.smin
    if low < 0 and (low == SMIN or not -(1 << 31) <= off + low < 1 << 31 or low + off < 0):
        env.refuse("negative_index", reg=regno)
    _check_range(env, regno, reg, low + off, size, limit, zero_ok, "R{reg} min value is outside of the allowed memory range")
    high = reg.val.umax
    if high >= MAX_VAR_OFF:
        env.refuse("unbounded_index", reg=regno)
    _check_range(env, regno, reg, high + off, size, limit, zero_ok, "R{reg} max value is outside of the allowed memory range")


def check_packet(env: Env, regno: int, reg: Reg, off: int, size: int, zero_ok: bool = False) -> None:
    """Check an access to packet data or metadata against the range that comparisons with the end have proved.

    Raises:  Refused.
    """
    if reg.val.smin < 0:
        env.refuse("negative_index", reg=regno)
    if reg.range < 0:
        env.refuse("packet_range", reg=regno)
    _check_range(env, regno, reg, off, size, reg.range, zero_ok, "R{reg} offset is outside of the packet")


def check_map_value(
    env: Env, regno: int, reg: Reg, off: int, size: int, *, write: bool, zero_ok: bool = False, helper: bool = False
) -> None:
    """Check an access to a map value: permission, bounds, and that no special field is touched as data.

    Raises:  Refused.
    """
    map = reg.map
    if write and map.flags & RDONLY_PROG:
        env.refuse("map_write", size_of=map.value_size, off=off, size=size)
    if not write and map.flags & WRONLY_PROG:
        env.refuse("map_read", size_of=map.value_size, off=off, size=size)
    check_region(env, regno, reg, off, size, map.value_size, zero_ok)
    if map.record is None:
        return
    for field in map.record.fields:
        if reg.val.smin + off < field.off + field.size and field.off < reg.val.umax + off + size:
            if not field.is_kptr:
                env.refuse("special_field", field=field.kind)
            if helper:
                env.refuse("kptr_helper")
            if reg.val.mask:
                env.refuse("kptr_variable_offset")
            if field.off != off + reg.val.smin:
                env.refuse("kptr_misaligned", expected=field.off, off=off + reg.val.smin)
            if size != 8:
                env.refuse("kptr_size")


def read_map_value(env: Env, ins: Ins, reg: Reg, off: int, size: int) -> Reg | None:
    """Return what a checked load from a map value gives: known contents or a kernel pointer; None for some number."""
    map = reg.map
    if not reg.val.mask:
        at = off + reg.val.smin
        field = kptr_at(map, at)
        if field is not None:
            if ins.code & opcodes.MODE != opcodes.MEM:
                env.refuse("kptr_mode")
            return Reg(BTF_ID | MAYBE_NULL | _kptr_flags(env, field), ZERO, id=env.new_id(), extra=field.target)
        if map.readonly and map.spec.contents is not None and map.type == "array":
            raw = map.spec.contents[at : at + size].ljust(size, b"\0")
            return Reg(SCALAR, const(int.from_bytes(raw, "little", signed=ins.signed)))
    return None


def kptr_at(map: MapInfo, off: int) -> BtfField | None:
    """Return the kernel pointer at that offset of a value, None when there is none."""
    if map.record is not None:
        for field in map.record.fields:
            if field.off == off and field.is_kptr:
                return field
    return None


def _kptr_flags(env: Env, field: BtfField) -> int:
    """Return how far a kernel pointer that was loaded is trusted: what RCU protects, until the read section ends."""
    percpu = field.kind == "percpu_kptr"
    safe = percpu or (
        field.referenced
        and (
            field.target.record is not None and field.target.record.has("bpf_refcount")
            if isinstance(field.target, ProgramType)
            else field.target in _RCU_PROTECTED
        )
    )
    if not safe or (env.cur.sleepable and not env.cur.rcu_locks):
        return UNTRUSTED
    return RCU | (PERCPU if percpu else ALLOC if isinstance(field.target, ProgramType) else 0)


_RCU_PROTECTED: Final = frozenset(("prog_test_ref_kfunc", "cgroup", "bpf_cpumask", "task_struct", "bpf_crypto_ctx"))


def check_kptr_store(env: Env, ins: Ins, reg: Reg, off: int, value: int) -> None:
    """Check a store to a kernel pointer in a map value: NULL, or a pointer to that very structure.

    Raises:  Refused.
    """
    map = reg.map
    if reg.val.mask or kptr_at(map, off + reg.val.smin) is None:
        return
    assert map.record is not None
    field = next(f for f in map.record.fields if f.off == off + reg.val.smin)
    if ins.code & opcodes.MODE != opcodes.MEM:
        env.refuse("kptr_mode")
    if field.referenced:
        env.refuse("kptr_store")
    if value < 0:
        if ins.imm:
            env.refuse("kptr_immediate", off=field.off)
        return
    source = env.frame.regs[value]
    if source.type == SCALAR and not source.val.umax:
        mark_precise(env, value)
        return
    if source.type & BASE != BTF_ID or source.type & ~(BASE | MAYBE_NULL | TRUSTED | RCU | UNTRUSTED):
        refuse_kptr(env, value, source, field.target, unsafe=True)
    check_unmoved(env, value, source, fixed_ok=True)
    if source.off or source.btf_type != field.target:
        refuse_kptr(env, value, source, field.target, unsafe=True)


def refuse_kptr(env: Env, regno: int, reg: Reg, target: str | ProgramType, *, unsafe: bool = False) -> NoReturn:
    """Reject a store of the wrong pointer type to a kptr field.

    Raises:  Refused.
    """
    type = type_name(reg.type) + (str(reg.btf_type) if reg.type & BASE == BTF_ID else "")
    env.refuse("kptr_type", reg=regno, type=type, expected=f"ptr_{target}" + (f" or untrusted_ptr_{target}" if unsafe else ""))


# --- the context -------------------------------------------------------------------------------------------------------


def check_unmoved(env: Env, regno: int, reg: Reg, fixed_ok: bool = False) -> None:
    """Reject a pointer to a kernel structure that was moved.

    Raises:  Refused.
    """
    if reg.off < 0:
        env.refuse("ctx_negative", type=type_name(reg.type), reg=regno, off=reg.off)
    if reg.off and not fixed_ok:
        env.refuse("ctx_modified", type=type_name(reg.type), reg=regno, off=reg.off)
    if reg.val.mask or reg.val.value:
        env.refuse("ctx_variable", type=type_name(reg.type), var=var_text(reg.val))


def access_ctx(env: Env, ins: Ins, regno: int, reg: Reg, off: int, size: int, *, write: bool) -> Reg:
    """Check an access to the context and return what a load gives.

    Raises:  Refused.
    """
    check_unmoved(env, regno, reg)
    off += reg.off
    field = _ctx_field(env, ins, off, size, write)
    if field is None:
        env.refuse("ctx_access", off=off, size=size)
    aux = env.aux[env.pc]
    aux.field = field
    if field.pointer and not write:
        type = _FIELD_POINTERS[field.pointer]
        if type & MAYBE_NULL:
            return Reg(type, ZERO, id=env.new_id())
        return Reg(type, ZERO, extra=0 if type in (PACKET, PACKET_META) else None)
    return UNKNOWN_OF[size] if not ins.signed else UNKNOWN_REG


def _ctx_field(env: Env, ins: Ins, off: int, size: int, write: bool) -> Field | None:
    """Return the field that an access of this size may reach, None when there is none."""
    if off < 0 or off % size:
        return None
    row = field_at(SKB if env.type.context == "skb" else XDP, off)
    if row is None or row.since > env.kernel or env.type.name not in (row.write if write else row.read):
        return None
    if not env.capable and ("write" if write else "read") in row.privileged:
        return None
    if row.attach_type and env.program.attach_type != row.attach_type:
        return None
    if row.pointer and (size != row.size or off != row.off or ins.signed):
        return None
    if off == row.off and size == row.size:
        return row
    if size == 8:
        return row if row.wide and off == row.off else None
    if size < row.size and (row.narrow_write if write else row.narrow):
        return row
    return None


# --- sockets and the like ----------------------------------------------------------------------------------------------

_SOCK_SIZE, _TCP_SOCK_SIZE, _XDP_SOCK_SIZE = 80, 112, 4
_SOCK_NARROW: Final = frozenset((*range(4, 5), 8, 12, *range(24, 44), 44, 52, 53, 54, 55, *range(56, 72), 72, 76))


def check_socket(env: Env, regno: int, reg: Reg, off: int, size: int) -> None:
    """Check a load of a field of a socket structure.

    Source:  bpf_sock_is_valid_access(), bpf_tcp_sock_is_valid_access(), net/core/filter.c.
    Raises:  Refused.
    """
    if reg.val.smin < 0:
        env.refuse("negative_index", reg=regno)
    if reg.type == TCP_SOCK:
        ok = 0 <= off < _TCP_SOCK_SIZE and off % size == 0 and size == (8 if off in (80, 88) else 4)
    elif reg.type == XDP_SOCK:
        ok = 0 <= off < _XDP_SOCK_SIZE and size == 4
    else:
        ok = _sock_field_ok(off, size) and (reg.type == SOCKET or not 8 <= off < 24)
    if not ok:
        env.refuse("socket_access", reg=regno, type=type_name(reg.type), off=off, size=size)


def _sock_field_ok(off: int, size: int) -> bool:
    if not 0 <= off < _SOCK_SIZE or off % size:
        return False
    if 48 <= off < 50:
        return (size == 4 and off == 48) or (size <= 2 and off % 2 + size <= 2)
    if 50 <= off < 52:
        return False
    if off in _SOCK_NARROW:
        return size <= 4 and off % 4 + size <= 4
    return size == 4


def access_map_pointer(env: Env, ins: Ins, regno: int, reg: Reg, off: int, *, write: bool) -> Reg:
    """Check a load of the kernel's own structure of a map through a map pointer, which few programs do.

    Raises:  Refused.
    """
    map = reg.map
    return read_map_struct(env, regno, map.type, map.number, off, ins.size, write=write)

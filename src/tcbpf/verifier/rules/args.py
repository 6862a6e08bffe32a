"""The arguments of a helper: what each register must hold, by the helper's row.

Source:  check_func_arg(), check_reg_type(), check_helper_mem_access(), check_mem_size_reg(), kernel/bpf/verifier.c (v6.18).
"""

from __future__ import annotations

from typing import Any, Final

from tcbpf.tables.helpers import Arg, ArgType, Helper, Mod
from tcbpf.tables.maps import FILTERS, INDEXED, SOCKMAPS
from tcbpf.verifier.memory import memory, stack
from tcbpf.verifier.memory.dynptr import dynptr_at, dynptr_slot, make_dynptr
from tcbpf.verifier.memory.memory import check_unmoved
from tcbpf.verifier.paths.precision import mark_precise, mark_slot_precise
from tcbpf.verifier.rules.access import check_alignment
from tcbpf.verifier.rules.locks import check_deferred, check_kptr, check_lock
from tcbpf.verifier.state.env import MAX_VAR_SIZE, Env
from tcbpf.verifier.state.map_info import MapInfo
from tcbpf.verifier.state.state import Reg
from tcbpf.verifier.values.types import (
    ALLOC,
    BASE,
    BTF_ID,
    BUF,
    CTX,
    DYNPTR,
    DYNPTR_KINDS,
    FUNC,
    MAP_KEY,
    MAP_PTR,
    MAP_VALUE,
    MAYBE_NULL,
    MEM,
    NOT_INIT,
    PACKET,
    PACKET_META,
    PERCPU,
    RCU,
    RDONLY,
    RINGBUF,
    SCALAR,
    SOCK_COMMON,
    SOCKET,
    STACK,
    TCP_SOCK,
    TRUSTED,
    XDP_SOCK,
    is_packet,
    type_name,
)
from tcbpf.verifier.words.reasons import kernel_words

_MEM: Final = (STACK, PACKET, PACKET_META, MAP_KEY, MAP_VALUE, MEM, MEM | RINGBUF, BUF, BTF_ID | TRUSTED)
_SOCK: Final = (SOCK_COMMON, SOCKET, TCP_SOCK, XDP_SOCK)
_SCALAR: Final = (SCALAR,)
_ALLOWED: Final[dict[ArgType, tuple[int, ...]]] = {
    ArgType.MAP_KEY: _MEM,
    ArgType.MAP_VALUE: _MEM,
    ArgType.MEM: _MEM,
    ArgType.CONST_SIZE: _SCALAR,
    ArgType.CONST_SIZE_OR_ZERO: _SCALAR,
    ArgType.CONST_ALLOC_SIZE_OR_ZERO: _SCALAR,
    ArgType.CONST_MAP_PTR: (MAP_PTR,),
    ArgType.CTX: (CTX,),
    ArgType.SOCK_COMMON: _SOCK,
    ArgType.BTF_ID_SOCK_COMMON: (*_SOCK, BTF_ID, BTF_ID | TRUSTED),
    ArgType.SOCKET: (SOCKET,),
    ArgType.BTF_ID: (BTF_ID, BTF_ID | TRUSTED, BTF_ID | RCU),
    ArgType.SPIN_LOCK: (MAP_VALUE, BTF_ID | ALLOC),
    ArgType.RINGBUF_MEM: (MEM | RINGBUF,),
    ArgType.PERCPU_BTF_ID: (BTF_ID | PERCPU, BTF_ID | PERCPU | RCU, BTF_ID | PERCPU | TRUSTED),
    ArgType.FUNC: (FUNC,),
    ArgType.STACK: (STACK,),
    ArgType.CONST_STR: (MAP_VALUE,),
    ArgType.TIMER: (MAP_VALUE,),
    ArgType.KPTR: (MAP_VALUE, BTF_ID | ALLOC),
    ArgType.DYNPTR: (STACK, DYNPTR),
}
_ANY_OFFSET: Final = frozenset(
    (
        STACK,
        PACKET,
        PACKET_META,
        MAP_KEY,
        MAP_VALUE,
        MEM,
        MEM | RDONLY,
        MEM | RINGBUF,
        BUF,
        BUF | RDONLY,
        SCALAR,
    )
)


class Meta:
    """Facts of one call, gathered from its arguments for its effects and its result."""

    __slots__ = (
        "dynptr",
        "fill",
        "func",
        "helper",
        "key",
        "kptr",
        "map",
        "max_size",
        "mem_size",
        "ref",
        "release",
        "scalars",
        "uid",
    )

    def __init__(self, helper: Helper) -> None:
        self.helper = helper
        self.map: MapInfo | None = None
        self.uid = 0
        self.fill: tuple[int, int] | None = None  # register and size of stack that the helper fills
        self.release = 0  # register whose reference ends
        self.ref = 0
        self.max_size = 0
        self.mem_size = 0
        self.func = -1
        self.key: int | None = None  # the constant key of an array look-up
        self.kptr: Any = None
        self.dynptr: Reg | None = None


def check_arguments(env: Env, helper: Helper) -> Meta:
    """Check r1 to r5 against the helper's row, and return what they tell.

    Raises:  Refused.
    """
    meta = Meta(helper)
    for index, arg in enumerate(helper.args_for(env.type.name)):
        _check_argument(env, index, arg, meta)
    return meta


def _check_argument(env: Env, index: int, arg: Arg, meta: Meta) -> None:
    regno = index + 1
    reg = env.frame.regs[regno]
    if reg.type == NOT_INIT:
        env.refuse("uninitialized_register", reg=regno)
    kind, mod = arg.type, arg.mod
    if kind is ArgType.ANYTHING:
        if reg.type != SCALAR and not env.allow_leaks:
            env.refuse("leak_helper", reg=regno)
        return
    if is_packet(reg.type) and not (env.type.direct_read and meta.helper.pkt_access):
        env.refuse("packet_helper")
    if kind is ArgType.MAP_VALUE and meta.map is not None:
        if meta.map.type in SOCKMAPS:
            if mod:
                env.refuse("sockmap_argument")
            kind = ArgType.BTF_ID_SOCK_COMMON
        elif meta.map.type in FILTERS and meta.helper.name == "map_peek_elem":
            arg, mod = Arg(kind), Mod.NONE  # the value to look for, not a place for one
    null = reg.is_null()
    if not null or not mod & Mod.MAYBE_NULL:
        _check_type(env, regno, reg, kind, arg, meta)
        check_offset(env, regno, reg, mod)
    if mod & Mod.RELEASE:
        _check_release(env, regno, reg, kind, null)
        meta.release = regno
    if reg.ref and kind is not ArgType.KPTR:
        if meta.ref:
            env.refuse("more_references", reg=regno, one=reg.ref, other=meta.ref)
        meta.ref = reg.ref
    _use_argument(env, regno, reg, kind, arg, meta, null)


def _check_type(env: Env, regno: int, reg: Reg, kind: ArgType, arg: Arg, meta: Meta) -> None:
    type, mod = reg.type, arg.mod
    allowed = _ALLOWED[kind]
    if mod & Mod.RDONLY:
        type &= ~RDONLY
    if mod & Mod.MAYBE_NULL:
        type &= ~MAYBE_NULL
    if kind is ArgType.MEM:
        type &= ~DYNPTR_KINDS
    if meta.helper.name == "kptr_xchg" and regno == 2:
        type &= ~(ALLOC | PERCPU)
    if type not in allowed:
        env.refuse("argument_type", reg=regno, type=type_name(reg.type), expected=", ".join(type_name(t) for t in allowed))
    if type & BASE == BTF_ID:
        if allowed is _MEM:
            if not mod & Mod.RDONLY:
                env.refuse("argument_write", name=meta.helper.name, reg=regno, type=type_name(reg.type))
            return
        if reg.type & MAYBE_NULL and (not mod & Mod.MAYBE_NULL or mod & Mod.RELEASE):
            env.refuse("argument_null", reg=regno)
        if meta.helper.name == "kptr_xchg" and regno == 2 and (reg.off or reg.btf_type != meta.kptr.target):
            memory.refuse_kptr(env, regno, reg, meta.kptr.target)
        if arg.btf and reg.btf_type != arg.btf:
            env.refuse("argument_btf", reg=regno, type=reg.btf_type, expected=arg.btf)


def check_offset(env: Env, regno: int, reg: Reg, mod: Mod) -> None:
    """A pointer comes with the offset that its kind may have.

    Raises:  Refused.
    """
    if mod & Mod.RELEASE:
        if reg.type == STACK:
            return
        if reg.off:
            env.refuse("argument_release_offset", reg=regno)
        check_unmoved(env, regno, reg)
    elif reg.type not in _ANY_OFFSET:
        check_unmoved(env, regno, reg, fixed_ok=reg.type & BASE == BTF_ID)


def _check_release(env: Env, regno: int, reg: Reg, kind: ArgType, null: bool) -> None:
    if kind is ArgType.DYNPTR:
        if reg.type != STACK:
            env.refuse("dynptr_release")
        spi = dynptr_slot(env, reg, kernel_words("dynptr_not_acquired", arg=regno))
        slots = env.cur.frames[reg.frame].stack
        held = slots[spi].reg if spi < len(slots) else None
        if held is None or not held.ref:
            env.refuse("dynptr_not_acquired", arg=regno)
    elif not reg.ref and not null:
        env.refuse("argument_not_referenced", reg=regno)


def _use_argument(env: Env, regno: int, reg: Reg, kind: ArgType, arg: Arg, meta: Meta, null: bool) -> None:
    mod = arg.mod
    if kind is ArgType.CONST_MAP_PTR:
        if meta.map is not None and (meta.map is not reg.map or meta.uid != reg.uid):
            env.refuse("timer_map", uid=meta.uid, other=reg.uid)
        meta.map, meta.uid = reg.map, reg.uid
    elif kind is ArgType.MAP_KEY:
        assert meta.map is not None
        check_memory(env, regno, meta.map.key_size, write=False, zero_ok=False)
        if meta.map.type in INDEXED and env.has("array_key_in_bounds"):
            meta.key = _constant_key(env, reg, meta.map.key_size)
    elif kind is ArgType.MAP_VALUE:
        if null and mod & Mod.MAYBE_NULL:
            return
        assert meta.map is not None
        raw = meta if mod & Mod.UNINIT else None
        check_memory(env, regno, meta.map.value_size, write=bool(mod & Mod.WRITE), zero_ok=False, meta=raw)
    elif kind is ArgType.MEM:
        if mod & Mod.FIXED_SIZE:
            raw = meta if mod & Mod.UNINIT else None
            check_memory(env, regno, arg.size, write=bool(mod & Mod.WRITE), zero_ok=False, meta=raw)
            if mod & Mod.ALIGNED:
                check_alignment(env, reg, 0, arg.size, True)
    elif kind in (ArgType.CONST_SIZE, ArgType.CONST_SIZE_OR_ZERO):
        before = meta.helper.args[regno - 2]
        check_size(
            env,
            regno,
            reg,
            write=bool(before.mod & Mod.WRITE),
            zero_ok=kind is ArgType.CONST_SIZE_OR_ZERO,
            meta=meta if before.mod & Mod.UNINIT else None,
        )
        meta.max_size = reg.val.umax
    elif kind is ArgType.CONST_ALLOC_SIZE_OR_ZERO:
        if reg.val.mask:
            env.refuse("argument_constant", reg=regno)
        meta.mem_size = reg.val.value
        mark_precise(env, regno)
    elif kind is ArgType.FUNC:
        meta.func = reg.subprog
    elif kind is ArgType.SPIN_LOCK:
        check_lock(env, regno, reg, lock=meta.helper.name == "spin_lock")
    elif kind is ArgType.TIMER:
        check_deferred(env, regno, reg, "bpf_timer")
        meta.map, meta.uid = reg.map, reg.uid
    elif kind is ArgType.KPTR:
        meta.kptr = check_kptr(env, regno, reg)
    elif kind is ArgType.DYNPTR:
        wanted = next((word for flag, word in _KINDS if mod & flag), "")
        held = check_dynptr(env, regno, reg, mod, wanted)
        meta.dynptr = held or meta.dynptr
    elif kind is ArgType.CONST_STR:
        check_string(env, regno, reg)


# --- memory and its size -----------------------------------------------------------------------------------------------


def check_memory(env: Env, regno: int, size: int, *, write: bool, zero_ok: bool, meta: Meta | None = None) -> None:
    """Check that the helper may access `size` bytes at a register; `meta` given: it fills them, whatever they were.

    Raises:  Refused.
    """
    reg = env.frame.regs[regno]
    base = reg.type & BASE
    if base == STACK:
        if meta is not None:
            if stack.check_uninitialized(env, regno, reg, reg.off, size, zero_ok):
                meta.fill = regno, size
        else:
            how = stack.WRITE if write else stack.READ
            stack.check_initialized(env, regno, reg, reg.off, size, how=how, zero_size_ok=zero_ok)
    elif is_packet(base):
        memory.check_packet(env, regno, reg, reg.off, size, zero_ok)
        env.writes_packet |= write
    elif base == MAP_VALUE:
        memory.check_map_value(env, regno, reg, reg.off, size, write=write, zero_ok=zero_ok, helper=True)
    elif base == MAP_KEY:
        if write:
            env.refuse("read_only_memory", reg=regno, type=type_name(reg.type))
        memory.check_region(env, regno, reg, reg.off, size, reg.map.key_size)
    elif base == MEM:
        if reg.type & RDONLY and write:
            env.refuse("read_only_memory", reg=regno, type=type_name(reg.type))
        memory.check_region(env, regno, reg, reg.off, size, reg.mem_size, zero_ok)
    elif base == BTF_ID:
        env.refuse("not_supported", what="handing a kernel structure to a helper as memory")
    elif not (zero_ok and size == 0 and reg.is_null()):
        env.refuse("argument_type", reg=regno, type=type_name(reg.type), expected="fp")


def check_size(env: Env, regno: int, reg: Reg, *, write: bool, zero_ok: bool, meta: Meta | None) -> None:
    """Check a size argument together with the memory that the register before it points to.

    Raises:  Refused.
    """
    val = reg.val
    if val.mask:
        meta = None
    if val.smin < 0:
        env.refuse("argument_size_negative", reg=regno)
    if not val.umin and not zero_ok:
        env.refuse("argument_size_zero", reg=regno, low=val.umin, high=val.umax)
    if val.umax >= MAX_VAR_SIZE:
        env.refuse("argument_size_unbounded", reg=regno)
    check_memory(env, regno - 1, val.umax, write=write, zero_ok=zero_ok, meta=meta)
    mark_precise(env, regno)


def _constant_key(env: Env, reg: Reg, size: int) -> int | None:
    """Return the key that a stack pointer points to when it is known, and rely on it."""
    if not env.capable or reg.type != STACK or reg.val.mask:
        return None
    frame = env.cur.frames[reg.frame]
    off = reg.off + reg.val.smin
    spi, at = (-off - 1) // 8, (-off - 1) % 8
    slot = frame.stack[spi]
    kinds = slot.kinds[max(0, at + 1 - size) : at + 1]
    if kinds == "0" * size:
        return 0
    if not slot.spilled or slot.reg is None or slot.reg.type != SCALAR or slot.reg.val.mask:
        return None
    run = 0
    while run <= at and slot.kinds[at - run] == "r":
        run += 1
    if run != size:
        return None
    mark_slot_precise(env, reg.frame, spi)
    key: int = slot.reg.val.value
    return key


# --- dynptrs and strings -----------------------------------------------------------------------------------------------

_KINDS: Final = ((Mod.DYNPTR_LOCAL, "local"), (Mod.DYNPTR_RINGBUF, "ringbuf"))


def check_dynptr(env: Env, regno: int, reg: Reg, mod: Mod, wanted: str, parent_ref: int = 0) -> Reg | None:
    """Check a dynptr argument and return it; an UNINIT one is made, of the kind wanted, and nothing returned.

    Raises:  Refused.
    """
    if reg.type not in (STACK, DYNPTR):
        env.refuse("dynptr_type_arg", arg=regno - 1)
    if mod & Mod.UNINIT:
        if not _can_hold_dynptr(env, reg):
            env.refuse("dynptr_initialized")
        stack.check_within(env, regno, reg, reg.off, 16, stack.WRITE)
        make_dynptr(env, reg, wanted, parent_ref)
        return None
    held = dynptr_at(env, reg, kernel_words("dynptr_uninitialized", arg=regno - 1))
    if held is None:
        env.refuse("dynptr_uninitialized", arg=regno - 1)
    if wanted and held.dynptr.kind != wanted:
        env.refuse("dynptr_kind", kind=wanted, arg=regno - 1)
    return held


def _can_hold_dynptr(env: Env, reg: Reg) -> bool:
    if reg.type != STACK:
        return False
    dynptr_slot(env, reg, kernel_words("dynptr_initialized"))
    return True


def check_string(env: Env, regno: int, reg: Reg) -> None:
    """A register points to a string that never changes.

    Raises:  Refused.
    """
    map = reg.map
    if not map.readonly:
        env.refuse("const_string_map", reg=regno)
    if reg.val.mask:
        env.refuse("const_string_address", reg=regno)
    if not map.direct:
        env.refuse("const_string_access")
    memory.check_map_value(env, regno, reg, reg.off, map.value_size - reg.off, write=False, helper=True)
    contents = (map.spec.contents or b"").ljust(map.value_size, b"\0")
    if b"\0" not in contents[reg.off + reg.val.smin : map.value_size]:
        env.refuse("const_string_end")

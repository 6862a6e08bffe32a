"""Locks, timers and kernel pointers inside map values, as helpers take them.

Source:  process_spin_lock(), process_timer_func(), process_kptr_func(), kernel/bpf/verifier.c (v6.18).
"""

from __future__ import annotations

from typing import Any

from tcbpf.verifier.env import Env, MapInfo
from tcbpf.verifier.fields import Special
from tcbpf.verifier.special import acquire, forget_non_owning
from tcbpf.verifier.state import Reg
from tcbpf.verifier.types import MAP_VALUE


def _field(env: Env, regno: int, reg: Reg, kind: str) -> Special:
    """Return the map's field of that kind, when the register points to it.

    Raises:  Refused.
    """
    if reg.val.mask:
        env.refuse("lock_offset", reg=regno, field=kind)
    map: MapInfo = reg.extra
    if map.spec.btf is None or not map.spec.value_type:
        env.refuse("lock_btf", map=map.name, field=kind)
    field = map.record.find(kind) if map.record is not None else None
    if field is None:
        env.refuse("lock_missing", map=map.name, field=kind)
    at = reg.val.smin + reg.off
    if field.off != at:
        env.refuse("lock_place", off=at, field=kind, at=field.off)
    return field


def check_lock(env: Env, regno: int, reg: Reg, *, lock: bool) -> None:
    """Take or leave the spin lock a register points to: one at a time, and the same one.

    Raises:  Refused.
    """
    if reg.type != MAP_VALUE:
        env.refuse("not_supported", what="a spin lock in an allocated object")
    _field(env, regno, reg, "bpf_spin_lock")
    state = env.cur
    owner: Any = reg.extra
    if lock:
        if state.locks:
            env.refuse("lock_twice")
        acquire(env, "lock", owner, reg.id)
        state.locks += 1
        state.lock_id, state.lock_owner = reg.id, owner
        return
    if not state.locks:
        env.refuse("lock_not_held")
    if state.lock_owner is not owner or state.lock_id != reg.id:
        env.refuse("lock_other")
    state.refs = tuple(ref for ref in state.refs if ref.kind != "lock")
    state.locks -= 1
    state.lock_id, state.lock_owner = 0, None
    forget_non_owning(env)


def check_timer(env: Env, regno: int, reg: Reg) -> None:
    """A register points to the timer of a map value.

    Raises:  Refused.
    """
    _field(env, regno, reg, "bpf_timer")


def check_kptr(env: Env, regno: int, reg: Reg) -> Special:
    """Return the kernel pointer field a register points to, for an exchange.

    Raises:  Refused.
    """
    if reg.type != MAP_VALUE:
        env.refuse("not_supported", what="a kernel pointer in an allocated object")
    map: MapInfo = reg.extra
    if map.spec.btf is None:
        env.refuse("lock_btf", map=map.name, field="bpf_kptr_xchg")
    if reg.val.mask:
        env.refuse("lock_offset", reg=regno, field="kptr")
    if map.record is None or not any(f.kind in ("kptr", "percpu_kptr") for f in map.record.fields):
        env.refuse("kptr_none", reg=regno)
    at = reg.off + reg.val.smin
    field = next((f for f in map.record.fields if f.off == at and f.kind in ("kptr", "percpu_kptr")), None)
    if field is None:
        env.refuse("kptr_place", off=at)
    if not field.referenced:
        env.refuse("kptr_not_referenced", off=at)
    return field

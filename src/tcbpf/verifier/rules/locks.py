"""Locks, timers and kernel pointers inside map values, as helpers take them.

Source:  process_spin_lock(), process_timer_func(), process_kptr_func(), kernel/bpf/verifier.c (v6.18).
"""

from __future__ import annotations

from typing import Any

from tcbpf.verifier.memory.graph import OWNER, in_tree_callback, record_at
from tcbpf.verifier.memory.invalidate import forget_non_owning
from tcbpf.verifier.memory.references import acquire
from tcbpf.verifier.state.btf_record import BtfField
from tcbpf.verifier.state.env import Env
from tcbpf.verifier.state.state import Reg
from tcbpf.verifier.values.types import MAP_VALUE


def _field(env: Env, regno: int, reg: Reg, kind: str) -> BtfField:
    """Return the field of that kind, when the register points to it.

    Raises:  Refused.
    """
    if reg.val.mask:
        env.refuse("lock_offset", reg=regno, field=kind)
    whose = "local 'kptr'"
    if reg.type == MAP_VALUE:
        map = reg.map
        whose = f"map '{map.name}'"
        if map.spec.btf is None or not map.spec.value_type:
            env.refuse("lock_btf", map=map.name, field=kind)
    record = record_at(reg)
    field = record.find(kind) if record is not None else None
    if field is None:
        env.refuse("lock_missing", whose=whose, field=kind)
    at = reg.val.smin + reg.off
    if field.off != at:
        env.refuse("lock_place", off=at, field=kind, at=field.off)
    return field


def check_lock(env: Env, regno: int, reg: Reg, *, lock: bool) -> None:
    """Take or leave the spin lock a register points to: one at a time, and the same one.

    Raises:  Refused.
    """
    if in_tree_callback(env):
        env.refuse("lock_in_tree_callback")
    _field(env, regno, reg, "bpf_spin_lock")
    state = env.cur
    owner: Any = reg.map if reg.type == MAP_VALUE else OWNER
    if lock:
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


def check_deferred(env: Env, regno: int, reg: Reg, kind: str) -> None:
    """A register points to the timer or the work queue of a map value.

    Raises:  Refused.
    """
    _field(env, regno, reg, kind)


def check_kptr(env: Env, regno: int, reg: Reg) -> BtfField:
    """Return the kernel pointer field a register points to, for an exchange.

    Raises:  Refused.
    """
    if reg.type == MAP_VALUE and reg.map.spec.btf is None:
        env.refuse("lock_btf", map=reg.map.name, field="bpf_kptr_xchg")
    if reg.val.mask:
        env.refuse("lock_offset", reg=regno, field="kptr")
    record = record_at(reg)
    fields = [f for f in record.fields if f.is_kptr] if record is not None else []
    if not fields:
        env.refuse("kptr_none", reg=regno)
    at = reg.off + reg.val.smin
    field = next((f for f in fields if f.off == at), None)
    if field is None:
        env.refuse("kptr_place", off=at)
    if not field.referenced:
        env.refuse("kptr_not_referenced", off=at)
    return field

"""Calls of helpers: permission, arguments, effects, and what r0 is afterwards.

Source:  check_helper_call(), check_map_func_compatibility(), kernel/bpf/verifier.c (v6.18).
"""

from __future__ import annotations

import os
from typing import Final

from tcbpf.tables.helpers import HELPERS, ArgType, Helper, Mod, RetType, helper_at
from tcbpf.tables.maps import MAP_TYPES, OF_PROGRAMS, RDONLY_PROG, SOCKMAPS
from tcbpf.uapi import bpf
from tcbpf.verifier.memory import stack
from tcbpf.verifier.memory.dynptr import release_dynptr
from tcbpf.verifier.memory.invalidate import forget_packet
from tcbpf.verifier.memory.references import acquire, release
from tcbpf.verifier.paths.paths import push_path
from tcbpf.verifier.paths.precision import mark_precise
from tcbpf.verifier.rules.args import Meta, check_arguments
from tcbpf.verifier.rules.callback import push_async_callback, push_callback
from tcbpf.verifier.rules.exit import check_nothing_held
from tcbpf.verifier.rules.subprog import return_to_caller
from tcbpf.verifier.state.btf_record import ProgramType
from tcbpf.verifier.state.env import Env
from tcbpf.verifier.state.insns import Ins
from tcbpf.verifier.state.map_info import MapInfo
from tcbpf.verifier.state.state import NO_REG, UNKNOWN_REG, ZERO, Reg
from tcbpf.verifier.values.scalar import bounded
from tcbpf.verifier.values.types import (
    ALLOC,
    BTF_ID,
    DYNPTR_SKB,
    MAP_VALUE,
    MAYBE_NULL,
    MEM,
    PERCPU,
    RDONLY,
    RINGBUF,
    SCALAR,
    SOCK_COMMON,
    SOCKET,
    TCP_SOCK,
    TRUSTED,
    type_name,
)
from tcbpf.verifier.words.strings import is_valid_format

_NAMES: Final = {
    number: word[len("BPF_FUNC_") :]
    for word, number in vars(bpf).items()
    if word.startswith("BPF_FUNC_") and isinstance(number, int)
}
_MAX_ERRNO: Final = 4095
_CPUS: Final = os.cpu_count() or 1


def helper(env: Env, ins: Ins) -> int:
    """call helper."""
    row = helper_at(ins.imm) if env.program.classic else HELPERS.at(ins.imm)
    if env.cur.locks and (row is None or row.name != "spin_unlock"):
        env.refuse("call_while_locked")
    row = _permitted(env, row, ins.imm)
    env.helpers.add(row.name)
    meta = check_arguments(env, row)
    _note_map(env, row, meta)
    if row.name == "tail_call" and (meta.map is None or meta.map.type not in OF_PROGRAMS):
        env.refuse("tail_call_map")
    regs = env.frame.regs
    if meta.fill is not None:
        regno, size = meta.fill
        stack.fill(env, regs[regno], regs[regno].off, size)
    _release_argument(env, row, meta)
    changes_data = row.changes_data
    if row.name in _SPECIAL:
        _special(env, row, meta)
    if row.name == "dynptr_write" and meta.dynptr is not None and meta.dynptr.dynptr.kind == "skb":
        changes_data = True
    key = regs[3]
    for i in range(6):
        regs[i] = NO_REG
    regs[0] = _result(env, row, meta)
    _check_map_type(env, row, meta)
    if row.name == "tail_call":
        _note_tail_call(env, meta, key)
        if len(env.cur.frames) > 1:
            return _tail_called(env, ins)
    if changes_data:
        forget_packet(env)
        env.writes_packet = True
    return ins.next


def is_offered(env: Env, row: Helper) -> bool:
    """Tell whether programs of this type and privilege may call a helper."""
    privileged = row.privilege == "none" or (env.capable and (row.privilege == "bpf" or env.allow_leaks))
    return env.type.name in row.progs and privileged and max(row.since, row.net_since) <= env.kernel


def _permitted(env: Env, row: Helper | None, id: int) -> Helper:
    """Return the row when the program may call the helper.

    Raises:  Refused.
    """
    if row is None or row.since > env.kernel:
        name = _NAMES.get(id)
        if name is not None and (row is None or row.since <= env.kernel):
            env.refuse("helper_not_allowed", name=name, id=id, type=env.type.name)
        env.refuse("unknown_helper", id=id)
    if not is_offered(env, row):
        env.refuse("helper_not_allowed", name=row.name, id=id, type=env.type.name)
    if row.gpl_only and not env.gpl:
        env.refuse("gpl_only")
    if row.might_sleep and not env.cur.sleepable:
        env.refuse("might_sleep")
    return row


def _note_map(env: Env, row: Helper, meta: Meta) -> None:
    """Tell the engine which map an instruction uses when it is always the same."""
    map = meta.map
    if map is None:
        return
    if row.writes_map and map.flags & RDONLY_PROG:
        env.refuse("map_call_write")
    aux = env.aux[env.pc]
    if aux.map == -1 and not env.map_poisoned[env.pc]:
        aux.map = map.index
        if map.index < 0:
            env.map_poisoned[env.pc] = 1
    elif aux.map != map.index:
        aux.map = -1
        env.map_poisoned[env.pc] = 1


def _note_tail_call(env: Env, meta: Meta, index: Reg) -> None:
    """Tell the engine which slot a tail call goes to when it is always the same."""
    aux = env.aux[env.pc]
    assert meta.map is not None
    if not _known_index(env, index, meta):
        aux.key = -1
        env.key_poisoned[env.pc] = 1
    elif aux.key == -1 and not env.key_poisoned[env.pc]:
        aux.key = index.val.value
    elif aux.key != index.val.value:
        aux.key = -1
        env.key_poisoned[env.pc] = 1


def _tail_called(env: Env, ins: Ins) -> int:
    """A tail call in a function that was called: it fails and goes on here, or its target returns to the caller."""
    push_path(env, env.cur.copy(), ins.next)
    forget_packet(env)
    env.frame.regs[0] = UNKNOWN_REG
    return return_to_caller(env)


def _release_argument(env: Env, row: Helper, meta: Meta) -> None:
    if not meta.release:
        return
    reg = env.frame.regs[meta.release]
    kind = row.args[meta.release - 1].type.value
    if kind == "ptr_to_dynptr":
        done = release_dynptr(env, reg)
    elif meta.ref:
        done = release(env, meta.ref)
    else:
        done = reg.is_null()
    if not done:
        env.refuse("not_acquired", name=row.name, id=row.id)


# --- helpers that do more than their row says --------------------------------------------------------------------------

_SPECIAL: Final = frozenset(
    (
        "tail_call",
        "get_local_storage",
        "for_each_map_elem",
        "timer_set_callback",
        "loop",
        "dynptr_from_mem",
        "snprintf",
        "user_ringbuf_drain",
        "find_vma",
    )
)


def _special(env: Env, row: Helper, meta: Meta) -> None:
    name, regs = row.name, env.frame.regs
    if name == "tail_call":
        if _known_index(env, regs[3], meta):
            mark_precise(env, 3)
        check_nothing_held(env, "tail_call")
    elif name == "get_local_storage":
        if regs[2].type != SCALAR or regs[2].val.umax:
            env.refuse("local_storage_flags")
    elif name == "for_each_map_elem":
        assert meta.map is not None
        push_callback(env, meta.func, name, map=meta.map)
    elif name == "loop":
        if regs[1].type != SCALAR:
            env.refuse("walk_lost", what="backtracking misuse")
        _note_loop(env, regs[4], meta.func)
        mark_precise(env, 1)
        if env.frame.callback_depth < regs[1].val.umax:
            push_callback(env, meta.func, name)
        else:
            env.frame.callback_depth = 0
            if env.trace and env.trace.deep:
                env.log.line(f"frame{env.frame.number} bpf_loop iteration limit reached")
    elif name == "timer_set_callback":
        push_async_callback(env, meta.func)
    elif name == "dynptr_from_mem":
        if regs[1].type != MAP_VALUE:
            env.refuse("dynptr_data", type=type_name(regs[1].type))
    elif name == "snprintf":
        _check_format(env, regs[3], regs[5].val.value)
    else:
        push_callback(env, meta.func, name, map=meta.map)


def _check_format(env: Env, format: Reg, size: int) -> None:
    """bpf_snprintf()'s format suits `size` bytes of arguments: the known bits of a size that is not known."""
    contents = format.map.spec.contents or b""
    text = contents[format.off + format.val.value :].partition(b"\0")[0]
    if size % 8 or not is_valid_format(text, size // 8):
        env.refuse("format_string")


def _note_loop(env: Env, flags: Reg, subprog: int) -> None:
    """Keep whether a call of bpf_loop() has no flags and the same function on all paths: the kernel inlines such a call."""
    known = env.loops.get(env.pc)
    if known is False:
        return
    zero = flags.is_null()
    if zero:
        mark_precise(env, 4)
    env.loops[env.pc] = subprog if zero and known in (None, subprog) else False
    env.aux[env.pc].inlined = env.loops[env.pc] is not False


def _known_index(env: Env, index: Reg, meta: Meta) -> bool:
    assert meta.map is not None
    return index.type == SCALAR and not index.val.mask and index.val.value < meta.map.entries


# --- the result --------------------------------------------------------------------------------------------------------

_RET_TYPES: Final = {
    RetType.SOCKET: SOCKET,
    RetType.SOCK_COMMON: SOCK_COMMON,
    RetType.TCP_SOCK: TCP_SOCK,
    RetType.MEM: MEM,
    RetType.DYNPTR_MEM: MEM,
}


def _result(env: Env, row: Helper, meta: Meta) -> Reg:
    """Return what r0 is after the call."""
    ret, name = row.ret, row.name
    flags = _flags(ret.mod)
    if ret.type is RetType.INTEGER:
        return _integer(row, meta)
    if ret.type is RetType.VOID:
        return NO_REG
    id = ref = uid = 0
    extra: object = None
    if ret.type is RetType.MAP_VALUE:
        map = meta.map
        assert map is not None
        if meta.key is not None and name == "map_lookup_elem" and meta.key < map.entries:
            flags &= ~MAYBE_NULL
        type, extra, uid = MAP_VALUE | flags, map, meta.uid
        if not flags & MAYBE_NULL and map.record is not None and map.record.has("bpf_spin_lock"):
            id = env.new_id()
    elif ret.type in _RET_TYPES:
        type = _RET_TYPES[ret.type] | flags
        if type & MEM == MEM and ret.type in (RetType.MEM, RetType.DYNPTR_MEM):
            extra = meta.mem_size
        if meta.dynptr is not None:
            uid = meta.dynptr.id
            if meta.dynptr.dynptr.kind == "skb":
                type |= DYNPTR_SKB
    elif ret.type is RetType.BTF_ID:
        type, extra = BTF_ID | flags, ret.btf
        if meta.kptr is not None:
            extra = meta.kptr.target
            type |= ALLOC if isinstance(extra, ProgramType) else 0
            type |= PERCPU if meta.kptr.kind == "percpu_kptr" else 0
    else:
        env.refuse("not_supported", what=f"the result of bpf_{name}")
    if type & MAYBE_NULL:
        id = env.new_id()
    if name == "dynptr_data" and meta.dynptr is not None:
        ref = meta.dynptr.ref
    elif row.casts:
        ref = meta.ref
    elif row.acquires or (name == "map_lookup_elem" and meta.map is not None and meta.map.type in SOCKMAPS):
        id = ref = acquire(env)
    return Reg(type, ZERO, 0, id, ref, extra, uid)


def _flags(mod: Mod) -> int:
    return (
        (MAYBE_NULL if mod & Mod.MAYBE_NULL else 0)
        | (RDONLY if mod & Mod.RDONLY else 0)
        | (RINGBUF if mod & Mod.RINGBUF else 0)
        | (TRUSTED if mod & Mod.TRUSTED else 0)
    )


def _integer(row: Helper, meta: Meta) -> Reg:
    if row.bounded_by_size:
        most = min(meta.max_size, (1 << 31) - 1)
        return Reg(SCALAR, bounded(UNKNOWN_REG.val, smin=-_MAX_ERRNO, smax=most, smin32=-_MAX_ERRNO, smax32=most))
    if row.name == "get_smp_processor_id":
        last = _CPUS - 1
        return Reg(SCALAR, bounded(UNKNOWN_REG.val, umax=last, umax32=last, smin=0, smax=last, smin32=0, smax32=last))
    return UNKNOWN_REG


def _check_map_type(env: Env, row: Helper, meta: Meta) -> None:
    map = meta.map
    if map is None:
        return
    _check_map_update(env, row, map)
    kind = MAP_TYPES.get(map.type)
    if kind is None or row.name in kind.helpers or any(arg.type is ArgType.TIMER for arg in row.args):
        return
    env.refuse("map_type", type=kind.number, name=row.name, id=row.id)


def _check_map_update(env: Env, row: Helper, map: MapInfo) -> None:
    """Sockets go into a map, and out of it, only where none can be locked."""
    if map.type in SOCKMAPS and row.name in ("map_update_elem", "map_delete_elem") and env.type.name == "cgroup_skb":
        kind = MAP_TYPES[map.type]
        env.refuse("sockmap_update", more=(f"cannot pass map_type {kind.number} into func bpf_{row.name}#{row.id}",))

"""Calls of kernel functions: permission, arguments, effects, and what r0 is afterwards.

Source:  add_kfunc_call(), check_kfunc_call(), kernel/bpf/verifier.c (v6.18).
"""

from __future__ import annotations

from typing import Final

from tcbpf.errors import NotSupported
from tcbpf.isa.insn import Insn
from tcbpf.obj.btf import Kind
from tcbpf.obj.btf_index import kernel_btf
from tcbpf.tables.kfuncs import KFUNCS, Kfunc, Param
from tcbpf.verifier.memory import graph
from tcbpf.verifier.memory.invalidate import forget_packet, replace_registers
from tcbpf.verifier.memory.references import acquire, release
from tcbpf.verifier.paths.paths import PATH_END
from tcbpf.verifier.paths.scc import check_end
from tcbpf.verifier.rules.callback import push_async_callback, push_callback
from tcbpf.verifier.rules.exception import THROW
from tcbpf.verifier.rules.exit import check_nothing_held, check_return
from tcbpf.verifier.rules.iterator import follow_next, iterator_at
from tcbpf.verifier.rules.kfunc_args import Meta, check_arguments, memory_size
from tcbpf.verifier.state.env import Env
from tcbpf.verifier.state.insns import Ins
from tcbpf.verifier.state.state import NO_REG, UNKNOWN_REG, ZERO, Reg, Slot
from tcbpf.verifier.values.types import (
    ALLOC,
    BTF_ID,
    DYNPTR_LOCAL,
    DYNPTR_SKB,
    DYNPTR_SKB_META,
    DYNPTR_XDP,
    MAYBE_NULL,
    MEM,
    RCU,
    RDONLY,
    TRUSTED,
    UNTRUSTED,
)

_KERNEL_CONTEXTS: Final = {"skb": "sk_buff", "xdp": "xdp_buff"}
_SLICES: Final = {"skb": DYNPTR_SKB, "xdp": DYNPTR_XDP, "skb_meta": DYNPTR_SKB_META}
TRAP: Final = "__bpf_trap"
_WHILE_LOCKED: Final = frozenset(
    (
        "bpf_iter_num_new",
        "bpf_iter_num_next",
        "bpf_iter_num_destroy",
        "bpf_stream_vprintk_impl",
        "bpf_res_spin_lock",
        "bpf_res_spin_unlock",
        "bpf_res_spin_lock_irqsave",
        "bpf_res_spin_unlock_irqrestore",
        "bpf_refcount_acquire_impl",
        "bpf_list_push_front_impl",
        "bpf_list_push_back_impl",
        "bpf_list_pop_front",
        "bpf_list_pop_back",
        "bpf_list_front",
        "bpf_list_back",
        "bpf_rbtree_add_impl",
        "bpf_rbtree_remove",
        "bpf_rbtree_first",
        "bpf_rbtree_root",
        "bpf_rbtree_left",
        "bpf_rbtree_right",
    )
)


def find(env: Env, insn: Insn) -> Kfunc:
    """Return the function that a call names: by its index in the program's list, or by a bare id of the kernel's BTF.

    Raises:  Refused.
    """
    if not env.gpl:
        env.refuse("kfunc_gpl")
    if insn.off:
        reason = "kfunc_offset_negative" if insn.off < 0 else "kfunc_offset"
        env.refuse(reason, more=("failed to find BTF for kernel function",))
    names = env.program.kfuncs
    if names:
        name = names[insn.imm] if 0 <= insn.imm < len(names) else ""
    else:
        name = _by_id(insn.imm)
    if not name:
        env.refuse("kfunc_unknown", id=insn.imm & 0xFFFFFFFF)
    if name.startswith("bpf_xdp_metadata_"):
        env.refuse("kfunc_device")
    return KFUNCS.get(name) or Kfunc(name, Param("void"), (), -1)


def _by_id(id: int) -> str:
    try:
        btf = kernel_btf()
    except NotSupported:
        return ""
    row = btf[id] if 0 < id < len(btf) else None
    return row.name if row is not None and row.kind is Kind.FUNC else ""


def call_kfunc(env: Env, ins: Ins) -> int:
    """call a function of the kernel's."""
    kfunc: Kfunc = ins.row
    name = kfunc.name
    if env.cur.locks and name not in _WHILE_LOCKED:
        env.refuse("call_while_locked")
    if env.type.name not in kfunc.progs or kfunc.since > env.kernel:
        env.refuse("kfunc_missing", name=name)
    if kfunc.has("SLEEPABLE") and not env.cur.sleepable:
        env.refuse("kfunc_sleepable", name=name)
    env.aux[ins.pc].kfunc = name
    meta = check_arguments(env, kfunc)
    _critical_sections(env, name)
    regs = env.frame.regs
    if name == "bpf_rbtree_add_impl":
        push_callback(env, meta.func, name, root=meta.field)
    if name == "bpf_wq_set_callback_impl":
        push_async_callback(env, meta.func, sleepable=True)
    if name in graph.INSERTS:
        graph.give_away(env, regs[2].ref)
    if meta.release and not release(env, regs[meta.release].ref):
        env.refuse("not_acquired", name=name, id=ins.imm)
    if name == TRAP:
        env.refuse("kfunc_trap")
    if name == THROW:
        if not any(sub.is_exception for sub in env.subprogs):
            check_return(env, 1)  # what is thrown is what the program returns
        check_nothing_held(env, THROW, ends=True)
        check_end(env)
        return PATH_END
    for i in range(6):
        regs[i] = NO_REG
    regs[0] = _result(env, kfunc, meta)
    if name == "bpf_xdp_pull_data":
        forget_packet(env)
        env.writes_packet = True
    if kfunc.has("ITER_NEXT"):
        assert meta.iterator is not None
        follow_next(env, meta.iterator, ins.pc)
    return ins.next


def _critical_sections(env: Env, name: str) -> None:
    """RCU read sections do not nest, those without preemption do; both must be left."""
    state = env.cur
    if name == "bpf_rcu_read_lock":
        if state.rcu_locks:
            env.refuse("rcu_nested", name=name)
        state.rcu_locks = 1
    elif name == "bpf_rcu_read_unlock":
        if not state.rcu_locks:
            env.refuse("rcu_unmatched", name=name)
        state.rcu_locks = 0
        replace_registers(state, _distrust)
        for frame in state.frames:
            frame.stack = [
                Slot(slot.kinds, _distrust(slot.reg)) if slot.kinds[7] == "i" and slot.reg is not None else slot
                for slot in frame.stack
            ]
    elif name == "bpf_preempt_disable":
        state.preempt_locks += 1
    elif name == "bpf_preempt_enable":
        if not state.preempt_locks:
            env.refuse("preempt_unmatched", name=name)
        state.preempt_locks -= 1


def _distrust(reg: Reg) -> Reg:
    """Return what a pointer is after the RCU read section that protected it."""
    return reg.with_type(reg.type & ~(RCU | MAYBE_NULL) | UNTRUSTED) if reg.type & RCU else reg


# --- the result --------------------------------------------------------------------------------------------------------


def _result(env: Env, kfunc: Kfunc, meta: Meta) -> Reg:
    """Return what r0 is after the call."""
    ret = kfunc.ret
    if not ret.pointer:
        return NO_REG if ret.type == "void" else UNKNOWN_REG
    special = _RESULTS.get(kfunc.name)
    if special is not None:
        reg = special(env, meta)
    elif ret.target == "void":
        reg = UNKNOWN_REG
    elif ret.target.startswith("struct "):
        reg = Reg(BTF_ID | _trust(env, kfunc, meta), ZERO, extra=ret.target.removeprefix("struct "))
    else:
        reg = Reg(MEM | RDONLY, ZERO, ref=meta.ref, extra=memory_size(ret.target))
    nullable = kfunc.has("RET_NULL") and not (kfunc.name == "bpf_refcount_acquire_impl" and meta.owning)
    id, ref, type = env.new_id() if nullable else 0, reg.ref, reg.type | (MAYBE_NULL if nullable else 0)
    if kfunc.has("ACQUIRE"):
        ref = acquire(env)
        id = ref if nullable else id
    record = graph.record_at(reg)
    if not id and record is not None and record.has("bpf_spin_lock"):
        id = env.new_id()
    made = Reg(type, reg.val, reg.off, id, ref, reg.extra, reg.uid)
    return graph.borrowed(made) if kfunc.name in graph.BORROWS else made


def _trust(env: Env, kfunc: Kfunc, meta: Meta) -> int:
    """Return how far a pointer that an iterator gave is trusted."""
    if not kfunc.has("ITER_NEXT"):
        return 0
    assert meta.iterator is not None
    return RCU if iterator_at(env.cur, meta.iterator).type & RCU else TRUSTED


def _kernel_context(env: Env, meta: Meta) -> Reg:
    return Reg(BTF_ID | TRUSTED, ZERO, extra=_KERNEL_CONTEXTS[env.type.context])


def _cast(env: Env, meta: Meta) -> Reg:
    btf, id = kernel_btf(), meta.constant or 0
    row = btf.resolve(id) if id < len(btf) else None
    if row is not None and row.kind is Kind.STRUCT:
        return Reg(BTF_ID | UNTRUSTED, ZERO, extra=row.name or f"#{row.id}")
    if row is not None and row.kind is Kind.VOID:
        return Reg(MEM | RDONLY | UNTRUSTED, ZERO, extra=0)
    env.refuse("kfunc_cast")


def _slice(env: Env, meta: Meta) -> Reg:
    assert meta.dynptr is not None
    type = MEM | _SLICES.get(meta.dynptr.dynptr.kind, DYNPTR_LOCAL)
    if meta.kfunc.name == "bpf_dynptr_slice":
        type |= RDONLY
    else:
        env.writes_packet = True
        if not env.type.direct_write:
            env.refuse("kfunc_packet_write")
    return Reg(type, ZERO, extra=meta.constant, uid=meta.dynptr.id)


def _new(env: Env, meta: Meta) -> Reg:
    return graph.allocated(env, meta.constant, meta.kfunc.name == "bpf_percpu_obj_new_impl")


def _counted(env: Env, meta: Meta) -> Reg:
    return Reg(BTF_ID | ALLOC, ZERO, extra=meta.allocated)


def _element(env: Env, meta: Meta) -> Reg:
    return graph.element(env, meta.field)


_RESULTS: Final = {
    "bpf_obj_new_impl": _new,
    "bpf_percpu_obj_new_impl": _new,
    "bpf_refcount_acquire_impl": _counted,
    **dict.fromkeys((*graph.BORROWS, *graph.TAKES), _element),
    "bpf_cast_to_kern_ctx": _kernel_context,
    "bpf_rdonly_cast": _cast,
    "bpf_dynptr_slice": _slice,
    "bpf_dynptr_slice_rdwr": _slice,
}

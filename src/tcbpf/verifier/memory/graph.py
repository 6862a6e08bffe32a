"""Objects that programs allocate, and the lists and trees that they are put into.

Who allocated an object or took it out of a list or tree owns it, and must give it away or free it. What was put in may still be
used through the same pointer while the lock is held: it is then a borrowed (non-owning) one.

Source:  the KF_ARG_PTR_TO_* cases of check_kfunc_args(), __process_kf_arg_ptr_to_graph_root(), ..._node(),
         ref_convert_owning_non_owning(), kernel/bpf/verifier.c; btf_struct_access(), kernel/bpf/btf.c (v6.18).
"""

from __future__ import annotations

from typing import Final

from tcbpf.obj.btf import Kind
from tcbpf.tables.insns import Kind as InsnKind
from tcbpf.verifier.memory.invalidate import replace_registers
from tcbpf.verifier.memory.references import drop_reference
from tcbpf.verifier.memory.structs import read_struct
from tcbpf.verifier.state.btf_record import BtfField, ProgramType, Record
from tcbpf.verifier.state.env import Env
from tcbpf.verifier.state.state import UNKNOWN_REG, ZERO, Reg
from tcbpf.verifier.values.types import ALLOC, BASE, BTF_ID, MAP_VALUE, NON_OWN_REF, PERCPU, RCU
from tcbpf.verifier.words.format import var_text
from tcbpf.verifier.words.reasons import kernel_words

OWNER: Final = "allocated objects"  # whose locks they are, as a map is for those in its values
INSERTS: Final = frozenset(("bpf_list_push_front_impl", "bpf_list_push_back_impl", "bpf_rbtree_add_impl"))
BORROWS: Final = frozenset(
    (
        "bpf_list_front",
        "bpf_list_back",
        "bpf_rbtree_first",
        "bpf_rbtree_root",
        "bpf_rbtree_left",
        "bpf_rbtree_right",
    )
)
TAKES: Final = frozenset(("bpf_list_pop_front", "bpf_list_pop_back", "bpf_rbtree_remove"))
_MAX_PERCPU: Final = 512


def record_at(reg: Reg) -> Record | None:
    """Return the special fields of what a pointer to a map value or to an allocated object points to."""
    if reg.type & BASE == MAP_VALUE:
        map = reg.map
        return map.record
    return reg.btf_type.record if isinstance(reg.btf_type, ProgramType) else None


def allocated(env: Env, id: int | None, percpu: bool) -> Reg:
    """Return a pointer to a new object of the program's type `id`.

    Raises:  Refused.
    """
    if id is None or not 0 <= id < 1 << 32:
        env.refuse("alloc_range")
    btf = env.program.btf
    if btf is None or not env.has_func_info:
        env.refuse("alloc_btf")
    row = btf[id] if id < len(btf) else None
    if row is None or row.kind is not Kind.STRUCT:
        env.refuse("alloc_struct")
    local = ProgramType(btf, id, row.name, row.size)
    if percpu:
        if row.size > _MAX_PERCPU:
            env.refuse("alloc_percpu_size", size=row.size, most=_MAX_PERCPU)
        if local.record is not None:
            env.refuse("alloc_percpu_fields")
    return Reg(BTF_ID | ALLOC | (PERCPU if percpu else 0), ZERO, extra=local)


def access(env: Env, regno: int, reg: Reg, off: int, size: int) -> Reg:
    """Check an access to an allocated object's own data, and return what a load gives.

    Units:   off includes the pointer's fixed part.
    Raises:  Refused.
    """
    local: ProgramType = reg.btf_type
    if off < 0:
        env.refuse("btf_negative", reg=regno, type=local.name, off=off)
    if reg.val.mask or reg.val.value:
        env.refuse("btf_variable", reg=regno, type=local.name, off=off, var=var_text(reg.val))
    for field in local.record.fields if local.record is not None else ():
        if off < field.off + field.size and field.off < off + size:
            env.refuse("special_field_direct", field=field.kind)
    read_struct(env, local.btf, local.btf[local.id], off, size)
    return UNKNOWN_REG


# --- roots and nodes -----------------------------------------------------------------------------------------------------


def check_root(env: Env, regno: int, reg: Reg, kind: str) -> BtfField:
    """Return the list head or tree root that a register points to, whose lock is held.

    Raises:  Refused.
    """
    arg = regno - 1
    if reg.type not in (MAP_VALUE, BTF_ID | ALLOC):
        env.refuse("graph_root", arg=arg)
    if reg.type != MAP_VALUE and not reg.ref:
        env.refuse("kfunc_allocated_reference")
    field = _field_at(env, regno, reg, kind)
    lock = _lock_of(record_at(reg))
    missing = kernel_words("graph_lock", off=lock.off if lock else -1, field=kind)
    state = env.cur
    owner = reg.map if reg.type == MAP_VALUE else OWNER
    if state.locks and not (state.lock_owner is owner and state.lock_id == reg.id):
        env.refuse("graph_other_lock", more=missing)
    if not state.locks:
        env.refuse("graph_lock", off=lock.off if lock else -1, field=kind)
    return field


def _lock_of(record: Record | None) -> BtfField | None:
    return (record.find("bpf_spin_lock") or record.find("bpf_res_spin_lock")) if record is not None else None


def _field_at(env: Env, regno: int, reg: Reg, kind: str) -> BtfField:
    if reg.val.mask:
        env.refuse("lock_offset", reg=regno, field=kind)
    at, record = reg.off + reg.val.smin, record_at(reg)
    field = next((f for f in record.fields if f.off == at and f.kind == kind), None) if record is not None else None
    if field is None:
        env.refuse("graph_field", field=kind, off=at)
    return field


def check_node(env: Env, regno: int, reg: Reg, kind: str, root: BtfField, name: str) -> ProgramType:
    """Check the node that goes into a list or tree, or comes out of it, and return the type of its object.

    Raises:  Refused.
    """
    arg = regno - 1
    if name in INSERTS:
        if reg.type != BTF_ID | ALLOC:
            env.refuse("kfunc_allocated", arg=arg)
        if not reg.ref:
            env.refuse("kfunc_allocated_reference")
    else:
        if not reg.type & NON_OWN_REF and not reg.ref:
            env.refuse("graph_borrowed", name=name)
        if in_tree_callback(env):
            env.refuse("graph_callback", name=name)
    node = _field_at(env, regno, reg, kind)
    held: ProgramType = reg.btf_type
    wanted = ProgramType.of(held.btf, root.value)
    if held.id != root.value:
        env.refuse("graph_type", root=root.kind, node=kind, off=root.node, type=wanted.name, at=node.off, held=held.name)
    if node.off != root.node:
        env.refuse("graph_offset", at=node.off, node=kind, off=root.node, type=wanted.name)
    return held


def in_tree_callback(env: Env) -> bool:
    """Tell whether the current function is the one that orders a tree's nodes."""
    frame = env.frame
    if not frame.in_callback:
        return False
    call = env.ins[frame.callsite]
    return call.kind is InsnKind.CALL_KFUNC and call.row.name == "bpf_rbtree_add_impl"


def give_away(env: Env, ref: int) -> None:
    """An object went into a list or tree: every pointer to it is from now on a borrowed one."""
    replace_registers(
        env.cur, lambda reg: borrowed(Reg(reg.type, reg.val, reg.off, reg.id, 0, reg.extra, reg.uid)) if reg.ref == ref else reg
    )
    drop_reference(env.cur, ref)


def borrowed(reg: Reg) -> Reg:
    """Return the same pointer as one that is valid while the lock is held."""
    record = record_at(reg)
    counted = record is not None and record.has("bpf_refcount")
    return reg.with_type(reg.type | NON_OWN_REF | (RCU if counted else 0))


def element(env: Env, root: BtfField) -> Reg:
    """Return a pointer to the node of an object in a list or tree."""
    btf = env.program.btf
    assert btf is not None
    return Reg(BTF_ID | ALLOC, ZERO, root.node, extra=ProgramType.of(btf, root.value))

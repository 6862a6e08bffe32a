"""The kernel's own structures, as its BTF describes them: what a load at an offset of one gives.

A structure is named by its C name, one without a name by "#" and its number in the kernel's BTF.

Source:  btf_struct_walk(), btf_struct_access(), kernel/bpf/btf.c; check_ptr_to_btf_access(), check_ptr_to_map_access(),
         kernel/bpf/verifier.c (v6.18).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from tcbpf.obj.btf import Btf, Kind, Member, Type
from tcbpf.obj.btf_index import kernel_btf
from tcbpf.verifier.state.env import Env
from tcbpf.verifier.state.state import UNKNOWN_REG, ZERO, Reg
from tcbpf.verifier.values.types import BTF_ID, MAYBE_NULL, MEM, PERCPU, RCU, RDONLY, TRUSTED, UNTRUSTED, USER
from tcbpf.verifier.words.format import var_text

_TAGS: Final = {"user": USER, "percpu": PERCPU, "rcu": RCU}
_RECORDS: Final = (Kind.STRUCT, Kind.UNION)


class Found(NamedTuple):
    """What lies at an offset: "scalar", "pointer" to the structure `target`, "memory" that nothing is known of."""

    kind: str
    target: str = ""
    flags: int = 0
    field: str = ""


def kernel_struct(name: str) -> Type:
    """Return a structure of the running kernel.

    Raises:  NotSupported when the kernel shows no BTF; KeyError when it has no such structure.
    """
    btf = kernel_btf()
    row = btf[int(name[1:])] if name.startswith("#") else btf.find(name, *_RECORDS)
    if row is None:
        raise KeyError(name)
    return row


def same_struct(held: str, off: int, wanted: str, *, strict: bool) -> bool:
    """Tell whether a pointer into structure `held` also points to a `wanted`: itself, or a part that lies right there."""
    if held == wanted and not off:
        return True
    if strict:
        return False
    btf = kernel_btf()
    try:
        row = kernel_struct(held)
    except KeyError:
        return False
    while row.kind in _RECORDS:
        part = next((m for m in row.members if m.offset // 8 <= off < m.offset // 8 + btf.sizeof(m.type)), None)
        if part is None:
            return False
        row, off = btf.resolve(part.type), off - part.offset // 8
        while row.kind is Kind.ARRAY:
            off %= btf.sizeof(row.type)
            row = btf.resolve(row.type)
        if row.name == wanted and not off:
            return True
    return False


def read_struct(env: Env, btf: Btf, row: Type, off: int, size: int) -> Found:
    """Return what a load of `size` bytes at `off` of a structure gives.

    Raises:  Refused.
    """
    flags = 0
    while True:
        if row.kind is Kind.UNION and len(row.members) != 1:
            flags |= UNTRUSTED
        if off + size > row.size:
            inner = _flexible(btf, row, off)
            if inner is None:
                env.refuse("btf_access", type=row.name, off=off, size=size)
            element, start = inner
            if element.kind is Kind.INT:
                return Found("scalar")
            row, off = element, (off - start) % element.size
            continue
        found = _member(env, btf, row, off, size)
        if isinstance(found, Found):
            return found._replace(flags=found.flags if found.kind == "memory" else found.flags | flags)
        row, off = found


def _flexible(btf: Btf, row: Type, off: int) -> tuple[Type, int] | None:
    """Return the element type and the start of a trailing array without a length, when `off` lies in it."""
    if not row.members:
        return None
    last = row.members[-1]
    array = btf.resolve(last.type)
    if array.kind is not Kind.ARRAY or array.nelems or off < last.offset // 8:
        return None
    element = btf.resolve(array.type)
    return (element, last.offset // 8) if element.kind in (Kind.INT, *_RECORDS) else None


def _member(env: Env, btf: Btf, row: Type, off: int, size: int) -> Found | tuple[Type, int]:
    """Return what lies at an offset, or the structure inside to look in and the offset there."""
    for member in row.members:
        start = member.offset // 8
        if off + size <= start:
            break
        if member.bits:
            if off <= start and (member.offset + member.bits + 7) // 8 <= off + size:
                return Found("scalar")
            continue
        if off < start:
            break
        length = btf.sizeof(member.type)
        end = start + length
        if off >= end:
            continue
        kind = btf.resolve(member.type)
        if kind.kind is Kind.ARRAY:
            kind, length = _element(btf, kind)
            start += (off - start) // length * length
        if kind.kind in _RECORDS:
            return kind, off - start
        if kind.kind is Kind.PTR:
            if size != 8 or off != start:
                env.refuse("btf_pointer_member", member=member.name, start=start, type=row.name, off=off, size=size)
            return _pointer(btf, kind, member)
        if off + size > end:
            env.refuse("btf_member_end", member=member.name, end=end, type=row.name, off=off, size=size)
        return Found("scalar")
    env.refuse("btf_hole", type=row.name, off=off)


def _element(btf: Btf, row: Type) -> tuple[Type, int]:
    """Return the innermost element type of an array, and its size."""
    while row.kind is Kind.ARRAY:
        id = row.type
        row = btf.resolve(id)
    return row, btf.sizeof(id)


def _pointer(btf: Btf, row: Type, member: Member) -> Found:
    tag = btf[row.type]
    flags = _TAGS.get(tag.name, 0) if tag.kind is Kind.TYPE_TAG and not tag.flag else 0
    target = btf.resolve(row.type)
    if target.kind in _RECORDS:
        return Found("pointer", target.name or f"#{target.id}", flags, member.name)
    return Found("memory")


def read_kernel(env: Env, regno: int, reg: Reg, off: int, size: int) -> Reg:
    """Check a load of a field of a kernel structure and return what it gives.

    Raises:  Refused.
    """
    name, type = str(reg.btf_type), reg.type
    if not env.allow_leaks:
        env.refuse("btf_privilege", type=name)
    if not env.gpl:
        env.refuse("btf_gpl", type=name)
    if off < 0:
        env.refuse("btf_negative", reg=regno, type=name, off=off)
    if reg.val.mask or reg.val.value:
        env.refuse("btf_variable", reg=regno, type=name, off=off, var=var_text(reg.val))
    for flag, word in ((USER, "user"), (PERCPU, "percpu")):
        if type & flag:
            env.refuse("btf_foreign", reg=regno, type=name, what=word, off=off)
    found = read_struct(env, kernel_btf(), kernel_struct(name), off, size)
    env.kernel_only.add(f"it reads the kernel's struct {name}")
    if found.kind == "pointer":
        if type & (UNTRUSTED | TRUSTED | RCU) or reg.ref:
            found = found._replace(flags=_trust(env, reg, found))
        else:
            found = found._replace(flags=found.flags & ~(TRUSTED | UNTRUSTED | RCU))
    return _loaded(env, found)


def write_kernel(env: Env, reg: Reg, off: int) -> None:
    """Refuse a store to a kernel structure; the mark of a connection is the one field that could be written.

    Raises:  Refused.
    """
    if str(reg.btf_type) in ("nf_conn", "nf_conn___init") and env.type.name in ("sched_cls", "sched_act", "xdp"):
        mark = next((m for m in kernel_struct("nf_conn").members if m.name == "mark"), None)
        if mark is None or mark.offset // 8 != off:
            env.refuse("btf_write_field", off=off)
        env.kernel_only.add("it writes the kernel's struct nf_conn")
        return
    env.refuse("btf_write")


def _trust(env: Env, reg: Reg, found: Found) -> int:
    """Return the flags of a pointer read through one that is trusted, or that is not."""
    if reg.type & UNTRUSTED:
        return UNTRUSTED
    if (str(reg.btf_type), found.field) in _TRUSTED_FIELDS:
        return found.flags | TRUSTED
    if (str(reg.btf_type), found.field) in _TRUSTED_OR_NULL_FIELDS:
        return found.flags | TRUSTED | MAYBE_NULL
    if (env.cur.sleepable and not env.cur.rcu_locks) or reg.type & MAYBE_NULL:
        return UNTRUSTED
    key = (str(reg.btf_type), found.field)
    if key in _RCU_FIELDS:
        return found.flags | RCU
    if found.flags & RCU or key in _RCU_OR_NULL_FIELDS:
        flags = found.flags | RCU | MAYBE_NULL
        return flags & ~UNTRUSTED if key in _RCU_OR_NULL_FIELDS else flags
    return found.flags if found.flags & (PERCPU | USER) else found.flags & ~(TRUSTED | UNTRUSTED | RCU)


_TRUSTED_FIELDS: Final = frozenset(
    (
        ("bpf_iter_meta", "seq"),
        ("bpf_iter__task", "meta"),
        ("linux_binprm", "file"),
        ("file", "f_inode"),
        ("dentry", "d_inode"),
        ("socket", "sk"),
    )
)
_TRUSTED_OR_NULL_FIELDS: Final = frozenset((("vm_area_struct", "vm_file"),))
_RCU_FIELDS: Final = frozenset(
    (
        ("task_struct", "cpus_ptr"),
        ("task_struct", "real_parent"),
        ("task_struct", "group_leader"),
        ("css_set", "dfl_cgrp"),
        ("cgroup", "kn"),
    )
)
_RCU_OR_NULL_FIELDS: Final = frozenset((("mm_struct", "exe_file"), ("sk_buff", "sk"), ("request_sock", "sk")))
"""Fields that the kernel trusts: BTF_TYPE_SAFE_*, kernel/bpf/verifier.c."""


def _loaded(env: Env, found: Found) -> Reg:
    if found.kind == "scalar":
        return UNKNOWN_REG
    if found.kind == "memory":
        return Reg(MEM | RDONLY | UNTRUSTED, ZERO, extra=0)
    return Reg(BTF_ID | found.flags, ZERO, id=env.new_id() if found.flags & MAYBE_NULL else 0, extra=found.target)


MAP_STRUCTS: Final = {
    **dict.fromkeys(("array", "percpu_array", "prog_array", "perf_event_array", "array_of_maps", "cgroup_array"), "bpf_array"),
    **dict.fromkeys(("hash", "percpu_hash", "lru_hash", "lru_percpu_hash", "hash_of_maps"), "bpf_htab"),
    **dict.fromkeys(("devmap", "devmap_hash"), "bpf_dtab"),
    "cpumap": "bpf_cpu_map",
    "xskmap": "xsk_map",
    "sockmap": "bpf_stab",
    "sockhash": "bpf_shtab",
    "lpm_trie": "lpm_trie",
    "ringbuf": "bpf_ringbuf_map",
    "user_ringbuf": "bpf_ringbuf_map",
    "queue": "bpf_queue_stack",
    "stack": "bpf_queue_stack",
    "bloom_filter": "bpf_bloom_filter",
    "sk_storage": "bpf_local_storage_map",
    "task_storage": "bpf_local_storage_map",
    "inode_storage": "bpf_local_storage_map",
    "cgrp_storage": "bpf_local_storage_map",
    "stack_trace": "bpf_stack_map",
    "reuseport_sockarray": "reuseport_array",
    "cgroup_storage": "bpf_cgroup_storage_map",
    "percpu_cgroup_storage": "bpf_cgroup_storage_map",
}


def read_map_struct(env: Env, regno: int, map_type: str, number: int, off: int, size: int, *, write: bool) -> Reg:
    """Check a load of the kernel's own structure of a map through a map pointer, and return what it gives.

    Raises:  Refused.
    """
    name = MAP_STRUCTS.get(map_type)
    if name is None:
        env.refuse("map_ptr_access", type=number)
    if not env.allow_leaks:
        env.refuse("btf_privilege", type=name)
    if off < 0:
        env.refuse("map_ptr_negative", reg=regno, type=name, off=off)
    if write:
        env.refuse("map_ptr_write", type=name)
    found = read_struct(env, kernel_btf(), kernel_struct(name), off, size)
    env.kernel_only.add(f"it reads the kernel's struct {name}")
    return _loaded(env, found)

"""Special fields of a map value that programs must not read or write as data: locks, timers, kernel pointers and the like.

Source:  btf_find_field(), btf_parse_fields(), kernel/bpf/btf.c (v6.18).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tcbpf.errors import ObjectError
from tcbpf.obj.btf import Btf, Kind, Member
from tcbpf.obj.program import MapSpec

SIZES: Final = {
    "bpf_spin_lock": 4, "bpf_res_spin_lock": 4, "bpf_timer": 16, "bpf_wq": 16, "bpf_task_work": 8, "bpf_list_head": 16,
    "bpf_list_node": 24, "bpf_rb_root": 16, "bpf_rb_node": 32, "bpf_refcount": 4,
}
KPTRS: Final = {"kptr_untrusted": "kptr", "kptr": "kptr", "percpu_kptr": "percpu_kptr"}
MAX_NESTING: Final = 16


@dataclass(frozen=True, slots=True)
class Special:
    """One special field; `kind` is the structure's name, or "kptr" and "percpu_kptr"; `target` what a kptr points to.

    Units:   off and size in bytes.
    """

    kind: str
    off: int
    size: int
    target: str = ""
    referenced: bool = False
    local: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    """The special fields of a map value, in order of offset."""

    fields: tuple[Special, ...]

    def has(self, kind: str) -> bool:
        """Tell whether there is a field of that kind."""
        return any(field.kind == kind for field in self.fields)

    def find(self, kind: str) -> Special | None:
        """Return the (only) field of that kind."""
        return next((field for field in self.fields if field.kind == kind), None)


def record_of(spec: MapSpec) -> Record | None:
    """Return the special fields of a map's value as its BTF describes it, None when there are none."""
    if spec.btf is None or not spec.value_type:
        return None
    try:
        fields = tuple(sorted(_fields(spec.btf, spec.value_type, 0, 0), key=lambda field: field.off))
    except ObjectError:
        return None
    return Record(fields) if fields else None


def _fields(btf: Btf, id: int, base: int, depth: int) -> list[Special]:
    row = btf.resolve(id)
    if depth > MAX_NESTING:
        return []
    if row.kind is Kind.ARRAY:
        size = btf.sizeof(row.type)
        return [f for i in range(min(row.nelems, 256)) for f in _fields(btf, row.type, base + i * size, depth + 1)]
    if row.kind is Kind.DATASEC:
        return [f for var in row.members for f in _fields(btf, btf[var.type].type, base + var.offset, depth + 1)]
    if row.kind is Kind.PTR:
        return _pointer(btf, row.type, base)
    if row.kind is not Kind.STRUCT:
        return []
    if row.name in SIZES:
        return [Special(row.name, base, SIZES[row.name])]
    return [field for member in row.members for field in _member(btf, member, base, depth)]


def _member(btf: Btf, member: Member, base: int, depth: int) -> list[Special]:
    if member.bits:
        return []
    return _fields(btf, member.type, base + member.offset // 8, depth + 1)


def _pointer(btf: Btf, id: int, off: int) -> list[Special]:
    """Return the kptr that a pointer with one of the kernel pointer tags is."""
    tag = btf[id] if id else None
    if tag is None or tag.kind is not Kind.TYPE_TAG or tag.name not in KPTRS:
        return []
    target = btf.resolve(tag.type)
    return [Special(KPTRS[tag.name], off, 8, target.name, referenced=tag.name != "kptr_untrusted", local=False)]

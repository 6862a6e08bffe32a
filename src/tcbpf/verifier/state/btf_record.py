"""Special fields of a map value that programs must not read or write as data: locks, timers, kernel pointers and the like.

Source:  btf_find_field(), btf_parse_fields(), kernel/bpf/btf.c (v6.18).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from tcbpf.errors import NotSupported, ObjectError
from tcbpf.obj.btf import Btf, Kind, Type
from tcbpf.obj.btf_index import kernel_btf
from tcbpf.obj.program import MapSpec

SIZES: Final = {
    "bpf_spin_lock": 4,
    "bpf_res_spin_lock": 4,
    "bpf_timer": 16,
    "bpf_wq": 16,
    "bpf_task_work": 8,
    "bpf_list_head": 16,
    "bpf_list_node": 24,
    "bpf_rb_root": 16,
    "bpf_rb_node": 32,
    "bpf_refcount": 4,
}
KPTRS: Final = {"kptr_untrusted": "kptr", "kptr": "kptr", "percpu_kptr": "percpu_kptr"}
ROOTS: Final = frozenset(("bpf_list_head", "bpf_rb_root"))
LOCKS: Final = frozenset(("bpf_spin_lock", "bpf_res_spin_lock"))
CONTAINS: Final = "contains:"
MAX_NESTING: Final = 16


@dataclass(frozen=True)
class ProgramType:
    """A structure that the program declares, of which it may allocate objects."""

    btf: Btf = field(compare=False, repr=False)
    id: int
    name: str
    size: int

    @classmethod
    def of(cls, btf: Btf, id: int) -> ProgramType:
        """Return the structure of that number."""
        row = btf[id]
        return cls(btf, id, row.name, row.size)

    @cached_property
    def record(self) -> Record | None:
        """The structure's special fields, None without any."""
        return _record(self.btf, self.id)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class BtfField:
    """One special field; `kind` is the structure's name, or "kptr" and "percpu_kptr".

    `target` is what a kptr points to: the name of a kernel structure, or one of the program's own. For a list head or tree
    root `value` is the number of the structure it holds, and `node` where in it the node lies.

    Units:   off, size and node in bytes.
    """

    kind: str
    off: int
    size: int
    target: str | ProgramType = ""
    referenced: bool = False
    value: int = 0
    node: int = 0

    @property
    def is_kptr(self) -> bool:
        """Tell whether it is a kernel pointer."""
        return self.kind in KPTRS.values()


@dataclass(frozen=True, slots=True)
class Record:
    """The special fields of a map value, in order of offset."""

    fields: tuple[BtfField, ...]

    def has(self, kind: str) -> bool:
        """Tell whether there is a field of that kind."""
        return any(field.kind == kind for field in self.fields)

    def find(self, kind: str) -> BtfField | None:
        """Return the (only) field of that kind."""
        return next((field for field in self.fields if field.kind == kind), None)


def record_of(spec: MapSpec) -> Record | None:
    """Return the special fields of a map's value as its BTF describes it, None when there are none or one is amiss."""
    return _record(spec.btf, spec.value_type) if spec.btf is not None and spec.value_type else None


def _record(btf: Btf, id: int) -> Record | None:
    try:
        fields = tuple(sorted(_fields(btf, id, 0, 0), key=lambda field: field.off))
    except ObjectError:
        return None
    record = Record(fields)
    if any(map(record.has, ROOTS)) and not any(map(record.has, LOCKS)):
        return None
    return record if fields else None


def _fields(btf: Btf, id: int, base: int, depth: int, contains: str = "") -> list[BtfField]:
    """Return the special fields of a type that lies at `base`; `contains` is the tag of the member that has it."""
    row = btf.resolve(id)
    if depth > MAX_NESTING:
        return []
    if row.kind is Kind.ARRAY:
        size = btf.sizeof(row.type)
        return [f for i in range(min(row.nelems, 256)) for f in _fields(btf, row.type, base + i * size, depth + 1, contains)]
    if row.kind is Kind.DATASEC:
        return [
            f
            for var in row.members
            for f in _fields(btf, btf[var.type].type, base + var.offset, depth + 1, _contains(btf, var.type, -1))
        ]
    if row.kind is Kind.PTR:
        return _pointer(btf, row.type, base)
    if row.kind is not Kind.STRUCT:
        return []
    if row.name in SIZES:
        return [_root(btf, row.name, base, contains) if row.name in ROOTS else BtfField(row.name, base, SIZES[row.name])]
    return [
        f
        for i, member in enumerate(row.members)
        if not member.bits
        for f in _fields(btf, member.type, base + member.offset // 8, depth + 1, _contains(btf, row.id, i))
    ]


def _contains(btf: Btf, id: int, component: int) -> str:
    """Return what the tag on a list head or tree root says that it holds: "STRUCT:MEMBER"."""
    tags = (tag for at, tag in btf.decl_tags(id) if at == component and tag.startswith(CONTAINS))
    return next(tags, "").removeprefix(CONTAINS)


def _root(btf: Btf, kind: str, off: int, contains: str) -> BtfField:
    struct, _, member = contains.partition(":")
    row = btf.find(struct, Kind.STRUCT) if struct else None
    node = next((m for m in row.members if m.name == member), None) if row is not None else None
    if row is None or node is None:
        raise ObjectError(f"{kind} does not say what it holds", section=".BTF")
    return BtfField(kind, off, SIZES[kind], value=row.id, node=node.offset // 8)


def _pointer(btf: Btf, id: int, off: int) -> list[BtfField]:
    """Return the kptr that a pointer with one of the kernel pointer tags is."""
    tag = btf[id] if id else None
    if tag is None or tag.kind is not Kind.TYPE_TAG or tag.name not in KPTRS:
        return []
    target = btf.resolve(tag.type)
    pointee = target.name if _is_kernels(target) else ProgramType(btf, target.id, target.name, target.size)
    return [BtfField(KPTRS[tag.name], off, 8, pointee, referenced=tag.name != "kptr_untrusted")]


def _is_kernels(row: Type) -> bool:
    """Tell whether a structure is the kernel's: the kernel looks among its own types first."""
    if row.kind is not Kind.STRUCT:
        return True
    try:
        return kernel_btf().find(row.name, Kind.STRUCT) is not None
    except NotSupported:
        return False

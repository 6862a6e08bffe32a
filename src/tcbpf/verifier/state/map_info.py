"""A map of the program as the checks see it.

Source:  struct bpf_map as kernel/bpf/verifier.c reads it (v6.18).
"""

from __future__ import annotations

from tcbpf.obj.program import MapSpec
from tcbpf.tables.maps import MAP_TYPES, RDONLY_PROG
from tcbpf.verifier.state.btf_record import Record


class MapInfo:
    """A map of the program as the checks see it. Two are the same map when they are the same object."""

    __slots__ = (
        "entries",
        "flags",
        "index",
        "inner",
        "key_size",
        "name",
        "number",
        "readonly",
        "record",
        "spec",
        "type",
        "value_size",
    )

    def __init__(self, spec: MapSpec, index: int, number: int, record: Record | None, inner: MapInfo | None) -> None:
        self.spec = spec
        self.index = index
        self.name = spec.name
        self.type = spec.type
        self.number = number
        self.key_size = spec.key_size
        self.value_size = spec.value_size
        self.entries = spec.max_entries
        row = MAP_TYPES.get(spec.type)
        self.flags = spec.flags | (row.added_flags if row is not None else 0)
        self.readonly = spec.frozen and bool(spec.flags & RDONLY_PROG)
        self.record = record
        self.inner = inner

    @property
    def direct(self) -> bool:
        """Tell whether LD_IMM64 may point into its (one) value."""
        return self.type == "array" and self.entries == 1

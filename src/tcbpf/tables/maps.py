"""The map types: what a specification may say and which operations exist, one row each.

Source:  include/uapi/linux/bpf.h; map_alloc_check() of each type (v6.12).
"""

from __future__ import annotations

from dataclasses import dataclass

from tcbpf.tables.row import Release, Table


@dataclass(frozen=True, slots=True)
class MapType:
    """One map type.

    Units:   sizes in bytes. key_size / value_size: None any positive size, a number exactly that, (low, high) a range.
    """

    name: str                                          # the UAPI's, lower case: "percpu_hash"
    number: int
    key_size: int | tuple[int, int] | None = None
    value_size: int | tuple[int, int] | None = None
    flags: int = 0                                     # creation flags accepted
    required_flags: int = 0                            # creation flags that must be set
    entries: str = "some"                              # "some" (> 0), "zero", "power_of_two_pages"
    per_cpu: bool = False
    values: str = "bytes"                              # what a value is: "bytes", "program", "map", "device", ...
    helpers: frozenset[str] = frozenset()              # helpers that take this map, by tables.helpers name
    delete: bool = False                               # user space may delete an element
    user: bool = False                                 # the user datapath has it
    since: Release = (99, 0)
    source: str = ""


MAP_TYPES: Table[MapType] = Table(name=lambda row: row.name, number=lambda row: row.number)

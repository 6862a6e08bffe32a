"""The sizes that C's plan of a map takes are those of the row in tables.maps; each rule from both of its sides."""

from __future__ import annotations

import ctypes
import errno
from itertools import product

import pytest

from tcbpf.native.library import function, struct
from tcbpf.tables.maps import MAP_TYPES, MapType

CPUS = 4
KMALLOC = 1 << 22
SIZES = (0, 1, 3, 4, 5, 8, 32, 259, 260, 261, 32760, 32768, 32769, KMALLOC - 1000, KMALLOC - 281, KMALLOC - 280, KMALLOC - 279)
LARGE = (KMALLOC - 54, KMALLOC - 53, KMALLOC - 52, KMALLOC - 50, KMALLOC - 49, KMALLOC - 48, KMALLOC, KMALLOC + 1)
LARGEST = ((1 << 31) - 1, 1 << 31)
ENTRIES = (0, 1, 3, 1000, 2048, 4096, 12288, 16384)


@pytest.mark.parametrize("row", [row for row in MAP_TYPES if row.user], ids=lambda row: row.name)
def test_the_plan_refuses_what_the_row_refuses(row: MapType) -> None:
    plan = function("tcbpf_map_plan", ctypes.c_int64, ctypes.c_void_p)
    taken = 0
    for key, value, entries in product((*SIZES, KMALLOC), SIZES + LARGE + LARGEST, ENTRIES):
        flags, hashes = row.required_flags, row.hashes
        shape = struct("tcbpf_shape")(row.number, key, value, entries, flags, CPUS, hashes=hashes)
        size, refusals = int(plan(ctypes.addressof(shape))), refused(row, key, value, entries)
        assert (-size in refusals) if refusals else size > 0, (key, value, entries, size, refusals)
        taken += not refusals
    assert taken


def refused(row: MapType, key: int, value: int, entries: int) -> set[int]:
    """Return the errnos of the row's rules that a specification breaks."""
    whole = -(-value // 8) * 8 if row.per_cpu else value  # a per-CPU value's limit is on its size in memory
    rules = outside(row, row.key_size, key) | outside(row, row.value_size, whole if value else 0)
    if value % row.value_multiple:
        rules.add(errno.EINVAL)
    if row.element_size and key + value > row.element_size:
        rules.add(getattr(errno, row.oversize))
    fine = {
        "some": entries > 0,
        "zero": entries == 0,
        "power_of_two_pages": entries > 0 and entries % 4096 == 0 and not entries & (entries - 1),
    }
    return rules if fine[row.entries] else rules | {errno.EINVAL}


def outside(row: MapType, rule: int | tuple[int, int] | None, size: int) -> set[int]:
    """Return the errno of a size that a rule does not allow."""
    low, high = rule if isinstance(rule, tuple) else (1, size) if rule is None else (rule, rule)
    if size > high and isinstance(rule, tuple):
        return {getattr(errno, row.oversize)}
    return set() if low <= size <= high else {errno.EINVAL}

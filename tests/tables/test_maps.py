"""The map rows, among themselves and against the live kernel."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

import tcbpf
from kernel_oracle import map_create, verdict
from tcbpf.isa.insn import Insn
from tcbpf.obj.program import MapSpec
from tcbpf.tables.helpers import HELPERS, ArgType, Helper
from tcbpf.tables.maps import FLAG_NAMES, MAP_TYPES, NO_PREALLOC, MapType
from tcbpf.tables.progs import PROG_TYPES

CREATABLE = [row.name for row in MAP_TYPES if not row.needs_btf]


def plain(size: int | tuple[int, int] | None, multiple: int = 1) -> int:
    """Return a size that the row allows, 8 where there is a choice."""
    if size is None:
        return 8
    return size if isinstance(size, int) else max(size[0], min(8, size[1] // multiple * multiple))


def entries(row: MapType) -> int:
    return {"some": 1, "zero": 0, "one": 1, "power_of_two_pages": 4096}[row.entries]


def create(
    row: MapType, *, key: int | None = None, value: int | None = None, count: int | None = None, flags: int | None = None
) -> int:
    """Create a map of this row with one thing changed; return 0 or the errno."""
    fd, error = open_map(row, key=key, value=value, count=count, flags=flags)
    if fd >= 0:
        os.close(fd)
    return error


def open_map(
    row: MapType, *, key: int | None = None, value: int | None = None, count: int | None = None, flags: int | None = None
) -> tuple[int, int]:
    inner = map_create(2, 4, 4, 1)[0] if row.values == "map" else 0
    try:
        return map_create(
            row.number,
            plain(row.key_size) if key is None else key,
            plain(row.value_size, row.value_multiple) if value is None else value,
            entries(row) if count is None else count,
            row.required_flags if flags is None else flags,
            inner,
        )
    finally:
        if inner:
            os.close(inner)


def sizes(rule: int | tuple[int, int] | None, multiple: int) -> dict[int, bool]:
    """Return sizes around the rule's edges, and whether the rule takes them."""
    low, high = (rule, rule) if isinstance(rule, int) else rule or (1, 64)
    return {n: low <= n <= high and n % multiple == 0 for n in {0, 1, low - 1, low, low + 1, min(high, 4096), 4, 8} if n >= 0}


def test_rows_are_complete() -> None:
    assert [row.number for row in MAP_TYPES] == list(range(1, len(MAP_TYPES) + 1))
    for row in MAP_TYPES:
        assert row.since < (7, 0) and row.source and row.required_flags & ~row.flags == 0
        assert row.helpers <= set(HELPERS.names())
        assert all(1 << bit in FLAG_NAMES for bit in range(32) if row.flags & 1 << bit)


def test_every_map_helper_has_a_map() -> None:
    taking = {row.name for row in HELPERS if any(arg.type is ArgType.CONST_MAP_PTR for arg in row.args)}
    assert {name for row in MAP_TYPES for name in row.helpers} == taking


def test_the_user_datapath_has_what_the_rows_say(tmp_path: Path) -> None:
    """It creates a map of exactly the types whose row has `user`."""
    inner = MapSpec("inner", "array", 4, 4, 1)
    made = set()
    with tcbpf.User(home=tmp_path) as dp:
        for row in MAP_TYPES:
            size = plain(row.value_size, row.value_multiple)
            try:
                dp.map_create(
                    MapSpec(
                        "m",
                        row.name,
                        plain(row.key_size),
                        size,
                        entries(row),
                        row.required_flags,
                        inner=inner if row.values == "map" else None,
                    )
                )
                made.add(row.name)
            except tcbpf.NotSupported:
                continue
            except tcbpf.MapError as error:
                assert row.needs_btf and "needs BTF" in str(error)
                made.add(row.name)
    assert made == {row.name for row in MAP_TYPES if row.user}


@pytest.mark.kernel(since=(6, 18))
@pytest.mark.parametrize("name", CREATABLE)
def test_creation_as_the_kernel_judges_it(name: str) -> None:
    """Key and value sizes, flags one by one, entries: the kernel takes what the row takes."""
    row = MAP_TYPES[name]
    assert create(row) == 0
    for size, fine in sizes(row.key_size, 8 if row.entries == "zero" else 1).items():
        assert (create(row, key=size) == 0) == fine, ("key", size)
    for size, fine in sizes(row.value_size, row.value_multiple).items():
        assert (create(row, value=size) == 0) == fine, ("value", size)
    for bit in range(20):
        if bit not in (15, 16):  # *_FD: the kernel looks for the descriptor first
            value = 32 if name == "stack_trace" else None  # a multiple of both a frame's sizes, 8 and 32 bytes
            assert (create(row, value=value, flags=row.required_flags | 1 << bit) == 0) == bool(row.flags & 1 << bit), bit
    if row.required_flags:
        assert create(row, flags=0) == errno.EINVAL
    if row.entries in ("some", "power_of_two_pages"):
        assert create(row, count=0) == errno.EINVAL
    if row.entries == "power_of_two_pages":
        assert create(row, count=4096 * 3) == errno.EINVAL and create(row, count=2048) == errno.EINVAL


@pytest.mark.kernel(since=(6, 18))
def test_largest_sizes() -> None:
    for row in (MAP_TYPES[name] for name in CREATABLE):
        wrong = getattr(errno, row.oversize)
        if row.element_size:
            at = row.element_size - 8
            if row.per_cpu or row.values == "map":
                size = plain(row.value_size)
                assert create(row, key=row.element_size - size, flags=row.flags & NO_PREALLOC) == 0, row.name
                assert create(row, key=row.element_size - size + 1) == wrong, row.name
            else:
                assert create(row, value=at, key=8, flags=row.flags & NO_PREALLOC) == 0, row.name
                assert create(row, value=at + 1, key=8) == wrong, row.name
        if isinstance(row.value_size, tuple) and row.name != "array":
            high = row.value_size[1]
            assert create(row, value=high) == 0 and create(row, value=high + row.value_multiple) == (
                wrong if row.value_multiple == 1 else errno.EINVAL
            ), row.name
        if isinstance(row.key_size, tuple):
            high = row.key_size[1]
            assert create(row, key=high) == 0, row.name
            if row.entries != "zero":
                assert create(row, key=high + 1) == wrong, row.name


def call(row: Helper, fd: int) -> list[Insn]:
    """Return a program that calls a helper with the map, and something of each other argument's shape."""
    insns = [Insn(0xBF, 6, 1)] + [Insn(0x7A, 10, 0, -off, 0) for off in range(8, 513, 8)]
    for reg, arg in enumerate(row.args, 1):
        if arg.type is ArgType.CTX:
            insns.append(Insn(0xBF, reg, 6))
        elif arg.type is ArgType.CONST_MAP_PTR:
            insns += [Insn(0x18, reg, 1, 0, fd), Insn(0)]
        elif arg.type in (ArgType.MAP_KEY, ArgType.MAP_VALUE, ArgType.MEM):
            insns += [Insn(0xBF, reg, 10), Insn(0x07, reg, 0, 0, -512)]
        elif arg.type in (ArgType.CONST_SIZE, ArgType.CONST_SIZE_OR_ZERO):
            insns.append(Insn(0xB7, reg, 0, 0, 16))
        else:
            insns.append(Insn(0xB7, reg, 0, 0, 0))
    return [*insns, Insn(0x85, 0, 0, 0, row.id), Insn(0xB7), Insn(0x95)]


MAP_WORDS = (
    "cannot pass map_type",
    "expected prog array map",
    "invalid arg_type for sockmap",
    "write into map forbidden",
    "invalid zero-sized read",
)


@pytest.mark.kernel(since=(6, 18))
@pytest.mark.parametrize("name", [name for name in CREATABLE if name != "arena"])
def test_which_helpers_take_the_map(name: str) -> None:
    """The kernel refuses the map to every helper that the row does not name, and to no other."""
    fd, _ = open_map(MAP_TYPES[name])
    hard = {ArgType.FUNC, ArgType.TIMER, ArgType.DYNPTR, ArgType.BTF_ID, ArgType.BTF_ID_SOCK_COMMON}
    try:
        for row in HELPERS:
            kinds = {arg.type for arg in row.args}
            if ArgType.CONST_MAP_PTR in kinds and not kinds & hard:
                _, log = verdict(call(row, fd), next(p for p in PROG_TYPES.names() if p in row.progs and p != "sched_act"))
                refused = any(words in log for words in MAP_WORDS) or (
                    row.name == "map_push_elem" and "R2 type=fp expected=sock_common" in log
                )
                assert refused == (row.name not in MAP_TYPES[name].helpers), (row.name, log.splitlines()[-3:])
    finally:
        os.close(fd)

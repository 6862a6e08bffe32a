"""The maps that generated programs may name."""

from __future__ import annotations

from generator.btf import types
from tcbpf.obj.program import MapSpec
from tcbpf.tables.maps import NO_PREALLOC, RDONLY_PROG, WRONLY_PROG

_BTF, _IDS = types()
TEXT = b"%d of %x\0"
"""A format that the read-only data begins with; a string that is none follows at 16."""
_CONTENTS = (TEXT.ljust(16, b"\0") + b"plain\0").ljust(56, b"\7") + b"\x20" + bytes(7)


def _typed(name: str, type: str, key: int, value: int, entries: int, struct: str, flags: int = 0) -> MapSpec:
    return MapSpec(name, type, key, value, entries, flags, btf=_BTF, key_type=_IDS["int"], value_type=_IDS[struct])


_ALL = (
    MapSpec("array", "array", 4, 48, 4),
    MapSpec("hash", "hash", 8, 64, 16),
    MapSpec("bss", "array", 4, 256, 1),
    MapSpec("rodata", "array", 4, 64, 1, RDONLY_PROG, contents=_CONTENTS, frozen=True),
    MapSpec("readable", "array", 4, 32, 1, RDONLY_PROG),
    MapSpec("writable", "array", 4, 32, 1, WRONLY_PROG),
    MapSpec("percpu", "percpu_array", 4, 32, 2),
    MapSpec("percpu_hash", "percpu_hash", 4, 24, 4),
    MapSpec("lru", "lru_hash", 4, 16, 8),
    MapSpec("trie", "lpm_trie", 8, 8, 8, NO_PREALLOC),
    MapSpec("outer", "array_of_maps", 4, 4, 2, inner=MapSpec("inner", "array", 4, 24, 4)),
    MapSpec("outer_hash", "hash_of_maps", 4, 4, 2, inner=MapSpec("inner", "hash", 4, 40, 4)),
    MapSpec("progs", "prog_array", 4, 4, 4),
    MapSpec("events", "perf_event_array", 4, 4, 2),
    MapSpec("ring", "ringbuf", 0, 0, 4096),
    MapSpec("user_ring", "user_ringbuf", 0, 0, 4096),
    MapSpec("queue", "queue", 0, 16, 4),
    MapSpec("stack", "stack", 0, 8, 4),
    MapSpec("bloom", "bloom_filter", 0, 8, 4),
    MapSpec("devices", "devmap", 4, 4, 2),
    MapSpec("device_hash", "devmap_hash", 4, 8, 2),
    MapSpec("cpus", "cpumap", 4, 4, 2),
    MapSpec("xsks", "xskmap", 4, 4, 2),
    MapSpec("sockets", "sockmap", 4, 4, 2),
    MapSpec("socket_hash", "sockhash", 4, 4, 2),
    MapSpec("groups", "cgroup_array", 4, 4, 2),
    MapSpec("storage", "cgroup_storage", 16, 16, 0),
    MapSpec("percpu_storage", "percpu_cgroup_storage", 16, 8, 0),
    MapSpec("stacks", "stack_trace", 4, 64, 2),
    _typed("locked", "array", 4, 32, 2, "locked"),
    _typed("locked_hash", "hash", 4, 32, 4, "locked"),
    _typed("timed", "array", 4, 32, 2, "timed"),
    _typed("kept", "array", 4, 24, 2, "kept"),
    _typed("sk_storage", "sk_storage", 4, 16, 0, "pair", NO_PREALLOC),
    _typed("task_storage", "task_storage", 4, 16, 0, "pair", NO_PREALLOC),
    _typed("cgroup_local", "cgrp_storage", 4, 16, 0, "pair", NO_PREALLOC),
)
MAPS = {spec.name: spec for spec in _ALL}
"""By name. Values of "locked" have a lock at 4, of "timed" a timer at 8, of "kept" kernel pointers at 8 and 16."""

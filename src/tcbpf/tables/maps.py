"""The map types: the limits of a specification and the operations, one row each.

Source:  include/uapi/linux/bpf.h; map_alloc_check() of each type and
         check_map_func_compatibility(), kernel/bpf/verifier.c (v6.18).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tcbpf.tables.row import Release, Table


@dataclass(frozen=True, slots=True)
class MapType:
    """One map type.

    Units:   sizes in bytes. key_size / value_size: None any positive size, a number exactly that, (low, high) a range.
             A size below the range is EINVAL; one above it is `oversize` (EINVAL for a choice, which has a value_multiple).
    """

    name: str                                          # the UAPI's, lower case: "percpu_hash"
    number: int
    key_size: int | tuple[int, int] | None = None
    value_size: int | tuple[int, int] | None = None
    value_multiple: int = 1                            # a value size must be a multiple of this
    element_size: int = 0                              # most that key and value may have together, 0 for no limit
    oversize: str = "EINVAL"                           # the errno of a size above its range
    flags: int = 0                                     # creation flags accepted
    required_flags: int = 0                            # creation flags that must be set
    added_flags: int = 0                               # what the kernel adds to them: programs may not write a value
    entries: str = "some"                              # "some" (> 0), "zero", "one", "power_of_two_pages"
    per_cpu: bool = False
    values: str = "bytes"                              # what a value is: "bytes", "program", "map", "device", "none", ...
    indexed: bool = False                              # a key is the index of a value that is always there
    prefixed: bool = False                             # a key is a prefix, its length in bits first
    hashes: int = 0                                    # bits of a value in a filter, where map_extra names no number
    records: str = ""                                  # what a reader takes out of it: "ring", one; "perf", one for each CPU
    batched: bool = False                              # the kernel copies many elements in one call
    alone: bool = False                                # memory and nothing else: no programs, maps or readers of a home
    needs_btf: bool = False                            # creation needs BTF ids of key and value
    helpers: frozenset[str] = frozenset()              # helpers that take this map, by tables.helpers name
    delete: bool = False                               # user space may delete an element
    user: bool = False                                 # the user datapath has it
    since: Release = (99, 0)
    source: str = ""


NO_PREALLOC, NO_COMMON_LRU, NUMA_NODE, RDONLY, WRONLY, STACK_BUILD_ID, ZERO_SEED = (1 << bit for bit in range(7))
RDONLY_PROG, WRONLY_PROG, CLONE, MMAPABLE, PRESERVE_ELEMS, INNER_MAP, LINK = (1 << bit for bit in range(7, 14))
VTYPE_BTF_OBJ_FD, TOKEN_FD, SEGV_ON_FAULT, NO_USER_CONV = (1 << bit for bit in range(15, 19))

FLAG_NAMES = {
    NO_PREALLOC: "BPF_F_NO_PREALLOC", NO_COMMON_LRU: "BPF_F_NO_COMMON_LRU", NUMA_NODE: "BPF_F_NUMA_NODE",
    RDONLY: "BPF_F_RDONLY", WRONLY: "BPF_F_WRONLY", STACK_BUILD_ID: "BPF_F_STACK_BUILD_ID", ZERO_SEED: "BPF_F_ZERO_SEED",
    RDONLY_PROG: "BPF_F_RDONLY_PROG", WRONLY_PROG: "BPF_F_WRONLY_PROG", CLONE: "BPF_F_CLONE", MMAPABLE: "BPF_F_MMAPABLE",
    PRESERVE_ELEMS: "BPF_F_PRESERVE_ELEMS", INNER_MAP: "BPF_F_INNER_MAP", LINK: "BPF_F_LINK",
    VTYPE_BTF_OBJ_FD: "BPF_F_VTYPE_BTF_OBJ_FD", TOKEN_FD: "BPF_F_TOKEN_FD", SEGV_ON_FAULT: "BPF_F_SEGV_ON_FAULT",
    NO_USER_CONV: "BPF_F_NO_USER_CONV",
}

_RW = RDONLY | WRONLY
_ACCESS = _RW | RDONLY_PROG | WRONLY_PROG
_PCPU_MAX = 32768                                      # PCPU_MIN_UNIT_SIZE: one CPU's value, rounded up to 8
_KMALLOC_MAX = 1 << 22                                 # KMALLOC_MAX_SIZE with 4 KiB pages
_HASH_MAX = _KMALLOC_MAX - 49                          # key and value beside struct htab_elem
_TRIE_MAX = _KMALLOC_MAX - 280                         # a value beside the largest key and struct lpm_trie_node

_KV = frozenset({"map_lookup_elem", "map_update_elem", "map_delete_elem"})
_KV_TIMER = _KV | {"for_each_map_elem", "timer_init"}
_PERCPU = _KV | {"for_each_map_elem", "map_lookup_percpu_elem"}
_RING = frozenset({"ringbuf_output", "ringbuf_reserve", "ringbuf_query", "ringbuf_reserve_dynptr"})
_LOOKUP = frozenset({"map_lookup_elem"})
_SOCK = frozenset({"map_lookup_elem", "map_update_elem", "map_delete_elem"})
_STACK = frozenset({"map_push_elem", "map_pop_elem", "map_peek_elem"})
_HASH_C, _ARRAY_C, _TRIE_C, _DEV_C = "hashtab.c", "arraymap.c", "lpm_trie.c", "devmap.c"

MAP_TYPES: Table[MapType] = Table(
    MapType("hash", 1, None, None, element_size=_HASH_MAX, oversize="E2BIG",
            flags=NO_PREALLOC | NUMA_NODE | _ACCESS | ZERO_SEED, helpers=_KV_TIMER, delete=True, user=True,
            alone=True, batched=True, since=(3, 19), source=_HASH_C),
    MapType("array", 2, 4, (1, (1 << 31) - 1), oversize="E2BIG", flags=NUMA_NODE | _ACCESS | MMAPABLE | INNER_MAP,
            helpers=_KV_TIMER, user=True, indexed=True, alone=True, batched=True, since=(3, 19), source=_ARRAY_C),
    MapType("prog_array", 3, 4, 4, flags=NUMA_NODE | _RW, values="program", helpers=frozenset({"tail_call"}),
            delete=True, user=True, since=(4, 2), source=_ARRAY_C),
    MapType("perf_event_array", 4, 4, 4, flags=NUMA_NODE | _RW | PRESERVE_ELEMS, values="perf_event",
            helpers=frozenset({"perf_event_read", "perf_event_output", "perf_event_read_value"}),
            delete=True, user=True, records="perf", since=(4, 3), source=_ARRAY_C),
    MapType("percpu_hash", 5, None, (1, _PCPU_MAX), element_size=_HASH_MAX, oversize="E2BIG",
            flags=NO_PREALLOC | _ACCESS | ZERO_SEED, per_cpu=True, helpers=_PERCPU, delete=True, user=True,
            alone=True, batched=True, since=(4, 6), source=_HASH_C),
    MapType("percpu_array", 6, 4, (1, _PCPU_MAX), oversize="E2BIG", flags=_ACCESS, per_cpu=True, helpers=_PERCPU,
            user=True, indexed=True, alone=True, batched=True, since=(4, 6), source=_ARRAY_C),
    MapType("stack_trace", 7, 4, (8, 1016), value_multiple=8, flags=NUMA_NODE | _RW | STACK_BUILD_ID, values="stack",
            delete=True, since=(4, 6), source="stackmap.c"),
    MapType("cgroup_array", 8, 4, 4, flags=NUMA_NODE | _RW, values="cgroup",
            helpers=frozenset({"skb_under_cgroup", "current_task_under_cgroup"}), delete=True, since=(4, 8),
            source=_ARRAY_C),
    MapType("lru_hash", 9, None, None, element_size=_HASH_MAX, oversize="E2BIG",
            flags=NO_COMMON_LRU | NUMA_NODE | _ACCESS | ZERO_SEED, helpers=_KV_TIMER, delete=True, user=True,
            alone=True, batched=True, since=(4, 10), source=_HASH_C),
    MapType("lru_percpu_hash", 10, None, (1, _PCPU_MAX), element_size=_HASH_MAX, oversize="E2BIG",
            flags=NO_COMMON_LRU | _ACCESS | ZERO_SEED, per_cpu=True, helpers=_PERCPU, delete=True, user=True,
            alone=True, batched=True, since=(4, 10), source=_HASH_C),
    MapType("lpm_trie", 11, (5, 260), (1, _TRIE_MAX), flags=NO_PREALLOC | NUMA_NODE | _ACCESS, required_flags=NO_PREALLOC,
            helpers=_KV, delete=True, user=True, prefixed=True, alone=True, batched=True, since=(4, 11), source=_TRIE_C),
    MapType("array_of_maps", 12, 4, 4, flags=NUMA_NODE | _RW, values="map", helpers=_LOOKUP, delete=True, user=True,
            since=(4, 12), source=_ARRAY_C),
    MapType("hash_of_maps", 13, None, 4, element_size=_HASH_MAX, oversize="E2BIG",
            flags=NO_PREALLOC | NUMA_NODE | _ACCESS | ZERO_SEED, values="map", helpers=_LOOKUP, delete=True, user=True,
            since=(4, 12), source=_HASH_C),
    MapType("devmap", 14, 4, (4, 8), value_multiple=4, flags=NUMA_NODE | _RW, added_flags=RDONLY_PROG, values="device",
            helpers=_LOOKUP | {"redirect_map"}, delete=True, since=(4, 14), source=_DEV_C),
    MapType("sockmap", 15, 4, (4, 8), value_multiple=4, flags=NUMA_NODE | _RW, values="socket", helpers=_SOCK,
            delete=True, since=(4, 14), source="net/core/sock_map.c"),
    MapType("cpumap", 16, 4, (4, 8), value_multiple=4, flags=NUMA_NODE, values="cpu",
            helpers=frozenset({"redirect_map"}), delete=True, since=(4, 15), source="cpumap.c"),
    MapType("xskmap", 17, 4, 4, flags=NUMA_NODE | _RW, values="xsk", helpers=_LOOKUP | {"redirect_map"}, delete=True,
            since=(4, 18), source="net/xdp/xskmap.c"),
    MapType("sockhash", 18, (1, 512), (4, 8), value_multiple=4, oversize="E2BIG", flags=NUMA_NODE | _RW, values="socket",
            helpers=_SOCK, delete=True, since=(4, 18), source="net/core/sock_map.c"),
    MapType("cgroup_storage", 19, (8, 16), (1, 65407), oversize="E2BIG", flags=NUMA_NODE | _ACCESS, entries="zero",
            helpers=frozenset({"get_local_storage"}), since=(4, 19), source="local_storage.c"),
    MapType("reuseport_sockarray", 20, 4, (4, 8), value_multiple=4, flags=NUMA_NODE | _ACCESS, values="socket",
            delete=True, since=(4, 19), source="reuseport_array.c"),
    MapType("percpu_cgroup_storage", 21, (8, 16), (1, _PCPU_MAX), oversize="E2BIG", flags=NUMA_NODE | _ACCESS, entries="zero",
            per_cpu=True, helpers=frozenset({"get_local_storage"}), since=(4, 20), source="local_storage.c"),
    MapType("queue", 22, 0, (1, _KMALLOC_MAX), oversize="E2BIG", flags=NUMA_NODE | _ACCESS, helpers=_STACK, user=True,
            alone=True, since=(4, 20), source="queue_stack_maps.c"),
    MapType("stack", 23, 0, (1, _KMALLOC_MAX), oversize="E2BIG", flags=NUMA_NODE | _ACCESS, helpers=_STACK, user=True,
            alone=True, since=(4, 20), source="queue_stack_maps.c"),
    MapType("sk_storage", 24, 4, None, flags=NO_PREALLOC | CLONE, required_flags=NO_PREALLOC, entries="zero", needs_btf=True,
            helpers=frozenset({"sk_storage_get", "sk_storage_delete"}), delete=True, user=True, since=(5, 2),
            source="net/core/bpf_sk_storage.c"),
    MapType("devmap_hash", 25, 4, (4, 8), value_multiple=4, flags=NUMA_NODE | _RW, added_flags=RDONLY_PROG, values="device",
            helpers=_LOOKUP | {"redirect_map"}, delete=True, since=(5, 4), source=_DEV_C),
    MapType("struct_ops", 26, 4, None, flags=LINK | VTYPE_BTF_OBJ_FD, entries="one", values="struct_ops", needs_btf=True,
            delete=True, since=(5, 6), source="bpf_struct_ops.c"),
    MapType("ringbuf", 27, 0, 0, flags=NUMA_NODE, entries="power_of_two_pages", values="none", helpers=_RING,
            user=True, records="ring", since=(5, 8), source="ringbuf.c"),
    MapType("inode_storage", 28, 4, None, flags=NO_PREALLOC | CLONE, required_flags=NO_PREALLOC, entries="zero", needs_btf=True,
            delete=True, since=(5, 10), source="bpf_inode_storage.c"),
    MapType("task_storage", 29, 4, None, flags=NO_PREALLOC | CLONE, required_flags=NO_PREALLOC, entries="zero", needs_btf=True,
            helpers=frozenset({"task_storage_get", "task_storage_delete"}), delete=True, since=(5, 11),
            source="bpf_task_storage.c"),
    MapType("bloom_filter", 30, 0, (1, _KMALLOC_MAX), oversize="E2BIG", flags=NUMA_NODE | _ACCESS | ZERO_SEED,
            helpers=frozenset({"map_push_elem", "map_peek_elem"}), user=True, hashes=5, since=(5, 16), source="bloom_filter.c"),
    MapType("user_ringbuf", 31, 0, 0, flags=NUMA_NODE, entries="power_of_two_pages", values="none",
            helpers=frozenset({"user_ringbuf_drain"}), since=(6, 1), source="ringbuf.c"),
    MapType("cgrp_storage", 32, 4, None, flags=NO_PREALLOC | CLONE, required_flags=NO_PREALLOC, entries="zero", needs_btf=True,
            helpers=frozenset({"cgrp_storage_get", "cgrp_storage_delete"}), delete=True, since=(6, 2),
            source="bpf_cgrp_storage.c"),
    MapType("arena", 33, 0, 0, flags=MMAPABLE | SEGV_ON_FAULT | NO_USER_CONV, required_flags=MMAPABLE, values="none",
            since=(6, 9), source="arena.c"),
    name=lambda row: row.name,
    number=lambda row: row.number,
)


def having(trait: Callable[[MapType], bool]) -> frozenset[str]:
    """Return the names of the types that have a trait."""
    return frozenset(row.name for row in MAP_TYPES if trait(row))


OF_PROGRAMS = having(lambda row: row.values == "program")
OF_MAPS = having(lambda row: row.values == "map")
INDEXED = having(lambda row: row.indexed)
FILTERS = having(lambda row: row.hashes > 0)
WALKED = having(lambda row: "for_each_map_elem" in row.helpers)
SOCKMAPS = having(lambda row: row.values == "socket" and "map_update_elem" in row.helpers)

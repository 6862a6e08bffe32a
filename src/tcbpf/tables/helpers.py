"""The helpers that programs may call: prototype, permission and provenance, one row each.

Source:  include/uapi/linux/bpf.h (names, ids, C prototypes); the bpf_func_proto of each helper, kernel/bpf and
         net/core/filter.c (v6.18, argument types, flags and program types).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, Flag, auto
from typing import Any

from tcbpf.tables.row import Release, Table


class Mod(Flag):
    """What qualifies an argument or return type (the kernel's type flags)."""

    NONE = 0
    MAYBE_NULL = auto()
    UNINIT = auto()              # memory that the helper fills
    RDONLY = auto()
    WRITE = auto()
    ALIGNED = auto()
    FIXED_SIZE = auto()
    RELEASE = auto()             # the helper ends the object's life
    RINGBUF = auto()             # memory of a ring buffer reservation
    DYNPTR_LOCAL = auto()
    DYNPTR_RINGBUF = auto()
    TRUSTED = auto()


class ArgType(Enum):
    """What a register must hold, by the kernel's names without ARG_."""

    ANYTHING = "anything"
    CTX = "ptr_to_ctx"
    CONST_MAP_PTR = "const_map_ptr"
    MAP_KEY = "ptr_to_map_key"
    MAP_VALUE = "ptr_to_map_value"
    MEM = "ptr_to_mem"
    CONST_SIZE = "const_size"
    CONST_SIZE_OR_ZERO = "const_size_or_zero"
    CONST_ALLOC_SIZE_OR_ZERO = "const_alloc_size_or_zero"
    STACK = "ptr_to_stack"
    CONST_STR = "ptr_to_const_str"
    FUNC = "ptr_to_func"
    TIMER = "ptr_to_timer"
    SPIN_LOCK = "ptr_to_spin_lock"
    KPTR = "kptr_xchg_dest"
    DYNPTR = "ptr_to_dynptr"
    RINGBUF_MEM = "ptr_to_ringbuf_mem"
    SOCKET = "ptr_to_socket"
    SOCK_COMMON = "ptr_to_sock_common"
    BTF_ID = "ptr_to_btf_id"
    BTF_ID_SOCK_COMMON = "ptr_to_btf_id_sock_common"
    PERCPU_BTF_ID = "ptr_to_percpu_btf_id"


class RetType(Enum):
    """What r0 holds after the call, by the kernel's names without RET_."""

    INTEGER = "integer"
    VOID = "void"
    MAP_VALUE = "ptr_to_map_value"
    SOCKET = "ptr_to_socket"
    TCP_SOCK = "ptr_to_tcp_sock"
    SOCK_COMMON = "ptr_to_sock_common"
    MEM = "ptr_to_mem"
    MEM_OR_BTF_ID = "ptr_to_mem_or_btf_id"
    BTF_ID = "ptr_to_btf_id"
    DYNPTR_MEM = "ptr_to_dynptr_mem"


@dataclass(frozen=True, slots=True)
class Arg:
    """One argument: its type, its qualifiers, the size of FIXED_SIZE memory (bytes) and the struct a BTF_ID names."""

    type: ArgType
    mod: Mod = Mod.NONE
    size: int = 0
    btf: str = ""


@dataclass(frozen=True, slots=True)
class Ret:
    """The return value, as `Arg`."""

    type: RetType
    mod: Mod = Mod.NONE
    btf: str = ""


@dataclass(frozen=True, slots=True)
class Helper:
    """One helper. Defaults fail closed: a row that names no program type can be called by none.

    Units:   `proto` is the C declaration's types and names, as include/uapi/linux/bpf.h states them:
             "void *(struct bpf_map *map, const void *key)".
    """

    name: str                                  # without bpf_
    id: int
    ret: Ret
    args: tuple[Arg, ...] = ()
    proto: str = ""
    progs: frozenset[str] = frozenset()        # program types that may call it, by tables.progs name
    privilege: str = "bpf"                     # least privilege: "none", "bpf" (CAP_BPF), "perfmon" (CAP_PERFMON)
    gpl_only: bool = False
    pkt_access: bool = False                   # takes packet pointers as memory
    changes_data: bool = False                 # invalidates packet pointers
    callee_changes_data: bool = False          # only a global function that calls it does: tail_call
    might_sleep: bool = False
    fastcall: bool = False                     # keeps r1 to r5: compilers may rely on it
    writes_map: bool = False                   # refused for a map that programs may only read
    acquires: bool = False                     # r0 is a reference that must be released
    casts: bool = False                        # r0 is the argument's own socket, of another type
    bounded_by_size: bool = False              # r0 is an errno or at most the size argument
    callback: str = ""                         # calls a function of the program: "sync" before it returns, "async" later
    engine: bool = False                       # an engine implements it: it changes control flow or calls back
    prints: bool = False                       # what it writes is seen outside of the program
    bare: frozenset[str] = frozenset()         # program types whose own version takes no argument
    since: Release = (99, 0)
    net_since: Release = (0, 0)                # when sched_cls and sched_act got it, if later than `since`
    source: str = ""

    def args_for(self, type: str) -> tuple[Arg, ...]:
        """Return the arguments that the helper takes from programs of a type."""
        return () if type in self.bare else self.args


# --- the words that rows are written in -------------------------------------------------------------------------------

NULL, UNINIT, RDONLY, WRITE, ALIGNED = Mod.MAYBE_NULL, Mod.UNINIT, Mod.RDONLY, Mod.WRITE, Mod.ALIGNED
TRUSTED, RELEASE = Mod.TRUSTED, Mod.RELEASE

ANY = Arg(ArgType.ANYTHING)
CTX, CTX_OR_NULL = Arg(ArgType.CTX), Arg(ArgType.CTX, NULL)
MAP, KEY = Arg(ArgType.CONST_MAP_PTR), Arg(ArgType.MAP_KEY)
VALUE, VALUE_OR_NULL = Arg(ArgType.MAP_VALUE), Arg(ArgType.MAP_VALUE, NULL)
VALUE_UNINIT = Arg(ArgType.MAP_VALUE, UNINIT | WRITE)
MEM_R, MEM_R_OR_NULL = Arg(ArgType.MEM, RDONLY), Arg(ArgType.MEM, RDONLY | NULL)
MEM_W, MEM_W_OR_NULL = Arg(ArgType.MEM, WRITE), Arg(ArgType.MEM, WRITE | NULL)
MEM_UNINIT = Arg(ArgType.MEM, UNINIT | WRITE)
SIZE, SIZE0 = Arg(ArgType.CONST_SIZE), Arg(ArgType.CONST_SIZE_OR_ZERO)
ALLOC_SIZE = Arg(ArgType.CONST_ALLOC_SIZE_OR_ZERO)
STR, FUNC, STACK_OR_NULL = Arg(ArgType.CONST_STR), Arg(ArgType.FUNC), Arg(ArgType.STACK, NULL)
LOCK, TIMER = Arg(ArgType.SPIN_LOCK), Arg(ArgType.TIMER)
KPTR, KPTR_VALUE = Arg(ArgType.KPTR), Arg(ArgType.BTF_ID, NULL | RELEASE)
SOCK_COMMON, BTF_SOCK = Arg(ArgType.SOCK_COMMON), Arg(ArgType.BTF_ID_SOCK_COMMON)
SOCK_RELEASE = Arg(ArgType.BTF_ID_SOCK_COMMON, RELEASE)
PERCPU = Arg(ArgType.PERCPU_BTF_ID)
RINGBUF_MEM = Arg(ArgType.RINGBUF_MEM, RELEASE)
DYNPTR = Arg(ArgType.DYNPTR, RDONLY)
DYNPTR_RELEASE = Arg(ArgType.DYNPTR, Mod.DYNPTR_RINGBUF | RELEASE)
DYNPTR_LOCAL = Arg(ArgType.DYNPTR, Mod.DYNPTR_LOCAL | UNINIT | WRITE)
DYNPTR_RINGBUF = Arg(ArgType.DYNPTR, Mod.DYNPTR_RINGBUF | UNINIT | WRITE)


def _fixed(size: int, mod: Mod = Mod.NONE) -> Arg:
    """Return memory of exactly `size` bytes."""
    return Arg(ArgType.MEM, mod | Mod.FIXED_SIZE, size)


def _btf(name: str, mod: Mod = Mod.NONE) -> Arg:
    """Return a pointer to the kernel's struct `name`."""
    return Arg(ArgType.BTF_ID, mod, btf=name)


INT, VOID = Ret(RetType.INTEGER), Ret(RetType.VOID)
MAP_VALUE, MAP_VALUE_OR_NULL = Ret(RetType.MAP_VALUE), Ret(RetType.MAP_VALUE, NULL)
SOCKET_OR_NULL, TCP_SOCK_OR_NULL = Ret(RetType.SOCKET, NULL), Ret(RetType.TCP_SOCK, NULL)
SOCK_COMMON_OR_NULL = Ret(RetType.SOCK_COMMON, NULL)
PERCPU_MEM, PERCPU_MEM_OR_NULL = Ret(RetType.MEM_OR_BTF_ID, RDONLY), Ret(RetType.MEM_OR_BTF_ID, RDONLY | NULL)
RINGBUF_MEM_OR_NULL = Ret(RetType.MEM, Mod.RINGBUF | NULL)
DYNPTR_MEM_OR_NULL = Ret(RetType.DYNPTR_MEM, NULL)

SF, XDP, CG = frozenset({"socket_filter"}), frozenset({"xdp"}), frozenset({"cgroup_skb"})
TC = frozenset({"sched_cls", "sched_act"})
TC_XDP, TC_CG, SKB, NOT_SF = TC | XDP, TC | CG, TC | SF | CG, TC | XDP | CG
ALL = NOT_SF | SF

HELPERS_C, FILTER = "kernel/bpf/helpers.c", "net/core/filter.c"
TRACE, RINGBUF = "kernel/trace/bpf_trace.c", "kernel/bpf/ringbuf.c"

HELPERS: Table[Helper] = Table(
    Helper(
        "map_lookup_elem", 1, MAP_VALUE_OR_NULL, (MAP, KEY),
        "void *(struct bpf_map *map, const void *key)",
        ALL, "none", pkt_access=True, since=(3, 19), source=HELPERS_C,
    ),
    Helper(
        "map_update_elem", 2, INT, (MAP, KEY, VALUE, ANY),
        "long (struct bpf_map *map, const void *key, const void *value, u64 flags)",
        ALL, "none", pkt_access=True, writes_map=True, since=(3, 19), source=HELPERS_C,
    ),
    Helper(
        "map_delete_elem", 3, INT, (MAP, KEY),
        "long (struct bpf_map *map, const void *key)",
        ALL, "none", pkt_access=True, writes_map=True, since=(3, 19), source=HELPERS_C,
    ),
    Helper("ktime_get_ns", 5, INT, (), "u64 (void)", ALL, "none", since=(4, 1), source=HELPERS_C),
    Helper(
        "trace_printk", 6, INT, (MEM_R, SIZE),
        "long (const char *fmt, u32 fmt_size, ...)",
        ALL, "perfmon", gpl_only=True, prints=True, since=(4, 1), source=TRACE,
    ),
    Helper("get_prandom_u32", 7, INT, (), "u32 (void)", ALL, "none", since=(4, 1), source="kernel/bpf/core.c"),
    Helper(
        "get_smp_processor_id", 8, INT, (),
        "u32 (void)",
        ALL, "none", fastcall=True, since=(4, 1), source=HELPERS_C,
    ),
    Helper(
        "skb_store_bytes", 9, INT, (CTX, ANY, MEM_R, SIZE, ANY),
        "long (struct sk_buff *skb, u32 offset, const void *from, u32 len, u64 flags)",
        TC, "none", changes_data=True, since=(4, 1), source=FILTER,
    ),
    Helper(
        "l3_csum_replace", 10, INT, (CTX, ANY, ANY, ANY, ANY),
        "long (struct sk_buff *skb, u32 offset, u64 from, u64 to, u64 size)",
        TC, "none", changes_data=True, since=(4, 1), source=FILTER,
    ),
    Helper(
        "l4_csum_replace", 11, INT, (CTX, ANY, ANY, ANY, ANY),
        "long (struct sk_buff *skb, u32 offset, u64 from, u64 to, u64 flags)",
        TC, "none", changes_data=True, since=(4, 1), source=FILTER,
    ),
    Helper(
        "tail_call", 12, VOID, (CTX, MAP, ANY),
        "long (void *ctx, struct bpf_map *prog_array_map, u32 index)",
        ALL, "none", callee_changes_data=True, engine=True, since=(4, 2), source="kernel/bpf/core.c",
    ),
    Helper(
        "clone_redirect", 13, INT, (CTX, ANY, ANY),
        "long (struct sk_buff *skb, u32 ifindex, u64 flags)",
        TC, "none", changes_data=True, since=(4, 2), source=FILTER,
    ),
    Helper("get_current_pid_tgid", 14, INT, (), "u64 (void)", ALL, "none", since=(4, 2), source=HELPERS_C),
    Helper(
        "get_current_uid_gid", 15, INT, (),
        "u64 (void)",
        ALL, "none", net_since=(6, 16), since=(4, 2), source=HELPERS_C,
    ),
    Helper(
        "get_current_comm", 16, INT, (MEM_UNINIT, SIZE),
        "long (void *buf, u32 size_of_buf)",
        ALL, "perfmon", net_since=(6, 16), since=(4, 2), source=HELPERS_C,
    ),
    Helper(
        "get_cgroup_classid", 17, INT, (CTX,),
        "u32 (struct sk_buff *skb)",
        ALL, privilege="bpf", bare=XDP | CG | SF, since=(4, 3), source=FILTER,
    ),
    Helper(
        "skb_vlan_push", 18, INT, (CTX, ANY, ANY),
        "long (struct sk_buff *skb, __be16 vlan_proto, u16 vlan_tci)",
        TC, "none", changes_data=True, since=(4, 3), source=FILTER,
    ),
    Helper(
        "skb_vlan_pop", 19, INT, (CTX,),
        "long (struct sk_buff *skb)",
        TC, "none", changes_data=True, since=(4, 3), source=FILTER,
    ),
    Helper(
        "skb_get_tunnel_key", 20, INT, (CTX, MEM_UNINIT, SIZE, ANY),
        "long (struct sk_buff *skb, struct bpf_tunnel_key *key, u32 size, u64 flags)",
        TC, "none", since=(4, 3), source=FILTER,
    ),
    Helper(
        "skb_set_tunnel_key", 21, INT, (CTX, MEM_R, SIZE, ANY),
        "long (struct sk_buff *skb, struct bpf_tunnel_key *key, u32 size, u64 flags)",
        TC, "none", since=(4, 3), source=FILTER,
    ),
    Helper(
        "perf_event_read", 22, INT, (MAP, ANY),
        "u64 (struct bpf_map *map, u64 flags)",
        ALL, "perfmon", gpl_only=True, net_since=(6, 16), since=(4, 3), source=TRACE,
    ),
    Helper(
        "redirect", 23, INT, (ANY, ANY),
        "long (u32 ifindex, u64 flags)",
        TC_XDP, "none", since=(4, 4), source=FILTER,
    ),
    Helper("get_route_realm", 24, INT, (CTX,), "u32 (struct sk_buff *skb)", TC, "none", since=(4, 4), source=FILTER),
    Helper(
        "perf_event_output", 25, INT, (CTX, MAP, ANY, MEM_R, SIZE0),
        "long (void *ctx, struct bpf_map *map, u64 flags, void *data, u64 size)",
        ALL, "none", gpl_only=True, since=(4, 4), source=FILTER,
    ),
    Helper(
        "skb_load_bytes", 26, INT, (CTX, ANY, MEM_UNINIT, SIZE),
        "long (const void *skb, u32 offset, void *to, u32 len)",
        SKB, "none", since=(4, 5), source=FILTER,
    ),
    Helper(
        "csum_diff", 28, INT, (MEM_R_OR_NULL, SIZE0, MEM_R_OR_NULL, SIZE0, ANY),
        "s64 (__be32 *from, u32 from_size, __be32 *to, u32 to_size, __wsum seed)",
        TC_XDP, "none", pkt_access=True, since=(4, 6), source=FILTER,
    ),
    Helper(
        "skb_get_tunnel_opt", 29, INT, (CTX, MEM_UNINIT, SIZE),
        "long (struct sk_buff *skb, void *opt, u32 size)",
        TC, "none", since=(4, 6), source=FILTER,
    ),
    Helper(
        "skb_set_tunnel_opt", 30, INT, (CTX, MEM_R, SIZE),
        "long (struct sk_buff *skb, void *opt, u32 size)",
        TC, "none", since=(4, 6), source=FILTER,
    ),
    Helper(
        "skb_change_proto", 31, INT, (CTX, ANY, ANY),
        "long (struct sk_buff *skb, __be16 proto, u64 flags)",
        TC, "none", changes_data=True, since=(4, 8), source=FILTER,
    ),
    Helper(
        "skb_change_type", 32, INT, (CTX, ANY),
        "long (struct sk_buff *skb, u32 type)",
        TC, "none", since=(4, 8), source=FILTER,
    ),
    Helper(
        "skb_under_cgroup", 33, INT, (CTX, MAP, ANY),
        "long (struct sk_buff *skb, struct bpf_map *map, u32 index)",
        TC, "none", since=(4, 8), source=FILTER,
    ),
    Helper("get_hash_recalc", 34, INT, (CTX,), "u32 (struct sk_buff *skb)", TC, "none", since=(4, 8), source=FILTER),
    Helper("get_current_task", 35, INT, (), "u64 (void)", ALL, "perfmon", gpl_only=True, since=(4, 8), source=TRACE),
    Helper(
        "current_task_under_cgroup", 37, INT, (MAP, ANY),
        "long (struct bpf_map *map, u32 index)",
        ALL, "bpf", net_since=(6, 16), since=(4, 9), source=HELPERS_C,
    ),
    Helper(
        "skb_change_tail", 38, INT, (CTX, ANY, ANY),
        "long (struct sk_buff *skb, u32 len, u64 flags)",
        TC, "none", changes_data=True, since=(4, 9), source=FILTER,
    ),
    Helper(
        "skb_pull_data", 39, INT, (CTX, ANY),
        "long (struct sk_buff *skb, u32 len)",
        TC, "none", changes_data=True, since=(4, 9), source=FILTER,
    ),
    Helper(
        "csum_update", 40, INT, (CTX, ANY),
        "s64 (struct sk_buff *skb, __wsum csum)",
        TC, "none", since=(4, 9), source=FILTER,
    ),
    Helper("set_hash_invalid", 41, INT, (CTX,), "void (struct sk_buff *skb)", TC, "none", since=(4, 9), source=FILTER),
    Helper("get_numa_node_id", 42, INT, (), "long (void)", ALL, "none", since=(4, 10), source=HELPERS_C),
    Helper(
        "skb_change_head", 43, INT, (CTX, ANY, ANY),
        "long (struct sk_buff *skb, u32 len, u64 flags)",
        TC, "none", changes_data=True, since=(4, 10), source=FILTER,
    ),
    Helper(
        "xdp_adjust_head", 44, INT, (CTX, ANY),
        "long (struct xdp_buff *xdp_md, int delta)",
        XDP, "none", changes_data=True, since=(4, 10), source=FILTER,
    ),
    Helper(
        "get_socket_cookie", 46, INT, (CTX,),
        "u64 (struct sk_buff *skb)",
        SKB, "none", since=(4, 12), source=FILTER,
    ),
    Helper("get_socket_uid", 47, INT, (CTX,), "u32 (struct sk_buff *skb)", SKB, "none", since=(4, 12), source=FILTER),
    Helper(
        "set_hash", 48, INT, (CTX, ANY),
        "long (struct sk_buff *skb, u32 hash)",
        TC, "none", since=(4, 13), source=FILTER,
    ),
    Helper(
        "skb_adjust_room", 50, INT, (CTX, ANY, ANY, ANY),
        "long (struct sk_buff *skb, s32 len_diff, u32 mode, u64 flags)",
        TC, "none", changes_data=True, since=(4, 13), source=FILTER,
    ),
    Helper(
        "redirect_map", 51, INT, (MAP, ANY, ANY),
        "long (struct bpf_map *map, u32 key, u64 flags)",
        XDP, "none", since=(4, 14), source=FILTER,
    ),
    Helper(
        "xdp_adjust_meta", 54, INT, (CTX, ANY),
        "long (struct xdp_buff *xdp_md, int delta)",
        XDP, "none", changes_data=True, since=(4, 15), source=FILTER,
    ),
    Helper(
        "perf_event_read_value", 55, INT, (MAP, ANY, MEM_UNINIT, SIZE),
        "long (struct bpf_map *map, u64 flags, struct bpf_perf_event_value *buf, u32 buf_size)",
        ALL, "perfmon", gpl_only=True, net_since=(6, 16), since=(4, 15), source=TRACE,
    ),
    Helper(
        "xdp_adjust_tail", 65, INT, (CTX, ANY),
        "long (struct xdp_buff *xdp_md, int delta)",
        XDP, "none", changes_data=True, since=(4, 18), source=FILTER,
    ),
    Helper(
        "skb_get_xfrm_state", 66, INT, (CTX, ANY, MEM_UNINIT, SIZE, ANY),
        "long (struct sk_buff *skb, u32 index, struct bpf_xfrm_state *xfrm_state, u32 size, u64 flags)",
        TC, "none", since=(4, 18), source=FILTER,
    ),
    Helper(
        "skb_load_bytes_relative", 68, INT, (CTX, ANY, MEM_UNINIT, SIZE, ANY),
        "long (const void *skb, u32 offset, void *to, u32 len, u32 start_header)",
        SKB, "none", since=(4, 18), source=FILTER,
    ),
    Helper(
        "fib_lookup", 69, INT, (CTX, MEM_W, SIZE, ANY),
        "long (void *ctx, struct bpf_fib_lookup *params, int plen, u32 flags)",
        TC_XDP, "none", gpl_only=True, since=(4, 18), source=FILTER,
    ),
    Helper("skb_cgroup_id", 79, INT, (CTX,), "u64 (struct sk_buff *skb)", TC_CG, "none", since=(4, 18), source=FILTER),
    Helper("get_current_cgroup_id", 80, INT, (), "u64 (void)", ALL, "bpf", since=(4, 18), source=HELPERS_C),
    Helper(
        "get_local_storage", 81, MAP_VALUE, (MAP, ANY),
        "void *(void *map, u64 flags)",
        CG, "none", since=(4, 19), source=HELPERS_C,
    ),
    Helper(
        "skb_ancestor_cgroup_id", 83, INT, (CTX, ANY),
        "u64 (struct sk_buff *skb, int ancestor_level)",
        TC_CG, "none", since=(4, 19), source=FILTER,
    ),
    Helper(
        "sk_lookup_tcp", 84, SOCKET_OR_NULL, (CTX, MEM_R, SIZE0, ANY, ANY),
        "struct bpf_sock *(void *ctx, struct bpf_sock_tuple *tuple, u32 tuple_size, u64 netns, u64 flags)",
        NOT_SF, "none", pkt_access=True, acquires=True, since=(4, 20), source=FILTER,
    ),
    Helper(
        "sk_lookup_udp", 85, SOCKET_OR_NULL, (CTX, MEM_R, SIZE0, ANY, ANY),
        "struct bpf_sock *(void *ctx, struct bpf_sock_tuple *tuple, u32 tuple_size, u64 netns, u64 flags)",
        NOT_SF, "none", pkt_access=True, acquires=True, since=(4, 20), source=FILTER,
    ),
    Helper("sk_release", 86, INT, (SOCK_RELEASE,), "long (void *sock)", NOT_SF, "none", since=(4, 20), source=FILTER),
    Helper(
        "map_push_elem", 87, INT, (MAP, VALUE, ANY),
        "long (struct bpf_map *map, const void *value, u64 flags)",
        ALL, "none", pkt_access=True, writes_map=True, since=(4, 20), source=HELPERS_C,
    ),
    Helper(
        "map_pop_elem", 88, INT, (MAP, VALUE_UNINIT),
        "long (struct bpf_map *map, void *value)",
        ALL, "none", writes_map=True, since=(4, 20), source=HELPERS_C,
    ),
    Helper(
        "map_peek_elem", 89, INT, (MAP, VALUE_UNINIT),
        "long (struct bpf_map *map, void *value)",
        ALL, "none", since=(4, 20), source=HELPERS_C,
    ),
    Helper(
        "spin_lock", 93, VOID, (LOCK,),
        "long (struct bpf_spin_lock *lock)",
        ALL, "bpf", since=(5, 1), source=HELPERS_C,
    ),
    Helper(
        "spin_unlock", 94, VOID, (LOCK,),
        "long (struct bpf_spin_lock *lock)",
        ALL, "bpf", since=(5, 1), source=HELPERS_C,
    ),
    Helper(
        "sk_fullsock", 95, SOCKET_OR_NULL, (SOCK_COMMON,),
        "struct bpf_sock *(struct bpf_sock *sk)",
        TC_CG, "none", casts=True, since=(5, 1), source=FILTER,
    ),
    Helper(
        "tcp_sock", 96, TCP_SOCK_OR_NULL, (SOCK_COMMON,),
        "struct bpf_tcp_sock *(struct bpf_sock *sk)",
        TC_CG, "none", casts=True, since=(5, 1), source=FILTER,
    ),
    Helper("skb_ecn_set_ce", 97, INT, (CTX,), "long (struct sk_buff *skb)", TC_CG, "none", since=(5, 1), source=FILTER),
    Helper(
        "get_listener_sock", 98, SOCKET_OR_NULL, (SOCK_COMMON,),
        "struct bpf_sock *(struct bpf_sock *sk)",
        TC_CG, "none", since=(5, 1), source=FILTER,
    ),
    Helper(
        "skc_lookup_tcp", 99, SOCK_COMMON_OR_NULL, (CTX, MEM_R, SIZE0, ANY, ANY),
        "struct bpf_sock *(void *ctx, struct bpf_sock_tuple *tuple, u32 tuple_size, u64 netns, u64 flags)",
        NOT_SF, "none", pkt_access=True, acquires=True, since=(5, 2), source=FILTER,
    ),
    Helper(
        "tcp_check_syncookie", 100, INT, (BTF_SOCK, MEM_R, SIZE, MEM_R, SIZE),
        "long (void *sk, void *iph, u32 iph_len, struct tcphdr *th, u32 th_len)",
        TC_XDP, "none", gpl_only=True, pkt_access=True, since=(5, 2), source=FILTER,
    ),
    Helper(
        "strtol", 105, INT, (MEM_R, SIZE, ANY, _fixed(8, UNINIT | WRITE | ALIGNED)),
        "long (const char *buf, size_t buf_len, u64 flags, long *res)",
        ALL, "none", since=(5, 2), source=HELPERS_C,
    ),
    Helper(
        "strtoul", 106, INT, (MEM_R, SIZE, ANY, _fixed(8, UNINIT | WRITE | ALIGNED)),
        "long (const char *buf, size_t buf_len, u64 flags, unsigned long *res)",
        ALL, "none", since=(5, 2), source=HELPERS_C,
    ),
    Helper(
        "sk_storage_get", 107, MAP_VALUE_OR_NULL, (MAP, BTF_SOCK, VALUE_OR_NULL, ANY),
        "void *(struct bpf_map *map, void *sk, void *value, u64 flags)",
        TC_CG, "none", since=(5, 2), source="net/core/bpf_sk_storage.c",
    ),
    Helper(
        "sk_storage_delete", 108, INT, (MAP, BTF_SOCK),
        "long (struct bpf_map *map, void *sk)",
        TC_CG, "none", since=(5, 2), source="net/core/bpf_sk_storage.c",
    ),
    Helper(
        "send_signal", 109, INT, (ANY,),
        "long (u32 sig)",
        ALL, "perfmon", net_since=(6, 16), since=(5, 3), source=TRACE,
    ),
    Helper(
        "tcp_gen_syncookie", 110, INT, (BTF_SOCK, MEM_R, SIZE, MEM_R, SIZE),
        "s64 (void *sk, void *iph, u32 iph_len, struct tcphdr *th, u32 th_len)",
        TC_XDP, "none", gpl_only=True, pkt_access=True, since=(5, 4), source=FILTER,
    ),
    Helper(
        "probe_read_user", 112, INT, (MEM_UNINIT, SIZE0, ANY),
        "long (void *dst, u32 size, const void *unsafe_ptr)",
        ALL, "perfmon", gpl_only=True, since=(5, 5), source=TRACE,
    ),
    Helper(
        "probe_read_kernel", 113, INT, (MEM_UNINIT, SIZE0, ANY),
        "long (void *dst, u32 size, const void *unsafe_ptr)",
        ALL, "perfmon", gpl_only=True, since=(5, 5), source=TRACE,
    ),
    Helper(
        "probe_read_user_str", 114, INT, (MEM_UNINIT, SIZE0, ANY),
        "long (void *dst, u32 size, const void *unsafe_ptr)",
        ALL, "perfmon", gpl_only=True, bounded_by_size=True, since=(5, 5), source=TRACE,
    ),
    Helper(
        "probe_read_kernel_str", 115, INT, (MEM_UNINIT, SIZE0, ANY),
        "long (void *dst, u32 size, const void *unsafe_ptr)",
        ALL, "perfmon", gpl_only=True, bounded_by_size=True, since=(5, 5), source=TRACE,
    ),
    Helper(
        "send_signal_thread", 117, INT, (ANY,),
        "long (u32 sig)",
        ALL, "perfmon", net_since=(6, 16), since=(5, 6), source=TRACE,
    ),
    Helper("jiffies64", 118, INT, (), "u64 (void)", ALL, "bpf", since=(5, 6), source=HELPERS_C),
    Helper(
        "get_ns_current_pid_tgid", 120, INT, (ANY, ANY, MEM_UNINIT, SIZE),
        "long (u64 dev, u64 ino, struct bpf_pidns_info *nsdata, u32 size)",
        ALL, "none", since=(5, 7), source=HELPERS_C,
    ),
    Helper(
        "get_netns_cookie", 122, INT, (CTX_OR_NULL,),
        "u64 (void *ctx)",
        SKB, "none", net_since=(6, 13), since=(5, 7), source=FILTER,
    ),
    Helper(
        "get_current_ancestor_cgroup_id", 123, INT, (ANY,),
        "u64 (int ancestor_level)",
        ALL, "bpf", since=(5, 7), source=HELPERS_C,
    ),
    Helper(
        "sk_assign", 124, INT, (CTX, BTF_SOCK, ANY),
        "long (struct sk_buff *skb, void *sk, u64 flags)",
        TC, "none", since=(5, 7), source=FILTER,
    ),
    Helper("ktime_get_boot_ns", 125, INT, (), "u64 (void)", ALL, "none", since=(5, 8), source=HELPERS_C),
    Helper("sk_cgroup_id", 128, INT, (BTF_SOCK,), "u64 (void *sk)", CG, "none", since=(5, 8), source=FILTER),
    Helper(
        "sk_ancestor_cgroup_id", 129, INT, (BTF_SOCK, ANY),
        "u64 (void *sk, int ancestor_level)",
        CG, "none", since=(5, 8), source=FILTER,
    ),
    Helper(
        "ringbuf_output", 130, INT, (MAP, MEM_R, SIZE0, ANY),
        "long (void *ringbuf, void *data, u64 size, u64 flags)",
        ALL, "none", since=(5, 8), source=RINGBUF,
    ),
    Helper(
        "ringbuf_reserve", 131, RINGBUF_MEM_OR_NULL, (MAP, ALLOC_SIZE, ANY),
        "void *(void *ringbuf, u64 size, u64 flags)",
        ALL, "none", acquires=True, since=(5, 8), source=RINGBUF,
    ),
    Helper(
        "ringbuf_submit", 132, VOID, (RINGBUF_MEM, ANY),
        "void (void *data, u64 flags)",
        ALL, "none", since=(5, 8), source=RINGBUF,
    ),
    Helper(
        "ringbuf_discard", 133, VOID, (RINGBUF_MEM, ANY),
        "void (void *data, u64 flags)",
        ALL, "none", since=(5, 8), source=RINGBUF,
    ),
    Helper(
        "ringbuf_query", 134, INT, (MAP, ANY),
        "u64 (void *ringbuf, u64 flags)",
        ALL, "none", since=(5, 8), source=RINGBUF,
    ),
    Helper(
        "csum_level", 135, INT, (CTX, ANY),
        "long (struct sk_buff *skb, u64 level)",
        TC, "none", since=(5, 8), source=FILTER,
    ),
    Helper(
        "skc_to_tcp6_sock", 136, Ret(RetType.BTF_ID, NULL, "tcp6_sock"), (BTF_SOCK,),
        "struct tcp6_sock *(void *sk)",
        ALL, "perfmon", casts=True, since=(5, 9), source=FILTER,
    ),
    Helper(
        "skc_to_tcp_sock", 137, Ret(RetType.BTF_ID, NULL, "tcp_sock"), (BTF_SOCK,),
        "struct tcp_sock *(void *sk)",
        ALL, "perfmon", casts=True, since=(5, 9), source=FILTER,
    ),
    Helper(
        "skc_to_tcp_timewait_sock", 138, Ret(RetType.BTF_ID, NULL, "tcp_timewait_sock"), (BTF_SOCK,),
        "struct tcp_timewait_sock *(void *sk)",
        ALL, "perfmon", casts=True, since=(5, 9), source=FILTER,
    ),
    Helper(
        "skc_to_tcp_request_sock", 139, Ret(RetType.BTF_ID, NULL, "tcp_request_sock"), (BTF_SOCK,),
        "struct tcp_request_sock *(void *sk)",
        ALL, "perfmon", casts=True, since=(5, 9), source=FILTER,
    ),
    Helper(
        "skc_to_udp6_sock", 140, Ret(RetType.BTF_ID, NULL, "udp6_sock"), (BTF_SOCK,),
        "struct udp6_sock *(void *sk)",
        ALL, "perfmon", casts=True, since=(5, 9), source=FILTER,
    ),
    Helper(
        "get_task_stack", 141, INT, (_btf("task_struct"), MEM_UNINIT, SIZE0, ANY),
        "long (struct task_struct *task, void *buf, u32 size, u64 flags)",
        ALL, "perfmon", bounded_by_size=True, net_since=(6, 16), since=(5, 9), source="kernel/bpf/stackmap.c",
    ),
    Helper(
        "copy_from_user", 148, INT, (MEM_UNINIT, SIZE0, ANY),
        "long (void *dst, u32 size, const void *user_ptr)",
        ALL, "perfmon", might_sleep=True, net_since=(6, 16), since=(5, 10), source=HELPERS_C,
    ),
    Helper(
        "snprintf_btf", 149, INT, (MEM_W, SIZE, MEM_R, SIZE, ANY),
        "long (char *str, u32 str_size, struct btf_ptr *ptr, u32 btf_ptr_size, u64 flags)",
        ALL, "perfmon", since=(5, 10), source=TRACE,
    ),
    Helper(
        "skb_cgroup_classid", 151, INT, (CTX,),
        "u64 (struct sk_buff *skb)",
        TC, "none", since=(5, 10), source=FILTER,
    ),
    Helper(
        "redirect_neigh", 152, INT, (ANY, MEM_R_OR_NULL, SIZE0, ANY),
        "long (u32 ifindex, struct bpf_redir_neigh *params, int plen, u64 flags)",
        TC, "none", since=(5, 10), source=FILTER,
    ),
    Helper(
        "per_cpu_ptr", 153, PERCPU_MEM_OR_NULL, (PERCPU, ANY),
        "void *(const void *percpu_ptr, u32 cpu)",
        ALL, "bpf", since=(5, 10), source=HELPERS_C,
    ),
    Helper(
        "this_cpu_ptr", 154, PERCPU_MEM, (PERCPU,),
        "void *(const void *percpu_ptr)",
        ALL, "bpf", since=(5, 10), source=HELPERS_C,
    ),
    Helper(
        "redirect_peer", 155, INT, (ANY, ANY),
        "long (u32 ifindex, u64 flags)",
        TC, "none", since=(5, 10), source=FILTER,
    ),
    Helper(
        "task_storage_get", 156, MAP_VALUE_OR_NULL, (MAP, _btf("task_struct", NULL), VALUE_OR_NULL, ANY),
        "void *(struct bpf_map *map, struct task_struct *task, void *value, u64 flags)",
        ALL, "bpf", net_since=(6, 16), since=(5, 11), source="kernel/bpf/bpf_task_storage.c",
    ),
    Helper(
        "task_storage_delete", 157, INT, (MAP, _btf("task_struct", NULL)),
        "long (struct bpf_map *map, struct task_struct *task)",
        ALL, "bpf", net_since=(6, 16), since=(5, 11), source="kernel/bpf/bpf_task_storage.c",
    ),
    Helper(
        "get_current_task_btf", 158, Ret(RetType.BTF_ID, TRUSTED, "task_struct"), (),
        "struct task_struct *(void)",
        ALL, "perfmon", gpl_only=True, since=(5, 11), source=TRACE,
    ),
    Helper("ktime_get_coarse_ns", 160, INT, (), "u64 (void)", ALL, "none", since=(5, 11), source=HELPERS_C),
    Helper(
        "check_mtu", 163, INT, (CTX, ANY, _fixed(4, WRITE | ALIGNED), ANY, ANY),
        "long (void *ctx, u32 ifindex, u32 *mtu_len, s32 len_diff, u64 flags)",
        TC_XDP, "none", gpl_only=True, since=(5, 12), source=FILTER,
    ),
    Helper(
        "for_each_map_elem", 164, INT, (MAP, FUNC, STACK_OR_NULL, ANY),
        "long (struct bpf_map *map, void *callback_fn, void *callback_ctx, u64 flags)",
        ALL, "bpf", callback="sync", engine=True, since=(5, 13), source="kernel/bpf/bpf_iter.c",
    ),
    Helper(
        "snprintf", 165, INT, (MEM_W_OR_NULL, SIZE0, STR, MEM_R_OR_NULL, SIZE0),
        "long (char *str, u32 str_size, const char *fmt, u64 *data, u32 data_len)",
        ALL, "perfmon", gpl_only=True, since=(5, 13), source=HELPERS_C,
    ),
    Helper(
        "timer_init", 169, INT, (TIMER, MAP, ANY),
        "long (struct bpf_timer *timer, struct bpf_map *map, u64 flags)",
        ALL, "bpf", gpl_only=True, since=(5, 15), source=HELPERS_C,
    ),
    Helper(
        "timer_set_callback", 170, INT, (TIMER, FUNC),
        "long (struct bpf_timer *timer, void *callback_fn)",
        ALL, "bpf", gpl_only=True, callback="async", since=(5, 15), source=HELPERS_C,
    ),
    Helper(
        "timer_start", 171, INT, (TIMER, ANY, ANY),
        "long (struct bpf_timer *timer, u64 nsecs, u64 flags)",
        ALL, "bpf", gpl_only=True, since=(5, 15), source=HELPERS_C,
    ),
    Helper(
        "timer_cancel", 172, INT, (TIMER,),
        "long (struct bpf_timer *timer)",
        ALL, "bpf", gpl_only=True, since=(5, 15), source=HELPERS_C,
    ),
    Helper(
        "task_pt_regs", 175, Ret(RetType.BTF_ID, btf="pt_regs"), (_btf("task_struct"),),
        "long (struct task_struct *task)",
        ALL, "perfmon", gpl_only=True, since=(5, 15), source=TRACE,
    ),
    Helper(
        "get_branch_snapshot", 176, INT, (MEM_UNINIT, SIZE0),
        "long (void *entries, u32 size, u64 flags)",
        ALL, "perfmon", gpl_only=True, net_since=(6, 16), since=(5, 16), source=TRACE,
    ),
    Helper(
        "trace_vprintk", 177, INT, (MEM_R, SIZE, MEM_R_OR_NULL, SIZE0),
        "long (const char *fmt, u32 fmt_size, const void *data, u32 data_len)",
        ALL, "perfmon", gpl_only=True, prints=True, since=(5, 16), source=TRACE,
    ),
    Helper(
        "skc_to_unix_sock", 178, Ret(RetType.BTF_ID, NULL, "unix_sock"), (BTF_SOCK,),
        "struct unix_sock *(void *sk)",
        ALL, "perfmon", since=(5, 16), source=FILTER,
    ),
    Helper(
        "find_vma", 180, INT, (_btf("task_struct"), ANY, FUNC, STACK_OR_NULL, ANY),
        "long (struct task_struct *task, u64 addr, void *callback_fn, void *callback_ctx, u64 flags)",
        ALL, "perfmon", callback="sync", net_since=(6, 16), since=(5, 17), source="kernel/bpf/task_iter.c",
    ),
    Helper(
        "loop", 181, INT, (ANY, FUNC, STACK_OR_NULL, ANY),
        "long (u32 nr_loops, void *callback_fn, void *callback_ctx, u64 flags)",
        ALL, "bpf", callback="sync", engine=True, since=(5, 17), source="kernel/bpf/bpf_iter.c",
    ),
    Helper(
        "strncmp", 182, INT, (MEM_R, SIZE, STR),
        "long (const char *s1, u32 s1_sz, const char *s2)",
        ALL, "none", since=(5, 17), source=HELPERS_C,
    ),
    Helper(
        "xdp_get_buff_len", 188, INT, (CTX,),
        "u64 (struct xdp_buff *xdp_md)",
        XDP, "none", since=(5, 18), source=FILTER,
    ),
    Helper(
        "xdp_load_bytes", 189, INT, (CTX, ANY, MEM_UNINIT, SIZE),
        "long (struct xdp_buff *xdp_md, u32 offset, void *buf, u32 len)",
        XDP, "none", since=(5, 18), source=FILTER,
    ),
    Helper(
        "xdp_store_bytes", 190, INT, (CTX, ANY, MEM_R, SIZE),
        "long (struct xdp_buff *xdp_md, u32 offset, void *buf, u32 len)",
        XDP, "none", since=(5, 18), source=FILTER,
    ),
    Helper(
        "copy_from_user_task", 191, INT, (MEM_UNINIT, SIZE0, ANY, _btf("task_struct"), ANY),
        "long (void *dst, u32 size, const void *user_ptr, struct task_struct *tsk, u64 flags)",
        ALL, "perfmon", gpl_only=True, might_sleep=True, net_since=(6, 16), since=(5, 18), source=HELPERS_C,
    ),
    Helper(
        "skb_set_tstamp", 192, INT, (CTX, ANY, ANY),
        "long (struct sk_buff *skb, u64 tstamp, u32 tstamp_type)",
        TC, "none", since=(5, 18), source=FILTER,
    ),
    Helper(
        "kptr_xchg", 194, Ret(RetType.BTF_ID, NULL, "None"), (KPTR, KPTR_VALUE),
        "void *(void *map_value, void *ptr)",
        ALL, "bpf", acquires=True, since=(5, 19), source=HELPERS_C,
    ),
    Helper(
        "map_lookup_percpu_elem", 195, MAP_VALUE_OR_NULL, (MAP, KEY, ANY),
        "void *(struct bpf_map *map, const void *key, u32 cpu)",
        ALL, "none", pkt_access=True, since=(5, 19), source=HELPERS_C,
    ),
    Helper(
        "skc_to_mptcp_sock", 196, Ret(RetType.BTF_ID, NULL, "mptcp_sock"), (SOCK_COMMON,),
        "struct mptcp_sock *(void *sk)",
        ALL, "perfmon", casts=True, since=(5, 19), source=FILTER,
    ),
    Helper(
        "dynptr_from_mem", 197, INT, (MEM_UNINIT, SIZE0, ANY, DYNPTR_LOCAL),
        "long (void *data, u32 size, u64 flags, struct bpf_dynptr *ptr)",
        ALL, "bpf", since=(5, 19), source=HELPERS_C,
    ),
    Helper(
        "ringbuf_reserve_dynptr", 198, INT, (MAP, ANY, ANY, DYNPTR_RINGBUF),
        "long (void *ringbuf, u32 size, u64 flags, struct bpf_dynptr *ptr)",
        ALL, "bpf", since=(5, 19), source=RINGBUF,
    ),
    Helper(
        "ringbuf_submit_dynptr", 199, VOID, (DYNPTR_RELEASE, ANY),
        "void (struct bpf_dynptr *ptr, u64 flags)",
        ALL, "bpf", since=(5, 19), source=RINGBUF,
    ),
    Helper(
        "ringbuf_discard_dynptr", 200, VOID, (DYNPTR_RELEASE, ANY),
        "void (struct bpf_dynptr *ptr, u64 flags)",
        ALL, "bpf", since=(5, 19), source=RINGBUF,
    ),
    Helper(
        "dynptr_read", 201, INT, (MEM_UNINIT, SIZE0, DYNPTR, ANY, ANY),
        "long (void *dst, u32 len, struct bpf_dynptr *src, u32 offset, u64 flags)",
        ALL, "bpf", since=(5, 19), source=HELPERS_C,
    ),
    Helper(
        "dynptr_write", 202, INT, (DYNPTR, ANY, MEM_R, SIZE0, ANY),
        "long (struct bpf_dynptr *dst, u32 offset, void *src, u32 len, u64 flags)",
        ALL, "bpf", since=(5, 19), source=HELPERS_C,
    ),
    Helper(
        "dynptr_data", 203, DYNPTR_MEM_OR_NULL, (DYNPTR, ANY, ALLOC_SIZE),
        "void *(struct bpf_dynptr *ptr, u32 offset, u32 len)",
        ALL, "bpf", since=(5, 19), source=HELPERS_C,
    ),
    Helper(
        "tcp_raw_gen_syncookie_ipv4", 204, INT, (_fixed(20, RDONLY), MEM_R, SIZE0),
        "s64 (struct iphdr *iph, struct tcphdr *th, u32 th_len)",
        TC_XDP, "none", gpl_only=True, pkt_access=True, since=(6, 0), source=FILTER,
    ),
    Helper(
        "tcp_raw_gen_syncookie_ipv6", 205, INT, (_fixed(40, RDONLY), MEM_R, SIZE0),
        "s64 (struct ipv6hdr *iph, struct tcphdr *th, u32 th_len)",
        TC_XDP, "none", gpl_only=True, pkt_access=True, since=(6, 0), source=FILTER,
    ),
    Helper(
        "tcp_raw_check_syncookie_ipv4", 206, INT, (_fixed(20, RDONLY), _fixed(20, RDONLY)),
        "long (struct iphdr *iph, struct tcphdr *th)",
        TC_XDP, "none", gpl_only=True, pkt_access=True, since=(6, 0), source=FILTER,
    ),
    Helper(
        "tcp_raw_check_syncookie_ipv6", 207, INT, (_fixed(40, RDONLY), _fixed(20, RDONLY)),
        "long (struct ipv6hdr *iph, struct tcphdr *th)",
        TC_XDP, "none", gpl_only=True, pkt_access=True, since=(6, 0), source=FILTER,
    ),
    Helper("ktime_get_tai_ns", 208, INT, (), "u64 (void)", ALL, "none", since=(6, 1), source=HELPERS_C),
    Helper(
        "user_ringbuf_drain", 209, INT, (MAP, FUNC, STACK_OR_NULL, ANY),
        "long (struct bpf_map *map, void *callback_fn, void *ctx, u64 flags)",
        ALL, "bpf", callback="sync", since=(6, 1), source=RINGBUF,
    ),
    Helper(
        "cgrp_storage_get", 210, MAP_VALUE_OR_NULL, (MAP, _btf("cgroup", NULL), VALUE_OR_NULL, ANY),
        "void *(struct bpf_map *map, struct cgroup *cgroup, void *value, u64 flags)",
        ALL, "bpf", since=(6, 2), source="kernel/bpf/bpf_cgrp_storage.c",
    ),
    Helper(
        "cgrp_storage_delete", 211, INT, (MAP, _btf("cgroup", NULL)),
        "long (struct bpf_map *map, struct cgroup *cgroup)",
        ALL, "bpf", since=(6, 2), source="kernel/bpf/bpf_cgrp_storage.c",
    ),
    name=lambda row: row.name,
    number=lambda row: row.id,
)

_CLASSIC: dict[str, Any] = {"ret": INT, "args": (CTX, ANY, ANY), "progs": ALL, "privilege": "none", "since": (3, 15)}
_A_AND_X = "u32 (struct sk_buff *skb, u32 a, u32 x)"

CONVERTED: Table[Helper] = Table(
    Helper("classic_nlattr", 0x1000C, proto=_A_AND_X, source="bpf_skb_get_nlattr(), net/core/filter.c", **_CLASSIC),
    Helper("classic_nlattr_nest", 0x10010, proto=_A_AND_X, source="bpf_skb_get_nlattr_nest(), net/core/filter.c", **_CLASSIC),
    Helper("classic_hatype", 0x1001C, proto=_A_AND_X, source="convert_bpf_extensions(), net/core/filter.c", **_CLASSIC),
    Helper("classic_pay_offset", 0x10034, proto=_A_AND_X, source="bpf_skb_get_pay_offset(), net/core/filter.c", **_CLASSIC),
    name=lambda row: row.name,
    number=lambda row: row.id,
)
"""What only a converted classic program calls. The kernel calls functions by address; the ids are ours: 0x10000 + SKF_AD_*."""


def helper_at(id: int) -> Helper | None:
    """Return the row of a call in a program that may be a converted one."""
    return HELPERS.at(id) or CONVERTED.at(id)

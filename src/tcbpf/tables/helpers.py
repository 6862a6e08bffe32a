"""The helpers that programs may call: prototype, permission and provenance, one row each.

Source:  include/uapi/linux/bpf.h (names, ids, C prototypes); the bpf_func_proto of each helper, kernel/bpf and
         net/core/filter.c (v6.12, argument types and flags).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, Flag, auto

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
    might_sleep: bool = False
    fastcall: bool = False
    since: Release = (99, 0)
    source: str = ""


HELPERS: Table[Helper] = Table(name=lambda row: row.name, number=lambda row: row.id)

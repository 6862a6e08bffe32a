"""The types a register can have, as small integers: a base and flags, under the kernel's names and spellings.

Integers and not an Enum, because the hot loop compares and masks them on every instruction.

Source:  enum bpf_reg_type, enum bpf_type_flag, include/linux/bpf.h; reg_type_str(), kernel/bpf/log.c (v6.18).
"""

from __future__ import annotations

from typing import Final

NOT_INIT: Final = 0
SCALAR: Final = 1
CTX: Final = 2
MAP_PTR: Final = 3  # CONST_PTR_TO_MAP
MAP_VALUE: Final = 4
MAP_KEY: Final = 5
STACK: Final = 6
PACKET_META: Final = 7
PACKET: Final = 8
PACKET_END: Final = 9
FLOW_KEYS: Final = 10  # of another program type
SOCKET: Final = 11
SOCK_COMMON: Final = 12
TCP_SOCK: Final = 13
XDP_SOCK: Final = 14
BTF_ID: Final = 15
MEM: Final = 16
BUF: Final = 17
FUNC: Final = 18
DYNPTR: Final = 19  # CONST_PTR_TO_DYNPTR

BASE: Final = 0xFF
MAYBE_NULL: Final = 1 << 8
RDONLY: Final = 1 << 9
RINGBUF: Final = 1 << 10
PERCPU: Final = 1 << 11
RCU: Final = 1 << 12
UNTRUSTED: Final = 1 << 13
TRUSTED: Final = 1 << 14
ALLOC: Final = 1 << 15
NON_OWN_REF: Final = 1 << 16
DYNPTR_SKB: Final = 1 << 17  # a slice of packet data, gone when the packet changes
DYNPTR_XDP: Final = 1 << 18
DYNPTR_SKB_META: Final = 1 << 20
DYNPTR_LOCAL: Final = 1 << 21  # a slice that a kernel function gave of other memory
DYNPTR_PACKETS: Final = DYNPTR_SKB | DYNPTR_XDP | DYNPTR_SKB_META
DYNPTR_KINDS: Final = DYNPTR_PACKETS | DYNPTR_LOCAL
USER: Final = 1 << 19  # a user-space address

TRUST: Final = TRUSTED | ALLOC

_NAMES: Final = (
    "?",
    "scalar",
    "ctx",
    "map_ptr",
    "map_value",
    "map_key",
    "fp",
    "pkt_meta",
    "pkt",
    "pkt_end",
    "flow_keys",
    "sock",
    "sock_common",
    "tcp_sock",
    "xdp_sock",
    "ptr_",
    "mem",
    "buf",
    "func",
    "dynptr_ptr",
)
_PREFIXES: Final = (
    (RDONLY, "rdonly_"),
    (RINGBUF, "ringbuf_"),
    (USER, "user_"),
    (PERCPU, "percpu_"),
    (RCU, "rcu_"),
    (UNTRUSTED, "untrusted_"),
    (TRUSTED, "trusted_"),
)


def type_name(type: int) -> str:
    """Return the kernel's word for a register type: "pkt", "map_value_or_null", "rdonly_mem"."""
    prefix = "".join(word for flag, word in _PREFIXES if type & flag)
    postfix = ""
    if type & MAYBE_NULL:
        postfix = "or_null_" if type & BASE == BTF_ID else "_or_null"
    return prefix + _NAMES[type & BASE] + postfix


def is_packet(type: int) -> bool:
    """Tell whether this points into packet data or metadata (the end is not inside)."""
    return type in (PACKET, PACKET_META)


def is_packet_any(type: int) -> bool:
    """Tell whether this is a packet pointer of any kind, the end included."""
    return type in (PACKET, PACKET_META, PACKET_END)


def is_socket(type: int) -> bool:
    """Tell whether this points to one of the socket structures with fields of their own."""
    return type in (SOCKET, SOCK_COMMON, TCP_SOCK, XDP_SOCK)


_SPILLABLE: Final = frozenset(
    (
        MAP_VALUE,
        STACK,
        CTX,
        PACKET,
        PACKET_META,
        PACKET_END,
        MAP_PTR,
        SOCKET,
        SOCK_COMMON,
        TCP_SOCK,
        XDP_SOCK,
        BTF_ID,
        BUF,
        MEM,
        FUNC,
        MAP_KEY,
    )
)


def is_allocated(type: int) -> bool:
    """Tell whether a pointer surely points to an object that the program allocated, on this CPU."""
    return type & BASE == BTF_ID and bool(type & ALLOC) and not type & (MAYBE_NULL | PERCPU)


def is_spillable(type: int) -> bool:
    """Tell whether a stack slot remembers a pointer of this type."""
    return type & BASE in _SPILLABLE


_NEVER_NULL: Final = frozenset((SOCKET, TCP_SOCK, MAP_VALUE, MAP_KEY, SOCK_COMMON, MAP_PTR))


def is_never_null(type: int) -> bool:
    """Tell whether a pointer of this very type cannot be NULL, so that comparing it with 0 is decided."""
    if type & MAYBE_NULL:
        return False
    return type & BASE in _NEVER_NULL or (type & BASE == BTF_ID and bool(type & (TRUST | NON_OWN_REF))) or type & BASE == MEM


_ONE_KIND_ONLY: Final = frozenset((CTX, SOCKET, SOCK_COMMON, TCP_SOCK, XDP_SOCK, BTF_ID))


def may_share_instruction(one: int, other: int) -> bool:
    """Tell whether one load or store instruction may reach memory of both types on different paths.

    The kernel rewrites an access to a structure of its own, such as the context, so it must be the same on every path.
    """
    return one == other or not (one & BASE in _ONE_KIND_ONLY or other & BASE in _ONE_KIND_ONLY)

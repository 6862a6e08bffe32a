"""The fields of struct __sk_buff and struct xdp_md: where, who may read and write them, one row each.

Source:  include/uapi/linux/bpf.h; bpf_skb_is_valid_access() and its callers, net/core/filter.c (v6.12 and 6.18).
"""

from __future__ import annotations

from dataclasses import dataclass

from tcbpf.tables.row import Release, Table


@dataclass(frozen=True, slots=True)
class Field:
    """One context field. Defaults fail closed.

    Units:   off and size in bytes of the UAPI struct. native is (off, size) of the same field in the runtime's struct
             tcbpf_skb, whose first 192 bytes mirror the UAPI: (0, 0) means the same place, same size. `data` is a __u32 for
             the program's author and an 8-byte pointer for the engine; tc_classid keeps 16 of its 32 bits.
    """

    name: str
    off: int
    size: int
    pointer: str = ""                                  # "pkt", "pkt_meta", "pkt_end", "flow_keys", "sock_common_or_null"
    read: frozenset[str] = frozenset()                 # program types
    write: frozenset[str] = frozenset()
    narrow: bool = False                               # reads of part of the field are allowed
    wide: bool = False                                 # 8-byte access across a pair of fields is allowed
    native: tuple[int, int] = (0, 0)
    big_endian: bool = False                           # holds a network-order number (protocol, vlan_proto, ...)
    test_run: bool = False                             # BPF_PROG_TEST_RUN's ctx_in may set it
    since: Release = (99, 0)
    source: str = ""


SKB: Table[Field] = Table(name=lambda row: row.name, number=lambda row: row.off)
XDP: Table[Field] = Table(name=lambda row: row.name, number=lambda row: row.off)

"""The fields of struct __sk_buff and struct xdp_md: where, who may read and write them, one row each.

Every access is aligned to its own size. Beyond that a row says all: a full-size read or write by the program types it
names; a narrow read (or, for cb, write) of part of it; an 8-byte access over a pair. A sign-extending load reads what a load
reads, save for pointers; a store of an immediate writes what a store writes; no atomic does. What no row covers is refused.

Source:  include/uapi/linux/bpf.h; bpf_skb_is_valid_access(), tc_cls_act_is_valid_access(), sk_filter_is_valid_access(),
         cg_skb_is_valid_access(), xdp_is_valid_access() and bpf_convert_ctx_access(), net/core/filter.c (v6.18).
"""

from __future__ import annotations

from dataclasses import dataclass

from tcbpf.tables.row import Release, Table


@dataclass(frozen=True, slots=True)
class Field:
    """One context field. Defaults fail closed.

    Units:   off and size in bytes of the UAPI struct. native is (off, size) of the same field in the runtime's struct
             tcbpf_skb, whose first 192 bytes mirror the UAPI: (0, 0) means the same place, same size. `data` is a __u32 for
             the program's author and an 8-byte pointer for the engine; tc_classid keeps 16 of its 32 bits. have is the size
             of the kernel's own field where that is smaller (bpf_convert_ctx_access()'s target_size).
    """

    name: str
    off: int
    size: int
    pointer: str = ""                                  # "pkt", "pkt_meta", "pkt_end", "flow_keys", "sock_common_or_null"
    read: frozenset[str] = frozenset()                 # program types
    write: frozenset[str] = frozenset()
    narrow: bool = False                               # reads of part of the field are allowed
    narrow_write: bool = False                         # and writes of part of it
    wide: bool = False                                 # 8-byte access across this field and the next is allowed
    privileged: frozenset[str] = frozenset()           # of "read", "write": which need CAP_BPF (cgroup_skb only)
    attach_type: int = 0                               # readable only by a program loaded for this attach type
    native: tuple[int, int] = (0, 0)
    ignored_from: int = 0                              # a store of this value or more does nothing; 0 for none
    big_endian: bool = False                           # holds a network-order number (protocol, vlan_proto, ...)
    test_run: bool = False                             # BPF_PROG_TEST_RUN's ctx_in may set it
    have: int = 0                                      # a read of a part of so many bytes or more gives all of it; 0: size
    most: int = 0                                      # the largest number that a caller may give; 0: what fits
    fixed: bool = False                                # follows from the packet: nobody gives it
    since: Release = (99, 0)
    source: str = ""


_TC = frozenset({"sched_cls", "sched_act"})
_SF = frozenset({"socket_filter"})
_CG = frozenset({"cgroup_skb"})
_XDP = frozenset({"xdp"})
_ALL = _TC | _SF | _CG
_RULES = "bpf_skb_is_valid_access() and its callers, net/core/filter.c"


def _word(name: str, off: int, since: Release, read: frozenset[str] = _ALL, write: frozenset[str] = frozenset(), *,
          native: tuple[int, int] = (0, 0), ignored_from: int = 0, big_endian: bool = False, test_run: bool = False,
          narrow: bool = True, have: int = 0, most: int = 0, fixed: bool = False) -> Field:
    """Return an ordinary __u32 field: narrow reads, full writes."""
    return Field(name, off, 4, read=read, write=write, narrow=narrow, native=native, ignored_from=ignored_from,
                 big_endian=big_endian, test_run=test_run, have=have or native[1],
                 most=most or (1 << 8 * have) - 1, fixed=fixed, since=since, source=_RULES)


def _packet(name: str, off: int, pointer: str, read: frozenset[str], native: int, since: Release,
            privileged: frozenset[str] = frozenset()) -> Field:
    """Return a packet pointer: a __u32 to the author, read whole, eight bytes to the engine."""
    return Field(name, off, 4, pointer=pointer, read=read, privileged=privileged, native=(native, 8), since=since,
                 source=_RULES)


SKB: Table[Field] = Table(
    _word("len", 0, (4, 1), fixed=True),
    _word("pkt_type", 4, (4, 1), have=1, most=7),
    _word("mark", 8, (4, 1), write=_TC | _CG, test_run=True),
    _word("queue_mapping", 12, (4, 1), write=_TC, native=(12, 2), ignored_from=0xFFFF),
    _word("protocol", 16, (4, 1), have=2, big_endian=True),
    _word("vlan_present", 20, (4, 1), most=1),
    _word("vlan_tci", 24, (4, 1), have=2),
    _word("vlan_proto", 28, (4, 1), have=2, big_endian=True),
    _word("priority", 32, (4, 1), write=_TC | _CG, test_run=True),
    _word("ingress_ifindex", 36, (4, 2), test_run=True),
    _word("ifindex", 40, (4, 2), test_run=True),
    _word("tc_index", 44, (4, 2), write=_TC, native=(44, 2)),
    *(
        Field(f"cb[{i}]", 48 + 4 * i, 4, read=_ALL, write=_ALL, narrow=True, narrow_write=True, wide=i in (0, 2),
              test_run=True, since=(4, 2), source=_RULES)
        for i in range(5)
    ),
    _word("hash", 68, (4, 3)),
    _word("tc_classid", 72, (4, 3), read=_TC, write=_TC, native=(72, 2)),
    _packet("data", 76, "pkt", _TC | _CG, 192, (4, 7), frozenset({"read"})),
    _packet("data_end", 80, "pkt_end", _TC | _CG, 200, (4, 7), frozenset({"read"})),
    _word("napi_id", 84, (4, 12)),
    _word("family", 88, (4, 14), read=_CG, have=2),
    _word("remote_ip4", 92, (4, 14), read=_CG, big_endian=True, narrow=False),
    _word("local_ip4", 96, (4, 14), read=_CG, big_endian=True, narrow=False),
    *(_word(f"remote_ip6[{i}]", 100 + 4 * i, (4, 14), read=_CG, big_endian=True, narrow=False) for i in range(4)),
    *(_word(f"local_ip6[{i}]", 116 + 4 * i, (4, 14), read=_CG, big_endian=True, narrow=False) for i in range(4)),
    _word("remote_port", 132, (4, 14), read=_CG, big_endian=True),
    _word("local_port", 136, (4, 14), read=_CG),
    _packet("data_meta", 140, "pkt_meta", _TC, 208, (4, 15)),
    Field("flow_keys", 144, 8, pointer="flow_keys", since=(4, 20), source=_RULES),
    Field("tstamp", 152, 8, read=_TC | _CG, write=_TC | _CG, privileged=frozenset({"write"}), test_run=True, since=(5, 0),
          source=_RULES),
    _word("wire_len", 160, (5, 0), read=_TC, test_run=True),
    _word("gso_segs", 164, (5, 1), have=2, test_run=True),
    Field("sk", 168, 8, pointer="sock_common_or_null", read=_ALL, since=(5, 1), source=_RULES),
    _word("gso_size", 176, (5, 7), have=2, test_run=True),
    Field("tstamp_type", 180, 1, read=_TC, most=2, since=(5, 18), source=_RULES),
    Field("hwtstamp", 184, 8, read=_TC | _CG, test_run=True, since=(5, 16), source=_RULES),
    name=lambda row: row.name,
    number=lambda row: row.off,
)
SKB_SIZE = 192                                         # sizeof(struct __sk_buff)

_XDP_RULES = "xdp_is_valid_access(), net/core/filter.c"

XDP: Table[Field] = Table(
    Field("data", 0, 4, pointer="pkt", read=_XDP, native=(192, 8), since=(4, 8), source=_XDP_RULES),
    Field("data_end", 4, 4, pointer="pkt_end", read=_XDP, native=(200, 8), since=(4, 8), source=_XDP_RULES),
    Field("data_meta", 8, 4, pointer="pkt_meta", read=_XDP, native=(208, 8), since=(4, 15), source=_XDP_RULES),
    Field("ingress_ifindex", 12, 4, read=_XDP, native=(36, 4), test_run=True, since=(4, 16), source=_XDP_RULES),
    Field("rx_queue_index", 16, 4, read=_XDP, native=(12, 4), test_run=True, since=(4, 16), source=_XDP_RULES),
    Field("egress_ifindex", 20, 4, read=_XDP, attach_type=33, native=(40, 4), since=(5, 8), source=_XDP_RULES),
    name=lambda row: row.name,
    number=lambda row: row.off,
)
XDP_SIZE = 24                                          # sizeof(struct xdp_md)


def field_at(fields: Table[Field], off: int) -> Field | None:
    """Return the field whose bytes hold `off`, or None for padding and what lies outside."""
    return _COVER[id(fields)].get(off)


_COVER = {id(table): {row.off + i: row for row in table for i in range(row.size)} for table in (SKB, XDP)}

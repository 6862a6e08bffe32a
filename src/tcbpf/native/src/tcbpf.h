/* The runtime's data, as machine code, helpers, packet loop and Python share it.
 *
 * Nothing here is a pointer into another process: a map is a file (offsets only), everything else lives in one process.
 * Python learns the layout from tcbpf_layout (layout.c), never from a second definition.
 *
 * C11, freestanding: memcpy, memset, memcmp and atomics only. All sizes in bytes, all times in nanoseconds.
 */
#ifndef TCBPF_H
#define TCBPF_H

#include <stdint.h>
#include <stddef.h>

typedef uint8_t u8; typedef uint16_t u16; typedef uint32_t u32; typedef uint64_t u64;
typedef int32_t s32; typedef int64_t s64;

struct tcbpf_env;
struct tcbpf_skb;

/* --- maps ---------------------------------------------------------------------------------------------------------
 * One file: this header (one page), then buckets, then slots. The first bytes of the file say what it is.
 */
#define TCBPF_MAP_MAGIC 0x70616d6670626374ull          /* "tcbpfmap" */
#define TCBPF_MAP_VERSION 1

struct tcbpf_map {
    u64 magic;
    u32 version, type, key_size, value_size, max_entries, flags, id, frozen;
    char name[16];
    u32 cpus;                   /* possible CPUs, for per-CPU types */
    u32 value_stride;           /* bytes from one value (one CPU's) to the next */
    u64 size;                   /* of the whole file */
    u64 buckets, slots;         /* offsets from the start of the file */
    u32 n_buckets, slot_stride;
    u32 btf_key_type, btf_value_type;
    u64 btf, btf_size;          /* offset and size of the BTF blob, 0 for none */
    u64 inner;                  /* map in map: offset of the inner map's header as a template */
    /* what changes: on cache lines of its own */
    u64 free __attribute__((aligned(64)));       /* head of the free list: slot index + 1 in the low half, ABA tag above */
    u32 count;
    u32 lock;
    u64 clock;                  /* LRU */
} __attribute__((aligned(64)));

/* --- programs -------------------------------------------------------------------------------------------------------
 * Machine code has this one signature. `maps` is in the order of Program.maps.
 */
typedef u64 (*tcbpf_fn)(void *ctx, struct tcbpf_env *env, struct tcbpf_map *const *maps);

struct tcbpf_prog {
    tcbpf_fn fn;
    struct tcbpf_map *const *maps;
    u32 n_maps, id;
    u64 run_cnt, run_time_ns;
};

/* --- the packet ------------------------------------------------------------------------------------------------------
 * The first 192 bytes are struct __sk_buff itself, so that a context access is a plain load or store, save for the fields
 * whose row in tables/skb.py names another `native` place.
 */
struct tcbpf_sk_buff {          /* struct __sk_buff, include/uapi/linux/bpf.h */
    u32 len, pkt_type, mark, queue_mapping, protocol, vlan_present, vlan_tci, vlan_proto, priority, ingress_ifindex, ifindex,
        tc_index, cb[5], hash, tc_classid, data, data_end, napi_id, family, remote_ip4, local_ip4, remote_ip6[4],
        local_ip6[4], remote_port, local_port, data_meta;
    u64 flow_keys, tstamp;
    u32 wire_len, gso_segs;
    u64 sk;
    u32 gso_size;
    u8 tstamp_type, pad[3];
    u64 hwtstamp;
};

struct tcbpf_tunnel_key {       /* struct bpf_tunnel_key */
    u32 tunnel_id, remote[4];
    u8 tos, ttl;
    u16 flags;
    u32 label, local[4];
};

struct tcbpf_skb {
    struct tcbpf_sk_buff u;
    u8 *data, *data_end, *data_meta;             /* 192, 200, 208 */
    u8 *head, *end;                              /* the buffer that data lies in */
    u32 mac_len;                                 /* bytes of link header at data */
    u16 network, transport;                      /* offsets from data; 0xffff not known */
    u8 ip_summed, csum_level, csum_valid, hash_valid;
    u16 csum_start, csum_offset;
    u32 csum;
    u32 caplen;                                  /* as captured: wire_len when not cut */
    struct tcbpf_tunnel_key tunnel_rx, tunnel_tx;
    u8 has_tunnel_rx, has_tunnel_tx, tunnel_opt_len, at_ingress;
    u8 tunnel_opt[255];
    void *dev;                                   /* the device it is on, or NULL */
};

/* --- one thread of execution ------------------------------------------------------------------------------------------ */
#define TCBPF_MAX_TAIL_CALLS 33

struct tcbpf_env {
    u32 cpu, numa, tail_calls, flags;
    u64 random[4];
    s64 clock;                                   /* >= 0: a virtual clock's now; < 0: ask the host */
    u64 insns;                                   /* executed, when counted */
    struct { u32 ifindex, flags; u8 kind; } redirect;
    struct tcbpf_prog *const *progs;             /* by program id, for tail calls */
    u32 n_progs, depth;
    /* Called for what C cannot do: a program id that `progs` lacks, trace output, a clone to send. */
    u64 (*host)(struct tcbpf_env *env, u32 what, void *arg, u64 len);
    u64 reserved[8];
};

#endif

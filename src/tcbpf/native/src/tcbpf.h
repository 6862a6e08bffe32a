/* The runtime's data, as machine code, helpers, packet loop and Python share it.
 *
 * Nothing here is a pointer into another process: a map is a file (offsets only), everything else lives in one process.
 * Python learns the layout from tcbpf_layout (layout.c), never from a second definition.
 *
 * GNU C11 (__int128, attributes) without libc: memcpy, memset, memcmp, memmove, atomics and system calls only. All sizes
 * in bytes, all times in nanoseconds. An errno is returned negative; a helper returns it as a u64.
 */
#ifndef TCBPF_H
#define TCBPF_H

#include <stdint.h>
#include <stddef.h>

typedef uint8_t u8; typedef uint16_t u16; typedef uint32_t u32; typedef uint64_t u64;
typedef int16_t s16; typedef int32_t s32; typedef int64_t s64;

struct tcbpf_env;
struct tcbpf_skb;
struct tcbpf_dev;

/* --- maps ---------------------------------------------------------------------------------------------------------
 * One file: this header, then buckets, then slots, then the BTF blob. The first bytes of the file say what it is.
 *
 * `shape` never changes after creation and holds no name, id or seed: machine code that knows its map at compile time
 * passes a constant copy of it (tcbpf_map_lookup and friends below), and the optimiser folds every size and offset.
 */
#define TCBPF_MAP_MAGIC 0x70616d6670626374ull          /* "tcbpfmap" */
#define TCBPF_MAP_VERSION 3

struct tcbpf_shape {
    u32 type, key_size, value_size, max_entries, flags;
    u32 cpus;                   /* possible CPUs, for per-CPU types; else 1 */
    u32 value_stride;           /* value_size rounded up to 8: from one CPU's value to the next */
    u32 slot_stride;            /* from one element to the next */
    u32 value_off;              /* of the value in its slot */
    u32 n_slots;
    u32 n_buckets;              /* a power of two */
    u32 spin_lock;              /* where in a value its bpf_spin_lock lies, + 1; 0 for none */
    u32 hashes;                 /* bloom filter: bits of a value */
    u32 buckets;                /* offsets from the start of the file */
    u64 slots;
};

struct tcbpf_map {
    u64 magic;
    u32 version, header_size;
    struct tcbpf_shape s;
    u64 size;                   /* of the whole file */
    u64 btf, btf_size;          /* offset and size of the BTF blob, 0 for none */
    u32 btf_key_type, btf_value_type;
    u32 id, seed;
    u64 map_extra, load_time;   /* load_time: CLOCK_BOOTTIME at creation */
    u32 owner, pad;             /* prog array: its programs' type | attach type << 16 */
    char name[16];
    struct tcbpf_shape inner;   /* map in map: what an inner map must be */
    /* what changes: on cache lines of its own */
    u64 lock __attribute__((aligned(64)));       /* 0, or the holder's tcbpf_env.owner */
    u32 count;                  /* elements */
    u32 fresh;                  /* slots from here on were never used */
    u32 free;                   /* head of the free list: slot + 1, 0 for none */
    u32 hand;                   /* LRU: where the clock stands */
    u32 root, seq;              /* LPM: the root, slot + 1, 0 for none; odd while nodes move */
    u32 frozen;
    u32 repaired;               /* times that a dead holder's lock was taken over */
    u64 head, tail;             /* queue and stack: taken and put so far; ring buffer: bytes read and reserved */
    u64 pending;                /* ring buffer: bytes up to the first record that may be unfinished */
} __attribute__((aligned(64)));

/* What a slot of a perf event array has in the file: bytes read and written, records that found no room. */
#define TCBPF_PERF_RING (1u << 16)
struct tcbpf_perf_ring { u64 head, tail, lost; u32 open, pad[9]; u8 data[TCBPF_PERF_RING]; };

/* The three operations as a program sees them; `s` is the map's own shape or a constant copy. */
void *tcbpf_map_lookup(struct tcbpf_env *env, struct tcbpf_map *map, const struct tcbpf_shape *s, const void *key);
u64 tcbpf_map_update(struct tcbpf_env *env, struct tcbpf_map *map, const struct tcbpf_shape *s, const void *key,
                     const void *value, u64 flags);
u64 tcbpf_map_delete(struct tcbpf_env *env, struct tcbpf_map *map, const struct tcbpf_shape *s, const void *key);

/* As bpf(2) does them: whole per-CPU values, no LRU reference, frozen and access flags respected; 0 or -errno. */
s64 tcbpf_user_lookup(struct tcbpf_env *env, struct tcbpf_map *map, const void *key, void *value);
s64 tcbpf_user_update(struct tcbpf_env *env, struct tcbpf_map *map, const void *key, const void *value, u64 flags);
s64 tcbpf_user_delete(struct tcbpf_env *env, struct tcbpf_map *map, const void *key);
s64 tcbpf_user_next_key(struct tcbpf_env *env, struct tcbpf_map *map, const void *key, void *next);   /* key may be NULL */
s64 tcbpf_user_pop(struct tcbpf_env *env, struct tcbpf_map *map, const void *key, void *value);       /* lookup_and_delete */
s64 tcbpf_user_ring_take(struct tcbpf_env *env, struct tcbpf_map *map, void *to, u64 room);
s64 tcbpf_user_perf_take(struct tcbpf_env *env, struct tcbpf_map *map, u32 index, void *to, u64 room);
s64 tcbpf_user_perf_open(struct tcbpf_env *env, struct tcbpf_map *map, u32 index, u32 open);
/* Fill in everything of `s` after `flags` and `cpus` from what precedes; returns the file's size, or -errno. */
s64 tcbpf_map_plan(struct tcbpf_shape *s);

/* --- programs -------------------------------------------------------------------------------------------------------
 * Machine code has this one signature. `maps` is in the order of Program.maps.
 */
typedef u64 (*tcbpf_fn)(void *ctx, struct tcbpf_env *env, struct tcbpf_map *const *maps);

/* A function of a program that the runtime calls back: the program's context, environment and maps come after its arguments. */
typedef u64 (*tcbpf_callback)(u64 r1, u64 r2, u64 r3, u64 r4, u64 r5, void *ctx, struct tcbpf_env *env,
                              struct tcbpf_map *const *maps);

struct tcbpf_prog {
    tcbpf_fn fn;
    struct tcbpf_map *const *maps;
    u32 n_maps, id;
    u32 type, flags;            /* UAPI program type; TCBPF_PROG_WRITES */
    u64 run_cnt;
};
#define TCBPF_PROG_WRITES 1     /* may store to the packet directly: it must not lie in read-only memory */

/* --- the packet ------------------------------------------------------------------------------------------------------
 * The first 192 bytes are struct __sk_buff itself, so that a context access is a plain load or store, save for the fields
 * whose row in tables/skb.py names another `native` place. protocol and vlan_proto hold network order in their low 16 bits.
 *
 * u.vlan_present, vlan_tci and vlan_proto are the tag kept beside the packet (the kernel's hw-accel tag); a tag in the
 * frame's bytes stays there. u.len, data and data_end always agree.
 */
struct tcbpf_sk_buff {          /* struct __sk_buff, include/uapi/linux/bpf.h */
    u32 len, pkt_type, mark, queue_mapping, protocol, vlan_present, vlan_tci, vlan_proto, priority, ingress_ifindex, ifindex,
        tc_index, cb[5], hash, tc_classid, data32, data_end32, napi_id, family, remote_ip4, local_ip4, remote_ip6[4],
        local_ip6[4], remote_port, local_port, data_meta32;
    u64 flow_keys, tstamp;
    u32 wire_len, gso_segs;
    u64 sk;
    u32 gso_size;
    u8 tstamp_type, pad[3];
    u64 hwtstamp;
};

struct tcbpf_tunnel {           /* the kernel's ip_tunnel_info: what a tunnel device took off, or is to put on */
    u8 family;                  /* 4 or 6; 0: there is none */
    u8 tx;                      /* set by bpf_skb_set_tunnel_key() */
    u8 tos, ttl;
    u16 flags;                  /* TUNNEL_*, network order */
    u8 opt_len, pad;
    u32 label;                  /* host order */
    u32 id;
    u8 src[16], dst[16];        /* an IPv4 address in the first four bytes; network order */
    u8 opt[255], pad2;
};

enum { TCBPF_CSUM_NONE, TCBPF_CSUM_UNNECESSARY, TCBPF_CSUM_COMPLETE, TCBPF_CSUM_PARTIAL };

struct tcbpf_skb {
    struct tcbpf_sk_buff u;
    u8 *data, *data_end, *data_meta;             /* 192, 200, 208 */
    u8 *head, *end;                              /* the buffer that data lies in */
    u8 *spare, *spare_end;                       /* where the packet is copied on its first write, when `readonly` */
    u32 mac_len;                                 /* bytes of link header at data */
    u16 network, transport;                      /* offsets from data; 0xffff not known */
    u8 ip_summed, csum_level, csum_valid, l4_hash;
    u8 readonly;                                 /* data lies in memory that must not be written */
    u8 at_ingress;                               /* tc_at_ingress */
    u8 ignore_df, encapsulation;
    u16 csum_start, csum_offset;                 /* PARTIAL: csum_start from data */
    u32 csum;
    u32 cut;                                     /* bytes of its end that the capture left out */
    u32 mac_back;                                /* how far before data the link header starts, when data starts behind it */
    u64 ns;                                      /* when it was captured, or arrived */
    u32 gso_type;
    struct tcbpf_tunnel tunnel;
    struct tcbpf_dev *dev;                       /* the device it is on, or NULL */
};
#define TCBPF_UNKNOWN 0xffff
#define TCBPF_HEADROOM 256      /* kept free before data where the runtime lays out a packet */
#define TCBPF_BUFFER (1u << 17) /* size of a packet buffer: 64 KiB of packet, and what helpers may add */

/* --- one thread of execution ------------------------------------------------------------------------------------------ */
#define TCBPF_MAX_TAIL_CALLS 33
#define TCBPF_MAX_LOOPS (8u << 20)      /* BPF_MAX_LOOPS: of bpf_loop(), of a numbers iterator, of a frame's may_goto */

enum tcbpf_host { TCBPF_HOST_PROG = 1, TCBPF_HOST_MAP, TCBPF_HOST_TRACE, TCBPF_HOST_OUTPUT };

/* Trace records lie one after another: this, then `len` bytes of text, padded to 8. */
struct tcbpf_trace_record { u64 ns; u32 cpu, len; };
struct tcbpf_trace { u8 *text; u64 size, used, lost; };

struct tcbpf_redirect { u32 ifindex, flags, kind, nh_family; u8 nh[16]; };

struct tcbpf_env {
    u32 cpu, numa, tail_calls, flags;
    u64 random[4];
    s64 clock;                                   /* >= 0: a virtual clock's now; < 0: ask the host */
    u64 insns;                                   /* executed, when counted */
    struct tcbpf_redirect redirect;              /* what bpf_redirect() and friends asked for */
    struct tcbpf_prog *const *progs;             /* by program id, for tail calls */
    struct tcbpf_map *const *maps;               /* by map id, for map in map */
    u32 n_progs, n_maps;
    u32 depth;                                   /* packets in transit: XMIT_RECURSION_LIMIT */
    u32 hops, nested;                            /* arrivals of the packet in hand and its clones; one inside another */
    u32 mirred;                                  /* mirred actions inside one another: MIRRED_NEST_LIMIT */
    u32 stop;                                    /* set from outside (a signal, a time limit, a failure): ends loops */
    u64 owner;                                   /* pid | pid namespace << 32: who holds a map's lock */
    s32 (*clock_gettime)(s32 clock, void *timespec);     /* libc's, or NULL for the system call */
    /* Called for what C cannot do (enum tcbpf_host): fill in a program or map that the tables lack, take output. */
    u64 (*host)(struct tcbpf_env *env, u32 what, void *arg, u64 len);
    struct tcbpf_trace *trace;
    struct tcbpf_net *net;                       /* the devices redirect reaches; NULL for none */
    struct tcbpf_prog *prog;                     /* running, for helpers that ask */
    u64 tick;                                    /* nanoseconds of the host's timer, 1/HZ */
    u64 reserved[5];
};
#define TCBPF_REDIRECT_NEIGH 1  /* redirect.kind; 0 plain */
#define TCBPF_REDIRECT_PEER 2

u32 tcbpf_each(struct tcbpf_env *env, struct tcbpf_map *map, u32 *at, u32 *index, void **key, void **value);
u64 tcbpf_for_each(struct tcbpf_env *env, u64 map, u64 callback, u64 context, u64 flags, void *ctx, struct tcbpf_map *const *maps);
/* Every helper: u64 tcbpf_helper_<name>(env, r1..r5); maps and ctx arrive as pointers. */
typedef u64 (*tcbpf_helper_fn)(struct tcbpf_env *env, u64 r1, u64 r2, u64 r3, u64 r4, u64 r5);
struct tcbpf_helper { const char *name; u32 id, flags; tcbpf_helper_fn fn; };
extern const struct tcbpf_helper tcbpf_helpers[];        /* what exists; a row with id 0 ends it */

/* A tail call: the program to jump to, or NULL to fall through. Counts (the JIT's rule: a miss is not counted). */
struct tcbpf_prog *tcbpf_tail_call(struct tcbpf_env *env, struct tcbpf_map *map, const struct tcbpf_shape *s, u64 index);
/* LD_ABS and LD_IND: 1 and *value in host order, or 0 when the program must end with 0. */
u64 tcbpf_ld_abs(struct tcbpf_env *env, struct tcbpf_skb *skb, s32 offset, u32 size, u64 *value);

/* --- traffic control -------------------------------------------------------------------------------------------------
 * A plan that Python lays out from its tables and C walks: hook -> chains (sorted by index; 0 first) -> filters (sorted by
 * pref, then by place). Codes are TC_ACT_*.
 */
enum { TCBPF_ACT_GACT = 1, TCBPF_ACT_MIRRED, TCBPF_ACT_VLAN, TCBPF_ACT_SKBEDIT, TCBPF_ACT_BPF };

struct tcbpf_action {
    u32 kind;
    s32 control;                /* TC_ACT_*, with JUMP's or GOTO_CHAIN's argument in the low 28 bits */
    u32 mode;                   /* mirred: TCA_EGRESS_REDIR 1, EGRESS_MIRROR 2, INGRESS_REDIR 3, INGRESS_MIRROR 4;
                                   vlan: TCA_VLAN_ACT_POP 1, PUSH 2, MODIFY 3 */
    u32 ifindex;                /* mirred */
    u16 vlan_id, vlan_proto;    /* vlan_proto in network order */
    u8 vlan_prio, vlan_prio_set;
    u16 queue;
    u32 set;                    /* skbedit: SKBEDIT_F_PRIORITY 1, QUEUE_MAPPING 2, MARK 4, PTYPE 8, MASK 0x10 */
    u32 priority, mark, mask;
    u32 ptype, pad;
    struct tcbpf_prog *prog;    /* bpf */
    u64 packets, bytes, drops, overlimits;
};

enum { TCBPF_CLS_BPF = 1, TCBPF_CLS_MATCHALL };
#define TCBPF_FILTER_DIRECT 1   /* direct-action */
#define TCBPF_FILTER_SKIP_SW 2

struct tcbpf_filter {
    u32 kind, flags;
    u32 pref, handle, classid;
    u16 protocol;               /* network order; 0 matches all */
    u16 pad;
    struct tcbpf_prog *prog;
    struct tcbpf_action *const *actions;
    u32 n_actions, pad2;
    u64 packets, hits;          /* run on; decided */
};

struct tcbpf_chain { u32 index, n_filters; struct tcbpf_filter *const *filters; };

struct tcbpf_hook {
    u32 n_chains, kind;
    struct tcbpf_chain *const *chains;
    u64 packets, bytes, drops, overlimits;       /* of the qdisc that the hook belongs to */
};

struct tcbpf_result { u32 classid, chain; };     /* TC classification's by-product */
/* Classify: TC_ACT_* as tcf_classify() returns it. */
s32 tcbpf_classify(struct tcbpf_env *env, const struct tcbpf_hook *hook, struct tcbpf_skb *skb, struct tcbpf_result *res);

/* Where packets end: a buffer of capture records, drained by Python. */
enum { TCBPF_PCAP_US = 1, TCBPF_PCAP_NS, TCBPF_PCAPNG, TCBPF_PCAP_MODIFIED };
struct tcbpf_sink {
    u8 *buf;
    u64 size, used;
    u32 format, snaplen;        /* TCBPF_PCAP_US/_NS/PCAPNG: records only, host byte order; file headers are Python's */
    u32 interface, pad;         /* pcapng: the interface's index */
    u64 packets, lost;          /* lost: did not fit */
};

struct tcbpf_class { u32 classid, pad; u64 packets, bytes; };

enum { TCBPF_DEV_DUMMY = 1, TCBPF_DEV_VETH, TCBPF_DEV_IFB, TCBPF_DEV_LO, TCBPF_DEV_TUNNEL };
#define TCBPF_DEV_UP 1
#define TCBPF_DEV_NOARP 2       /* no link header */

struct tcbpf_dev {
    u32 ifindex, mtu, flags, kind;
    u8 address[6];
    u16 hard_header_len;
    u32 netns, pad;
    struct tcbpf_hook *ingress, *egress;         /* clsact's (or ingress'); NULL for none */
    struct tcbpf_hook *root;                     /* a classful qdisc's filters; NULL for none */
    struct tcbpf_class *const *classes;          /* where root's verdicts are counted */
    u32 n_classes, default_class;
    struct tcbpf_dev *peer;                      /* veth */
    struct tcbpf_sink *tx, *rx;                  /* what left for the wire; what reached the stack; NULL: not kept */
    u64 rx_packets, rx_bytes, rx_dropped, tx_packets, tx_bytes, tx_dropped;
};

struct tcbpf_net {
    struct tcbpf_dev *const *devs;
    u32 n_devs;
    u32 pressed;                                 /* a device's sink is nearly full: drain before the next packet */
    u8 *buffers;                                 /* for clones: n_buffers of TCBPF_BUFFER bytes each */
    u32 n_buffers, buffers_used;
    u64 dropped_recursion, dropped_no_dev, dropped_no_buffer;
};

/* A packet arrives on / leaves through a device: runs its hooks, follows redirects, counts, captures.
 * Returns what became of it: the last TC_ACT_* that decided.
 */
s32 tcbpf_receive(struct tcbpf_env *env, struct tcbpf_dev *dev, struct tcbpf_skb *skb);
s32 tcbpf_transmit(struct tcbpf_env *env, struct tcbpf_dev *dev, struct tcbpf_skb *skb);

/* --- captures and the packet loop -------------------------------------------------------------------------------------- */
enum tcbpf_status {
    TCBPF_END = 0,              /* every record was read */
    TCBPF_MORE,                 /* the budget is used up, or the mapped window is: go on from `pos` */
    TCBPF_FULL,                 /* the output or the table of verdicts is: drain it, go on */
    TCBPF_TRUNCATED,            /* the file ends inside the record at `pos` */
    TCBPF_BAD,                  /* the record at `pos` is damaged; `error` says how */
    TCBPF_LINKTYPE,             /* the record at `pos` is of another link type than the loop's; `error` is which */
    TCBPF_STOPPED,              /* env.stop is set */
};

enum tcbpf_damage {
    TCBPF_NO_CAPTURE = 1,       /* the file starts with no magic number that is known */
    TCBPF_LENGTH,               /* a record says that it is longer than any packet */
    TCBPF_BLOCK,                /* a pcapng block's length is impossible, or its two copies differ */
    TCBPF_NO_INTERFACE,         /* a packet of an interface that was not described */
    TCBPF_MANY_INTERFACES,
    TCBPF_PCAP_VERSION,         /* a pcap of another major version than 2 */
};

/* tsresol: a tick is 10^-n s, or with 0x80 set 2^-n; offset in seconds. linktype: LINKTYPE_, and whether its header is swapped. */
struct tcbpf_interface { u32 linktype, snaplen, tsresol, pad; s64 offset; };
#define TCBPF_LINK_SWAPPED 0x10000
#define TCBPF_INTERFACES 1024
enum { TCBPF_LENGTHS_SWAPPED = 1, TCBPF_LENGTHS_EITHER };
#define TCBPF_MAX_CAPLEN 262144 /* a window of the file holds at least one record of this size */

struct tcbpf_capture {
    const u8 *base;             /* the file, or the window of it from `window` on */
    u64 size, pos;              /* bytes at base; where the next record starts, from base */
    u64 window, file_size;      /* offset of base in the file; the file's size */
    u32 format, swapped;        /* TCBPF_PCAP_US, _NS, _MODIFIED or TCBPF_PCAPNG; byte order other than the host's */
    u32 n_interfaces, error;    /* error: enum tcbpf_damage */
    u32 lengths, pad;           /* TCBPF_LENGTHS_* of an old pcap */
    struct tcbpf_interface interfaces[TCBPF_INTERFACES];
};

struct tcbpf_packet { const u8 *data; u32 caplen, len; u32 time[2]; u32 interface, head; u64 ns; };     /* head: of the record, before data */

/* Read the file header: format, byte order, interfaces[0] of a pcap. */
u32 tcbpf_capture_open(struct tcbpf_capture *c);
/* The next packet record; TCBPF_MORE when there was one. */
u32 tcbpf_capture_next(struct tcbpf_capture *c, struct tcbpf_packet *p);

#define TCBPF_VERDICTS 256
struct tcbpf_verdict { u32 value, used; u64 count; };
struct tcbpf_loop {
    struct tcbpf_capture *in;
    struct tcbpf_sink *out;     /* kept packets; NULL for none */
    struct tcbpf_skb *skb;      /* a template: ifindex, mark, dev and buffer (spare) are kept for every packet */
    u64 budget;                 /* packets for one call */
    u64 packets, bytes, kept;
    u32 writes;                 /* copy each packet to the buffer first: the program stores to it */
    u32 keep;                   /* bit v + 1 of TC_ACT v: which verdicts (-1 to 30) are written to `out` */
    u32 keep_others;            /* whether every other verdict is */
    u32 timed;                  /* set skb.ns on every packet */
    u32 linktype, pad;          /* what every packet must be of: an interface's */
    u64 cut;                    /* packets of which the capture, or the buffer, left out an end */
    u64 small[32];              /* packets by verdict -1 to 30, at v + 1 */
    struct tcbpf_verdict verdicts[TCBPF_VERDICTS];       /* the others, by hash */
};

/* Run `fn` over up to `budget` records. The inline one is for machine code that knows its program. */
u32 tcbpf_loop_inline(struct tcbpf_loop *loop, struct tcbpf_env *env, tcbpf_fn fn, struct tcbpf_map *const *maps);
u32 tcbpf_loop_run(struct tcbpf_loop *loop, struct tcbpf_env *env, struct tcbpf_prog *prog);
u64 tcbpf_repeat(struct tcbpf_env *env, const struct tcbpf_prog *prog, struct tcbpf_skb *skb, u64 times);
/* The same into a device: every packet is received (ingress != 0) or transmitted by `dev`; verdicts are the hook's. */
u32 tcbpf_loop_device(struct tcbpf_loop *loop, struct tcbpf_env *env, struct tcbpf_dev *dev, u32 ingress);

/* Lay out a packet for a run: geometry, protocol, pkt_type, lengths; marks and indices stay as they are. */
void tcbpf_skb_set(struct tcbpf_skb *skb, u8 *data, u32 len, u32 wire_len);

#endif

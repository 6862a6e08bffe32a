// SPDX-License-Identifier: Apache-2.0
/* What lets a benchmark's C file compile for this machine too: forced in front of it, in the place of bpf_helpers.h.
 *
 * The context is the runtime's own, the helpers are the runtime's own functions, linked with optimisation across files; a map is
 * the pointer that the runner leaves in the first word of its definition.
 */
#define TCBPF_BPF_HELPERS_H
#define __sk_buff uapi_sk_buff
#include <linux/bpf.h>
#undef __sk_buff

struct __sk_buff {              /* struct tcbpf_skb: the context's 192 bytes, then the pointers */
	__u32 len, pkt_type, mark, queue_mapping, protocol, vlan_present, vlan_tci, vlan_proto, priority, ingress_ifindex, ifindex,
		tc_index, cb[5], hash, tc_classid, rest[29];
	__u64 data, data_end, data_meta;
};

#define SEC(name) __attribute__((used, visibility("default")))
#define __uint(name, val) int (*name)[val]
#define __type(name, val) typeof(val) *name
#define __always_inline inline __attribute__((always_inline))
#define __noinline __attribute__((noinline))
#define NULL ((void *)0)
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

extern void *tcbpf_map_lookup(void *env, void *map, const void *shape, const void *key);
extern __u64 tcbpf_map_update(void *env, void *map, const void *shape, const void *key, const void *value, __u64 flags);
extern __u64 tcbpf_helper_skb_load_bytes(void *env, __u64, __u64, __u64, __u64, __u64);
extern __u64 tcbpf_helper_skb_store_bytes(void *env, __u64, __u64, __u64, __u64, __u64);
extern __u64 tcbpf_helper_l3_csum_replace(void *env, __u64, __u64, __u64, __u64, __u64);
extern __u64 tcbpf_helper_l4_csum_replace(void *env, __u64, __u64, __u64, __u64, __u64);
extern __u64 tcbpf_helper_csum_diff(void *env, __u64, __u64, __u64, __u64, __u64);
extern __u64 tcbpf_helper_get_prandom_u32(void *env, __u64, __u64, __u64, __u64, __u64);
extern __u64 tcbpf_helper_ktime_get_ns(void *env, __u64, __u64, __u64, __u64, __u64);

static void *env_;
#define MAP(m) (*(void **)(m))
#define SHAPE(m) ((char *)MAP(m) + 16)
#define A(x) ((__u64)(x))
#define bpf_map_lookup_elem(m, k) tcbpf_map_lookup(env_, MAP(m), SHAPE(m), k)
#define bpf_map_update_elem(m, k, v, f) ((long)tcbpf_map_update(env_, MAP(m), SHAPE(m), k, v, f))
#define bpf_skb_load_bytes(a, b, c, d) ((long)tcbpf_helper_skb_load_bytes(env_, A(a), A(b), A(c), A(d), 0))
#define bpf_skb_store_bytes(a, b, c, d, e) ((long)tcbpf_helper_skb_store_bytes(env_, A(a), A(b), A(c), A(d), A(e)))
#define bpf_l3_csum_replace(a, b, c, d, e) ((long)tcbpf_helper_l3_csum_replace(env_, A(a), A(b), A(c), A(d), A(e)))
#define bpf_l4_csum_replace(a, b, c, d, e) ((long)tcbpf_helper_l4_csum_replace(env_, A(a), A(b), A(c), A(d), A(e)))
#define bpf_csum_diff(a, b, c, d, e) ((long)tcbpf_helper_csum_diff(env_, A(a), A(b), A(c), A(d), A(e)))
#define bpf_get_prandom_u32() ((__u32)tcbpf_helper_get_prandom_u32(env_, 0, 0, 0, 0, 0))
#define bpf_ktime_get_ns() tcbpf_helper_ktime_get_ns(env_, 0, 0, 0, 0, 0)

int prog(struct __sk_buff *skb);

/* The program as machine code of a tcbpf_fn, and a loop to time any of them. */
__attribute__((visibility("default"), noinline)) __u64 entry(void *skb, void *env, void *maps)
{
	env_ = env;
	return (__u32)prog(skb);
}

__attribute__((visibility("default"))) __u64 repeat(__u64 (*fn)(void *, void *, void *), void *skb, void *env, void *maps, __u64 n)
{
	__u64 last = 0;

	while (n--)
		last = fn(skb, env, maps);
	return last;
}

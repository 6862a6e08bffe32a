// SPDX-License-Identifier: Apache-2.0
/* A router and address translator: tables of every kind asked in turn, keys built on the stack, checksums kept right. */
#include "large.h"

struct prefix {
	__u32 bits;
	__u32 address;
};

struct endpoint {
	__u32 address;
	__u16 port;
	__u16 weight;
	__u64 packets, bytes;
};

struct connection {
	struct tuple reply;
	__u64 seen;
	__u32 backend, state;
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix);
	__type(value, struct endpoint);
} routes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct tuple);
	__type(value, struct connection);
} connections SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct endpoint);
} backends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, struct endpoint);
} counters SEC(".maps");

static __always_inline int read_tuple(struct __sk_buff *skb, struct tuple *t, __u32 *at)
{
	void *data = bound(skb, data), *end = bound(skb, data_end);
	struct ethhdr *eth = data;
	struct iphdr *ip = data + sizeof(*eth);
	struct udphdr *udp;

	if ((void *)(ip + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP) || ip->ihl < 5)
		return -1;
	*at = sizeof(*eth) + ip->ihl * 4;
	udp = data + *at;
	if ((void *)(udp + 1) > end)
		return -1;
	t->saddr = ip->saddr;
	t->daddr = ip->daddr;
	t->protocol = ip->protocol;
	t->sport = udp->source;
	t->dport = udp->dest;
	return 0;
}

static __always_inline int rewrite(struct __sk_buff *skb, __u32 at, __u32 from, __u32 to, __u8 protocol)
{
	__u32 sum = protocol == IPPROTO_TCP ? offsetof(struct tcphdr, check) : offsetof(struct udphdr, check);

	if (bpf_l4_csum_replace(skb, at + sum, from, to, BPF_F_PSEUDO_HDR | sizeof(to)))
		return -1;
	if (bpf_l3_csum_replace(skb, ETH_HLEN + offsetof(struct iphdr, check), from, to, sizeof(to)))
		return -1;
	return bpf_skb_store_bytes(skb, ETH_HLEN + offsetof(struct iphdr, daddr), &to, sizeof(to), 0);
}

/* One stage: what is known of the flow, else a route and a backend of it, else the default; then the rewriting. */
#define STAGE(n)                                                                                  \
	{                                                                                         \
		struct prefix prefix = {.bits = 8 + (n) % 25};                                    \
		struct connection fresh = {}, *known;                                             \
		struct endpoint *route, *backend, *counter;                                       \
		__u32 slot = (n) % 64;                                                            \
                                                                                                  \
		if (read_tuple(skb, &t, &at))                                                     \
			return TC_ACT_SHOT;                                                       \
		t.zone = n;                                                                       \
		known = bpf_map_lookup_elem(&connections, &t);                                    \
		if (known && known->state < 4) {                                                  \
			known->seen += skb->len;                                                  \
			slot = known->backend & 1023;                                             \
			if (known->state == 2)                                                    \
				queue = (n) % 8;                                                  \
			else if (known->state == 3 && t.protocol == IPPROTO_TCP)                  \
				known->state = 0;                                                 \
		} else {                                                                          \
			prefix.address = t.daddr;                                                 \
			route = bpf_map_lookup_elem(&routes, &prefix);                            \
			if (route) {                                                              \
				slot = route->weight & 1023;                                      \
				if (route->port && route->port != t.dport)                        \
					mark |= 1u << ((n) % 3);                                  \
				__sync_fetch_and_add(&route->packets, 1);                         \
			} else if (t.protocol == IPPROTO_UDP && skb->len > 512) {                 \
				mark &= ~1u;                                                      \
			}                                                                         \
			fresh.reply = t;                                                          \
			fresh.backend = slot;                                                     \
			if (bpf_map_update_elem(&connections, &t, &fresh, BPF_NOEXIST))           \
				failed = 1 + (n) % 2;                                                       \
		}                                                                                 \
		backend = bpf_map_lookup_elem(&backends, &slot);                                  \
		if (backend && backend->address && backend->address != t.daddr) {                 \
			if (rewrite(skb, at, t.daddr, backend->address, t.protocol))              \
				return TC_ACT_SHOT;                                               \
			backend->bytes += skb->len;                                               \
		}                                                                                 \
		slot = (n) % 64;                                                                  \
		counter = bpf_map_lookup_elem(&counters, &slot);                                  \
		if (counter)                                                                      \
			counter->packets += 1 + mark;                                             \
	}

SEC("tc")
int lookups(struct __sk_buff *skb)
{
	__u32 mark = 0, queue = 0, failed = 0, at = 0;
	struct tuple t = {};

	R16(STAGE, 0) R16(STAGE, 1)
	skb->mark = mark;
	skb->queue_mapping = queue;
	return failed > 1 && mark > 5 ? TC_ACT_SHOT : TC_ACT_OK;
}

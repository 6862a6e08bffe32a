// SPDX-License-Identifier: Apache-2.0
/* A firewall whose rules are code: each tests fields of the packet, and what it says depends on the rules before it. */
#include "large.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u64);
} hits SEC(".maps");

static __always_inline void hit(__u32 rule)
{
	__u64 *count = bpf_map_lookup_elem(&hits, &rule);

	if (count)
		__sync_fetch_and_add(count, 1);
}

#define HASH(n) ((n) * 2654435761u)

/* One rule: a test of ports, addresses and flags; every eighth counts, every ninth takes back what was said. */
#define RULE(n)                                                                                   \
	if (t.protocol == ((n) % 3 ? IPPROTO_TCP : IPPROTO_UDP)) {                                \
		if ((t.daddr & (0xffffff00u << ((n) % 4))) == (HASH(n) & (0xffffff00u << ((n) % 4)))) { \
			if (t.dport >= (HASH(n) >> 20) && t.dport <= (HASH(n) >> 18)) {          \
				mark |= 1u << ((n) % 3);                                          \
				if ((n) % 8 == 0)                                                 \
					hit(n);                                                   \
				if ((n) % 9 == 0)                                                 \
					mark &= ~(1u << ((n) % 2));                               \
			}                                                                         \
		} else if (t.sport == (HASH(n) & 0xffff) && skb->len > (n) * 8) {                 \
			verdict = (n) % 7 ? TC_ACT_OK : TC_ACT_SHOT;                              \
			if ((n) % 11 == 0)                                                        \
				goto done;                                                        \
		}                                                                                 \
	}

/* The chains of rules read the packet each for itself. */
static __always_inline int read_tuple(struct __sk_buff *skb, struct tuple *t)
{
	void *data = bound(skb, data), *end = bound(skb, data_end);
	struct ethhdr *eth = data;
	struct iphdr *ip = data + sizeof(*eth);
	struct udphdr *udp;

	if ((void *)(ip + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP) || ip->ihl < 5)
		return -1;
	udp = (void *)ip + ip->ihl * 4;
	if ((void *)(udp + 1) > end)
		return -1;
	t->saddr = ip->saddr;
	t->daddr = bpf_ntohl(ip->daddr);
	t->protocol = ip->protocol;
	t->sport = bpf_ntohs(udp->source);
	t->dport = bpf_ntohs(udp->dest);
	return 0;
}

#define CHAIN(n)                                                                                  \
	barrier();                                                                                \
	if (read_tuple(skb, &t))                                                                  \
		goto done;                                                                        \
	R16(RULE, n)

SEC("tc")
int rules(struct __sk_buff *skb)
{
	int verdict = TC_ACT_UNSPEC;
	struct tuple t = {};
	__u32 mark = 0;

	S16(CHAIN, 0) S4(CHAIN, 4)
done:
	skb->mark = mark;
	if (mark & 1)
		hit(255);
	return mark > 4 ? TC_ACT_SHOT : verdict;
}

// SPDX-License-Identifier: Apache-2.0
/* Drop what comes from blocked networks: the longest matching prefix decides, and per-CPU counters say how often.
 *
 *     tcbpf map update NAME key 10.0.0.0/28 value 1
 *
 * A trie's key is a prefix length and an address in network order. Per-CPU values need no atomics: each CPU has its own, and
 * the reader adds them up. BPF_F_NO_PREALLOC is part of every trie.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

enum outcome { PASSED, BLOCKED, OTHER, OUTCOMES };

struct prefix4 {
	__u32 length;
	__be32 address;
};

struct prefix6 {
	__u32 length;
	struct in6_addr address;
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 10000);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix4);
	__type(value, __u32);
} blocked4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 10000);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix6);
	__type(value, __u32);
} blocked6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, OUTCOMES);
	__type(key, __u32);
	__type(value, __u64);
} outcomes SEC(".maps");

static __always_inline int done(enum outcome outcome)
{
	__u32 slot = outcome;
	__u64 *packets = bpf_map_lookup_elem(&outcomes, &slot);

	if (packets)
		*packets += 1;
	return outcome == BLOCKED ? TC_ACT_SHOT : TC_ACT_OK;
}

SEC("tc") int blocklist(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;
	__u32 *verdict = NULL;

	if ((void *)(eth + 1) > end)
		return done(OTHER);
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = (void *)(eth + 1);
		struct prefix4 key = { .length = 32 };

		if ((void *)(ip + 1) > end)
			return done(OTHER);
		key.address = ip->saddr;
		verdict = bpf_map_lookup_elem(&blocked4, &key);
	} else if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip6 = (void *)(eth + 1);
		struct prefix6 key = { .length = 128 };

		if ((void *)(ip6 + 1) > end)
			return done(OTHER);
		key.address = ip6->saddr;
		verdict = bpf_map_lookup_elem(&blocked6, &key);
	} else {
		return done(OTHER);
	}
	return done(verdict && *verdict ? BLOCKED : PASSED);
}

char _license[] SEC("license") = "GPL";

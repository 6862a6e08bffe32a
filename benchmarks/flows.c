// SPDX-License-Identifier: Apache-2.0
/* A hash map: count packets and bytes of the packet's flow. */
#include "packet.h"

struct flow {
	__u32 saddr, daddr;
	__u16 sport, dport;
	__u32 protocol;
};

struct count {
	__u64 packets, bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct flow);
	__type(value, struct count);
} flows SEC(".maps");

SEC("tc")
int prog(struct __sk_buff *skb)
{
	unsigned char *p = packet(skb, 38);
	struct flow flow = {};
	struct count *count, one = {1, skb->len};

	if (!p || *(__u16 *)(p + 12) != bpf_htons(ETH_P_IP))
		return TC_ACT_OK;
	flow.saddr = *(__u32 *)(p + 26);
	flow.daddr = *(__u32 *)(p + 30);
	flow.sport = *(__u16 *)(p + 34);
	flow.dport = *(__u16 *)(p + 36);
	flow.protocol = p[23];
	count = bpf_map_lookup_elem(&flows, &flow);
	if (count) {
		__sync_fetch_and_add(&count->packets, 1);
		__sync_fetch_and_add(&count->bytes, skb->len);
	} else {
		bpf_map_update_elem(&flows, &flow, &one, BPF_ANY);
	}
	return TC_ACT_OK;
}

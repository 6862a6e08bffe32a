// SPDX-License-Identifier: Apache-2.0
/* Array maps: a histogram of the packet's bytes, one look-up each. */
#include "packet.h"

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u64);
} histogram SEC(".maps");

SEC("tc")
int prog(struct __sk_buff *skb)
{
	unsigned char *p = packet(skb, 32);

	if (!p)
		return 0;
	for (int i = 0; i < 32; i++) {
		__u32 key = p[i];
		__u64 *bin = bpf_map_lookup_elem(&histogram, &key);

		if (bin)
			*bin += 1;
	}
	return 0;
}

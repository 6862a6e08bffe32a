// SPDX-License-Identifier: Apache-2.0
/* One map for both directions: pinned in the global scope, so that ingress and egress, loaded apart, count into the same array.
 *
 *     tcbpf tc filter add dev em1 ingress bpf da obj shared_map.o sec ingress
 *     tcbpf tc filter add dev em1 egress  bpf da obj shared_map.o sec egress
 *     tcbpf map dump /sys/fs/bpf/tc/globals/traffic
 *
 * The first command makes the map and links it into the bpf fs; the second finds it there. A map that differs in type or size
 * from the one pinned is refused.
 */
#include <bpf_api.h>

struct bpf_elf_map __section_maps traffic = {
	.type = BPF_MAP_TYPE_ARRAY,
	.size_key = sizeof(__u32),
	.size_value = sizeof(__u64),
	.pinning = PIN_GLOBAL_NS,
	.max_elem = 2,
};
BPF_ANNOTATE_KV_PAIR(traffic, __u32, __u64);

static __always_inline int account(struct __sk_buff *skb, __u32 direction)
{
	__u64 *bytes = map_lookup_elem(&traffic, &direction);

	if (bytes)
		lock_xadd(bytes, skb->len);
	return TC_ACT_OK;
}

__section("ingress") int cls_ingress(struct __sk_buff *skb)
{
	return account(skb, 0);
}

__section("egress") int cls_egress(struct __sk_buff *skb)
{
	return account(skb, 1);
}

BPF_LICENSE("GPL");

// SPDX-License-Identifier: Apache-2.0
/* Tail calls as the paper describes them: programs in sections named "ID/KEY", which the loader puts into slot KEY of the
 * program array with that id.
 *
 * A tail call does not return: the called program takes the caller's place, and only the packet, its control buffer and maps
 * carry state across. When the slot is empty, execution goes on behind the call. `tc exec bpf graft` replaces a slot of a
 * pinned array while packets flow.
 */
#include <bpf_api.h>
#include <linux/if_ether.h>

#define JUMPS 7                                         /* the array's id */
#define SLOT_IPV4 0
#define SLOT_IPV6 1
#define SLOT_COUNT 2

struct bpf_elf_map __section_maps jumps = {
	.type = BPF_MAP_TYPE_PROG_ARRAY,
	.id = JUMPS,
	.size_key = sizeof(__u32),
	.size_value = sizeof(__u32),
	.max_elem = 4,
};

struct bpf_elf_map __section_maps seen = {
	.type = BPF_MAP_TYPE_ARRAY,
	.size_key = sizeof(__u32),
	.size_value = sizeof(__u32),
	.max_elem = 4,
};
BPF_ANNOTATE_KV_PAIR(seen, __u32, __u32);

__section_tail(JUMPS, SLOT_COUNT) int cls_count(struct __sk_buff *skb)
{
	__u32 family = skb->cb[0];
	__u32 *packets = map_lookup_elem(&seen, &family);

	if (packets)
		lock_xadd(packets, 1);
	return TC_ACT_OK;
}

__section_tail(JUMPS, SLOT_IPV4) int cls_ipv4(struct __sk_buff *skb)
{
	skb->cb[0] = 1;
	tail_call(skb, &jumps, SLOT_COUNT);
	return TC_ACT_SHOT;                             /* only when the slot is empty */
}

__section_tail(JUMPS, SLOT_IPV6) int cls_ipv6(struct __sk_buff *skb)
{
	skb->cb[0] = 2;
	tail_call(skb, &jumps, SLOT_COUNT);
	return TC_ACT_SHOT;
}

__section_cls_entry int cls_entry(struct __sk_buff *skb)
{
	if (skb->protocol == htons(ETH_P_IP))
		tail_call(skb, &jumps, SLOT_IPV4);
	else if (skb->protocol == htons(ETH_P_IPV6))
		tail_call(skb, &jumps, SLOT_IPV6);
	else
		tail_call(skb, &jumps, 3);              /* empty: falls through */
	return TC_ACT_OK;
}

BPF_LICENSE("GPL");

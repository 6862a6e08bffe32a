// SPDX-License-Identifier: Apache-2.0
/* A classifier as the paper writes them: a `maps` section, bpf_api.h, a classid for an answer.
 *
 *     tcbpf tc qdisc add dev em1 root handle 1: htb
 *     tcbpf tc filter add dev em1 parent 1: bpf obj classifier.o sec classifier flowid 1:1
 *
 * Without direct action the return value is a class: 0 is no match, BPF_H_DEFAULT the filter's own flowid, any other value the
 * class itself. load_byte() and its kin are the loads that classic BPF had: they swap to host order, and a load outside the
 * packet ends the program with 0. A tc(8) that is built with libbpf refuses `maps` sections; tcbpf loads them on either datapath.
 */
#include <bpf_api.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>

struct bpf_elf_map __section_maps protocols = {
	.type = BPF_MAP_TYPE_ARRAY,
	.size_key = sizeof(__u32),
	.size_value = sizeof(__u64),
	.max_elem = 256,
};
BPF_ANNOTATE_KV_PAIR(protocols, __u32, __u64);

__section_cls_entry
int cls_main(struct __sk_buff *skb)
{
	__u32 protocol;
	__u64 *packets;

	if (load_half(skb, offsetof(struct ethhdr, h_proto)) != ETH_P_IP)
		return 0;
	protocol = load_byte(skb, ETH_HLEN + offsetof(struct iphdr, protocol));
	packets = map_lookup_elem(&protocols, &protocol);
	if (packets)
		lock_xadd(packets, 1);

	switch (protocol) {
	case IPPROTO_TCP:
		return TC_H_MAKE(1 << 16, 10);
	case IPPROTO_UDP:
		return TC_H_MAKE(1 << 16, 20);
	case IPPROTO_ICMP:
		return BPF_H_DEFAULT;
	}
	return 0;
}

/* The same object may hold an action too: what it returns is an opcode. */
__section_act_entry
int act_main(struct __sk_buff *skb)
{
	return skb->len > 1400 ? TC_ACT_SHOT : TC_ACT_PIPE;
}

BPF_LICENSE("GPL");

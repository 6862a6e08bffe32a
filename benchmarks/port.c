// SPDX-License-Identifier: Apache-2.0
/* What `udp dst port 53` asks of tcpdump, IPv6 included: for the comparison over a capture. */
#include <linux/ipv6.h>
#include "packet.h"

SEC("tc")
int prog(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;
	struct udphdr *udp;

	if ((void *)(eth + 1) > end)
		return TC_ACT_SHOT;
	if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = (void *)(eth + 1);

		if ((void *)(ip + 1) > end || ip->nexthdr != IPPROTO_UDP)
			return TC_ACT_SHOT;
		udp = (void *)(ip + 1);
	} else {
		struct iphdr *ip = (void *)(eth + 1);

		if (eth->h_proto != bpf_htons(ETH_P_IP) || (void *)(ip + 1) > end)
			return TC_ACT_SHOT;
		if (ip->protocol != IPPROTO_UDP || ip->frag_off & bpf_htons(0x1fff))
			return TC_ACT_SHOT;
		udp = (void *)ip + ip->ihl * 4;
	}
	if ((void *)(udp + 1) > end)
		return TC_ACT_SHOT;
	return udp->dest == bpf_htons(53) ? TC_ACT_OK : TC_ACT_SHOT;
}

// SPDX-License-Identifier: Apache-2.0
/* Helpers on the packet: load a header, swap its addresses, store them, mend a checksum. */
#include "packet.h"

SEC("tc")
int prog(struct __sk_buff *skb)
{
	struct iphdr ip;
	__u32 saddr, daddr;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
		return TC_ACT_SHOT;
	saddr = ip.saddr;
	daddr = ip.daddr;
	bpf_l3_csum_replace(skb, ETH_HLEN + 10, saddr, daddr, 4);
	bpf_l3_csum_replace(skb, ETH_HLEN + 10, daddr, saddr, 4);
	bpf_skb_store_bytes(skb, ETH_HLEN + 12, &daddr, 4, 0);
	bpf_skb_store_bytes(skb, ETH_HLEN + 16, &saddr, 4, 0);
	return TC_ACT_OK;
}

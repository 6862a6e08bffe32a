// SPDX-License-Identifier: Apache-2.0
/* A parser: Ethernet, VLAN tags, IPv4 with options, TCP and each of its options. */
#include "packet.h"

SEC("tc")
int prog(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip;
	struct tcphdr *tcp;
	unsigned char *option;
	__u32 mss = 0, scale = 0, length;
	__u16 proto;

	if (data + sizeof(*eth) > end)
		return TC_ACT_SHOT;
	proto = eth->h_proto;
	data += sizeof(*eth);
#pragma unroll
	for (int i = 0; i < 2; i++) {
		if (proto != bpf_htons(ETH_P_8021Q) && proto != bpf_htons(ETH_P_8021AD))
			break;
		if (data + 4 > end)
			return TC_ACT_SHOT;
		proto = *(__u16 *)(data + 2);
		data += 4;
	}
	if (proto != bpf_htons(ETH_P_IP))
		return TC_ACT_OK;
	ip = data;
	if (data + sizeof(*ip) > end || ip->ihl < 5)
		return TC_ACT_SHOT;
	if (ip->protocol != IPPROTO_TCP)
		return TC_ACT_OK;
	data += ip->ihl * 4;
	tcp = data;
	if (data + sizeof(*tcp) > end)
		return TC_ACT_SHOT;
	length = tcp->doff * 4;
	option = data + sizeof(*tcp);
	for (int i = 0; i < 10; i++) {
		__u32 size;

		if ((void *)option + 1 > end || (void *)option >= data + length || *option == 0)
			break;
		if (*option == 1) {
			option++;
			continue;
		}
		if ((void *)option + 4 > end)
			break;
		size = option[1];
		if (size < 2 || size > 40)
			break;
		if (*option == 2)
			mss = option[2] << 8 | option[3];
		if (*option == 3)
			scale = option[2];
		option += size;
	}
	skb->mark = mss << 8 | scale;
	return mss > 1000 ? TC_ACT_OK : TC_ACT_SHOT;
}

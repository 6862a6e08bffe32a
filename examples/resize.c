// SPDX-License-Identifier: Apache-2.0
/* Change a packet's length: cut it to a snapshot, make room for another header, fill it.
 *
 * change_tail() cuts or grows at the end; adjust_room() opens a gap behind the link header and moves what follows. After
 * either, the packet must be pulled and measured again: the old pointers are gone. `encap` puts IPv4 in IPv4 (protocol 4).
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define SNAPSHOT 96

const volatile __be32 tunnel_local = bpf_htonl(0xc0000201);  /* 192.0.2.1 */
const volatile __be32 tunnel_remote = bpf_htonl(0xc0000202); /* 192.0.2.2 */

SEC("tc/cut") int cut(struct __sk_buff *skb)
{
	if (skb->len > SNAPSHOT && bpf_skb_change_tail(skb, SNAPSHOT, 0))
		return TC_ACT_SHOT;
	return TC_ACT_OK;
}

static __always_inline __sum16 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

SEC("tc") int encap(struct __sk_buff *skb)
{
	struct iphdr inner, outer = {};

	if (skb->protocol != bpf_htons(ETH_P_IP) || bpf_skb_load_bytes(skb, ETH_HLEN, &inner, sizeof(inner)))
		return TC_ACT_OK;
	if (bpf_skb_adjust_room(skb, sizeof(outer), BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_FIXED_GSO))
		return TC_ACT_SHOT;
	outer.version = 4;
	outer.ihl = 5;
	outer.tos = inner.tos;
	outer.tot_len = bpf_htons(bpf_ntohs(inner.tot_len) + sizeof(outer));
	outer.ttl = 64;
	outer.protocol = IPPROTO_IPIP;
	outer.saddr = tunnel_local;
	outer.daddr = tunnel_remote;
	outer.check = fold(bpf_csum_diff(NULL, 0, (__be32 *)&outer, sizeof(outer), 0));
	if (bpf_skb_store_bytes(skb, ETH_HLEN, &outer, sizeof(outer), BPF_F_INVALIDATE_HASH))
		return TC_ACT_SHOT;
	return TC_ACT_OK;
}

SEC("tc/decap") int decap(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct iphdr *ip = data + ETH_HLEN;

	if ((void *)(ip + 1) > end || skb->protocol != bpf_htons(ETH_P_IP) || ip->protocol != IPPROTO_IPIP)
		return TC_ACT_OK;
	return bpf_skb_adjust_room(skb, -(int)sizeof(*ip), BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO) ? TC_ACT_SHOT : TC_ACT_OK;
}

char _license[] SEC("license") = "GPL";

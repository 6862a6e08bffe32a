// SPDX-License-Identifier: Apache-2.0
/* Find the upper layer of an IPv6 packet behind its extension headers: a loop that the verifier can see the end of.
 *
 * The loop has a constant bound, and each step reads two bytes at an offset that is checked first. `depths` counts how many
 * extension headers packets had; the upper protocol becomes the class.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define MAX_HEADERS 8

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_HEADERS + 1);
	__type(key, __u32);
	__type(value, __u64);
} depths SEC(".maps");

SEC("tc") int ipv6_walk(struct __sk_buff *skb)
{
	__u32 offset = ETH_HLEN + sizeof(struct ipv6hdr), depth;
	__u64 *packets;
	__u8 next;

	if (skb->protocol != bpf_htons(ETH_P_IPV6) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, nexthdr), &next, 1))
		return TC_ACT_OK;
	for (depth = 0; depth < MAX_HEADERS; depth++) {
		struct ipv6_opt_hdr header;

		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS && next != IPPROTO_FRAGMENT)
			break;
		if (bpf_skb_load_bytes(skb, offset, &header, sizeof(header)))
			return TC_ACT_SHOT;             /* it ends in the middle of a header */
		offset += next == IPPROTO_FRAGMENT ? sizeof(struct frag_hdr) : (header.hdrlen + 1) * 8;
		next = header.nexthdr;
	}
	packets = bpf_map_lookup_elem(&depths, &depth);
	if (packets)
		__sync_fetch_and_add(packets, 1);
	skb->tc_classid = next;
	return depth == MAX_HEADERS ? TC_ACT_SHOT : TC_ACT_OK;
}

char _license[] SEC("license") = "GPL";

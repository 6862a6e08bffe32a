// SPDX-License-Identifier: Apache-2.0
/* Answer pings without the host: turn an echo request into its reply in place and send it back where it came from.
 *
 * Swapping two addresses leaves the IP checksum as it is. The ICMP checksum changes by the type and code word, which
 * csum_diff() computes from the bytes before and after. TC_ACT_REDIRECT sends the packet to the device bpf_redirect() named.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/icmp.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define ICMP_AT(field) (ETH_HLEN + sizeof(struct iphdr) + offsetof(struct icmphdr, field))

SEC("tc") int echo(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = data + sizeof(*eth);
	struct icmphdr *icmp = (void *)(ip + 1);
	__u8 mac[ETH_ALEN];
	__be32 address;
	__be32 before, after = 0;                       /* type and code, in the first half */
	__u8 type = ICMP_ECHOREPLY;
	__s64 diff;

	if ((void *)(icmp + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP) || ip->ihl != 5 || ip->frag_off & bpf_htons(IP_MF | IP_OFFSET) ||
	    ip->protocol != IPPROTO_ICMP || icmp->type != ICMP_ECHO)
		return TC_ACT_OK;

	__builtin_memcpy(mac, eth->h_dest, ETH_ALEN);
	__builtin_memcpy(eth->h_dest, eth->h_source, ETH_ALEN);
	__builtin_memcpy(eth->h_source, mac, ETH_ALEN);
	address = ip->daddr;
	ip->daddr = ip->saddr;
	ip->saddr = address;

	before = bpf_htonl(icmp->type << 24 | icmp->code << 16);
	after = bpf_htonl(ICMP_ECHOREPLY << 24 | icmp->code << 16);
	diff = bpf_csum_diff(&before, sizeof(before), &after, sizeof(after), 0);
	if (diff < 0 || bpf_l4_csum_replace(skb, ICMP_AT(checksum), 0, diff, 0) ||
	    bpf_skb_store_bytes(skb, ICMP_AT(type), &type, sizeof(type), 0))
		return TC_ACT_SHOT;
	return bpf_redirect(skb->ifindex, 0);
}

char _license[] SEC("license") = "GPL";

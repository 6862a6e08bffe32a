// SPDX-License-Identifier: Apache-2.0
/* Count flows, drop DNS to a blocked resolver, mark HTTPS, leave the rest.
 *
 *     tcbpf run examples/dns_guard.c examples/captures/mixed.pcapng
 *
 * What to look at: direct packet access. Every header is compared with data_end before it is read; that comparison is what the
 * verifier learns from. The map's key and value types reach the tools through BTF, so the flows print as addresses and numbers.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define PORT_DNS 53
#define PORT_HTTPS 443
#define MARK_HTTPS 443

struct flow {
	__u64 packets;
	__u64 bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, __be32);                                    /* the source address */
	__type(value, struct flow);
} flows SEC(".maps");

const volatile __be32 blocked_resolver = bpf_htonl(0x0a000035); /* 10.0.0.53 */

static __always_inline void count(__be32 source, __u32 len)
{
	struct flow *flow = bpf_map_lookup_elem(&flows, &source);

	if (flow) {
		__sync_fetch_and_add(&flow->packets, 1);
		__sync_fetch_and_add(&flow->bytes, len);
	} else {
		struct flow first = { 1, len };

		bpf_map_update_elem(&flows, &source, &first, BPF_NOEXIST);
	}
}

SEC("tc")
int dns_guard(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = data + sizeof(*eth);
	__u16 *ports;

	if ((void *)(ip + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP))
		return TC_ACT_OK;
	count(ip->saddr, skb->len);

	if (ip->protocol != IPPROTO_UDP && ip->protocol != IPPROTO_TCP)
		return TC_ACT_OK;
	if (ip->ihl < 5 || ip->frag_off & bpf_htons(IP_OFFSET)) /* a later fragment has no ports */
		return TC_ACT_OK;
	ports = (void *)ip + ip->ihl * 4;
	if ((void *)(ports + 2) > end)
		return TC_ACT_OK;

	if (ports[1] == bpf_htons(PORT_DNS) && ip->daddr == blocked_resolver)
		return TC_ACT_SHOT;
	if (ip->protocol == IPPROTO_TCP && (ports[0] == bpf_htons(PORT_HTTPS) || ports[1] == bpf_htons(PORT_HTTPS)))
		skb->mark = MARK_HTTPS;
	return TC_ACT_OK;
}

char _license[] SEC("license") = "GPL";

// SPDX-License-Identifier: Apache-2.0
/* Destination NAT: rewrite an address and a port, and mend the checksums with the difference.
 *
 * Checksums are sums, so a change of some bytes changes them by a known amount: l3_csum_replace() mends the IP header,
 * l4_csum_replace() TCP and UDP. BPF_F_PSEUDO_HDR says that the address is part of what TCP and UDP sum; BPF_F_MARK_MANGLED_0
 * keeps a UDP checksum of zero, which means none. `services` is filled from outside:
 *
 *     tcbpf map update NAME key '{"daddr": "10.0.0.2", "dport": 80}' value '{"daddr": "10.0.0.9", "dport": 8080}'
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

struct endpoint {
	__be32 daddr;
	__be16 dport;
	__u16 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct endpoint);
	__type(value, struct endpoint);
} services SEC(".maps");

const volatile struct endpoint fallback = { bpf_htonl(0x0a000063), bpf_htons(8080) }; /* where port 80 goes otherwise */

#define IP_AT(field) (ETH_HLEN + offsetof(struct iphdr, field))
#define L4 (ETH_HLEN + sizeof(struct iphdr))

SEC("tc") int nat(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = data + sizeof(*eth);
	struct endpoint old = {}, new, *found;
	__be16 *ports = (void *)(ip + 1);
	__u32 check, flags = 0;

	if ((void *)(ports + 2) > end || eth->h_proto != bpf_htons(ETH_P_IP) || ip->ihl != 5 || ip->frag_off & bpf_htons(IP_OFFSET))
		return TC_ACT_OK;
	if (ip->protocol == IPPROTO_TCP) {
		check = L4 + offsetof(struct tcphdr, check);
	} else if (ip->protocol == IPPROTO_UDP) {
		check = L4 + offsetof(struct udphdr, check);
		flags = BPF_F_MARK_MANGLED_0;
	} else {
		return TC_ACT_OK;
	}
	old.daddr = ip->daddr;
	old.dport = ports[1];
	found = bpf_map_lookup_elem(&services, &old);
	if (found) {
		new = *found;
	} else if (old.dport == bpf_htons(80)) {
		new.daddr = fallback.daddr;
		new.dport = fallback.dport;
	} else {
		return TC_ACT_OK;
	}

	if (bpf_l4_csum_replace(skb, check, old.daddr, new.daddr, flags | BPF_F_PSEUDO_HDR | sizeof(new.daddr)) ||
	    bpf_l4_csum_replace(skb, check, old.dport, new.dport, flags | sizeof(new.dport)) ||
	    bpf_l3_csum_replace(skb, IP_AT(check), old.daddr, new.daddr, sizeof(new.daddr)) ||
	    bpf_skb_store_bytes(skb, IP_AT(daddr), &new.daddr, sizeof(new.daddr), 0) ||
	    bpf_skb_store_bytes(skb, L4 + offsetof(struct udphdr, dest), &new.dport, sizeof(new.dport), BPF_F_INVALIDATE_HASH))
		return TC_ACT_SHOT;
	return TC_ACT_OK;
}

char _license[] SEC("license") = "GPL";

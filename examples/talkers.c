// SPDX-License-Identifier: Apache-2.0
/* Watch who talks to whom: a table that forgets the idle, functions that are called, variables that live between packets.
 *
 * An LRU hash never fills up: a new flow evicts one not used lately. parse() and report() are real functions (bpf to bpf calls),
 * verified as part of the program that calls them; `packets` and `threshold` are global variables, which the loader turns into
 * maps named .bss and .data. What bpf_printk() writes comes out of `tcbpf tc exec bpf dbg`.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct tuple {
	__be32 saddr, daddr;
	__be16 sport, dport;
	__u8 protocol;
	__u8 pad[3];
};

struct talk {
	__u64 packets;
	__u64 bytes;
	__u32 largest;
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct tuple);
	__type(value, struct talk);
} talks SEC(".maps");

__u64 packets, foreign;
__u64 threshold = 1000;

static __noinline int parse(struct __sk_buff *skb, struct tuple *tuple)
{
	struct iphdr ip;

	if (!tuple || skb->protocol != bpf_htons(ETH_P_IP) || bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
		return -1;
	tuple->saddr = ip.saddr;
	tuple->daddr = ip.daddr;
	tuple->protocol = ip.protocol;
	if (ip.protocol != IPPROTO_TCP && ip.protocol != IPPROTO_UDP)
		return 0;
	if (ip.frag_off & bpf_htons(IP_OFFSET))
		return 0;
	return bpf_skb_load_bytes(skb, ETH_HLEN + ip.ihl * 4, &tuple->sport, 4);
}

static __noinline void report(const struct tuple *tuple, __u64 count)
{
	if (tuple)
		bpf_printk("%pI4 > %pI4: %llu packets", &tuple->saddr, &tuple->daddr, count);
}

SEC("tc") int talkers(struct __sk_buff *skb)
{
	struct tuple tuple = {};
	struct talk first = { .packets = 1, .bytes = skb->len, .largest = skb->len }, *talk;

	packets++;
	if (parse(skb, &tuple) < 0) {
		foreign++;
		return TC_ACT_OK;
	}
	talk = bpf_map_lookup_elem(&talks, &tuple);
	if (!talk) {
		bpf_map_update_elem(&talks, &tuple, &first, BPF_ANY);
		return TC_ACT_OK;
	}
	talk->packets += 1;
	talk->bytes += skb->len;
	if (skb->len > talk->largest)
		talk->largest = skb->len;
	if (talk->packets == threshold)
		report(&tuple, talk->packets);
	return TC_ACT_OK;
}

char _license[] SEC("license") = "GPL";

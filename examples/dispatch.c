// SPDX-License-Identifier: Apache-2.0
/* Tail calls as programs declare them today: the array names the programs of its slots, by address.
 *
 * bpf_tail_call_static() passes a constant slot, which the kernel turns into a direct jump; bpf_tail_call() takes any number,
 * here the protocol. No slot is filled by hand: the loader sees the relocations and does it.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

int on_tcp(struct __sk_buff *skb);
int on_udp(struct __sk_buff *skb);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 256);
	__uint(key_size, sizeof(__u32));
	__array(values, int (struct __sk_buff *));
} by_protocol SEC(".maps") = {
	.values = {
		[IPPROTO_TCP] = (void *)&on_tcp,
		[IPPROTO_UDP] = (void *)&on_udp,
	},
};

SEC("tc/tcp") int on_tcp(struct __sk_buff *skb)
{
	skb->mark = 6;
	return TC_ACT_OK;
}

SEC("tc/udp") int on_udp(struct __sk_buff *skb)
{
	skb->mark = 17;
	return TC_ACT_OK;
}

SEC("tc") int dispatch(struct __sk_buff *skb)
{
	__u8 protocol;

	if (skb->protocol != bpf_htons(ETH_P_IP) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct iphdr, protocol), &protocol, 1))
		return TC_ACT_OK;
	if (protocol == IPPROTO_TCP)
		bpf_tail_call_static(skb, &by_protocol, IPPROTO_TCP);
	bpf_tail_call(skb, &by_protocol, protocol);
	return TC_ACT_UNSPEC;                           /* neither TCP nor UDP: the next filter decides */
}

char _license[] SEC("license") = "GPL";

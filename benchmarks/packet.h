// SPDX-License-Identifier: Apache-2.0
/* What the benchmarks share: headers, and the first bytes of the packet once they are known to be there. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

char _license[] SEC("license") = "GPL";

/* A pointer to the packet when it has at least `n` bytes, else NULL. */
static __always_inline void *packet(struct __sk_buff *skb, __u32 n)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;

	return data + n <= end ? data : NULL;
}

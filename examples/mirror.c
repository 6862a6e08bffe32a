// SPDX-License-Identifier: Apache-2.0
/* Send packets elsewhere: a copy with clone_redirect(), the packet itself with redirect().
 *
 * The targets are in a map, filled from outside with interface numbers; 0 leaves the packet alone:
 *
 *     tcbpf map update NAME key 0 value 7         copy to interface 7
 *     tcbpf map update NAME key 1 value 8         send to interface 8
 *
 * clone_redirect() copies at once, redirect() only notes the target, which TC_ACT_REDIRECT then uses without a copy.
 * BPF_F_INGRESS hands the packet to the device as if it had been received there.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

enum { COPY_TO, SEND_TO, TARGETS };

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TARGETS);
	__type(key, __u32);
	__type(value, __u32);
} targets SEC(".maps");

__u64 failed;

static __always_inline __u32 target(__u32 slot)
{
	__u32 *ifindex = bpf_map_lookup_elem(&targets, &slot);

	return ifindex ? *ifindex : 0;
}

SEC("tc") int mirror(struct __sk_buff *skb)
{
	__u32 copy = target(COPY_TO), send = target(SEND_TO);

	if (copy && bpf_clone_redirect(skb, copy, 0))
		__sync_fetch_and_add(&failed, 1);
	return send ? bpf_redirect(send, BPF_F_INGRESS) : TC_ACT_OK;
}

char _license[] SEC("license") = "GPL";

// SPDX-License-Identifier: Apache-2.0
/* Push and pop VLAN tags: what leaves is tagged by its mark, what comes in loses its tag and gets the mark.
 *
 * The tag lives in skb->vlan_tci, beside the packet; skb_vlan_push() moves an older tag into the packet. Both helpers may move
 * the packet's data: pointers taken before are dead afterwards, and the verifier says so.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_vlan.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

SEC("tc/ingress") int untag(struct __sk_buff *skb)
{
	if (!skb->vlan_present)
		return TC_ACT_OK;
	skb->mark = skb->vlan_tci & VLAN_VID_MASK;
	return bpf_skb_vlan_pop(skb) ? TC_ACT_SHOT : TC_ACT_OK;
}

SEC("tc/egress") int tag(struct __sk_buff *skb)
{
	if (!skb->mark || skb->mark >= VLAN_N_VID)
		return TC_ACT_OK;
	return bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), skb->mark) ? TC_ACT_SHOT : TC_ACT_OK;
}

/* Both in one: exchange the tag, or add one where there is none. */
SEC("tc") int retag(struct __sk_buff *skb)
{
	if (skb->vlan_present && bpf_skb_vlan_pop(skb))
		return TC_ACT_SHOT;
	return bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021AD), 100) ? TC_ACT_SHOT : TC_ACT_OK;
}

char _license[] SEC("license") = "GPL";

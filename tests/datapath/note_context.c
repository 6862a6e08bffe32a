/* Writes down what a classifier sees of every packet, in order. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct seen {
	__u32 len, pkt_type, mark, queue_mapping, protocol, vlan_present, vlan_tci, vlan_proto, priority, tc_index, cb0,
		tc_classid, wire_len, gso_segs, gso_size;
	__u8 first[60];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct seen);
} notes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} count SEC(".maps");

SEC("tc")
int note(struct __sk_buff *skb)
{
	__u32 zero = 0, *n = bpf_map_lookup_elem(&count, &zero), at;
	struct seen *seen;

	if (!n)
		return 0;
	at = (*n)++;
	seen = bpf_map_lookup_elem(&notes, &at);
	if (!seen)
		return 0;
	seen->len = skb->len;
	seen->pkt_type = skb->pkt_type;
	seen->mark = skb->mark;
	seen->queue_mapping = skb->queue_mapping;
	seen->protocol = skb->protocol;
	seen->vlan_present = skb->vlan_present;
	seen->vlan_tci = skb->vlan_tci;
	seen->vlan_proto = skb->vlan_proto;
	seen->priority = skb->priority;
	seen->tc_index = skb->tc_index;
	seen->cb0 = skb->cb[0];
	seen->tc_classid = skb->tc_classid;
	seen->wire_len = skb->wire_len;
	seen->gso_segs = skb->gso_segs;
	seen->gso_size = skb->gso_size;
	bpf_skb_load_bytes(skb, 0, seen->first, sizeof(seen->first));
	return 0;
}

char _license[] SEC("license") = "GPL";

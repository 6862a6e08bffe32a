// Programs of common.c after their hints were followed to the letter: both verifiers accept them.
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

char _license[] SEC("license") = "GPL";

struct flow {
	__u32 address;
	__u16 port;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct flow);
	__type(value, __u64);
	__uint(max_entries, 64);
} flows SEC(".maps");

SEC("tc")
int key_of_another_type(struct __sk_buff *skb)
{
	struct flow key = {};

	return bpf_map_lookup_elem(&flows, &key) ? TC_ACT_SHOT : TC_ACT_OK;
}

SEC("tc")
int compared_too_far_out(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__u16 *len = data + 16;

	if ((void *)(len + 1) > end)
		return TC_ACT_OK;
	__u8 *q = data + (bpf_ntohs(*len) & 0x3fff);
	if (q + 2 > (__u8 *)end)
		return TC_ACT_OK;
	return *(__u16 *)q;
}

SEC("tc")
int loop_over_the_length(struct __sk_buff *skb)
{
	__u8 *bytes = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__u32 sum = 0;
	long n = end - bytes;

	for (int i = 0; i < n && i < 256; i++) {
		if (bytes + i + 1 > end)
			break;
		sum += bytes[i];
	}
	return sum & 1;
}

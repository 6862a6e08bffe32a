/* Verdicts and redirects that a test chooses, and notes of who was run. */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} given SEC(".maps"), seen SEC(".maps");

static __always_inline __u64 get(__u32 key)
{
	__u64 *value = bpf_map_lookup_elem(&given, &key);

	return value ? *value : 0;
}

static __always_inline void count(__u32 key)
{
	__u64 *value = bpf_map_lookup_elem(&seen, &key);

	if (value)
		__sync_fetch_and_add(value, 1);
}

static __always_inline void note(__u32 key, __u64 value) { bpf_map_update_elem(&seen, &key, &value, 0); }

SEC("tc") int verdict(struct __sk_buff *skb) { count(0); return get(0); }
SEC("tc") int second(struct __sk_buff *skb) { count(1); return TC_ACT_OK; }
SEC("action") int act(struct __sk_buff *skb) { count(0); return get(0); }
SEC("action") int act_second(struct __sk_buff *skb) { count(1); return TC_ACT_OK; }
SEC("tc") int third(struct __sk_buff *skb) { count(2); return TC_ACT_UNSPEC; }
SEC("tc") int redirect(struct __sk_buff *skb) { count(0); return bpf_redirect(get(0), get(1)); }
SEC("tc") int neighbour(struct __sk_buff *skb) { count(0); return bpf_redirect_neigh(get(0), 0, 0, 0); }
SEC("tc") int clone(struct __sk_buff *skb)
{
	count(0);
	skb->cb[0] = 9;
	skb->tc_index = 3;
	skb->mark = 5;
	note(3, bpf_clone_redirect(skb, get(0), get(1)));
	return TC_ACT_OK;
}
SEC("tc") int set(struct __sk_buff *skb)
{
	skb->cb[0] = 9;
	skb->cb[4] = 8;
	skb->tc_index = 3;
	skb->mark = 5;
	return TC_ACT_OK;
}
SEC("tc") int read(struct __sk_buff *skb)
{
	note(0, skb->cb[0]);
	note(1, skb->cb[4]);
	note(2, skb->tc_index << 16 | skb->mark);
	return TC_ACT_OK;
}

char _license[] SEC("license") = "GPL";

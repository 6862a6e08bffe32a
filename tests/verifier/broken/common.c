// What people write, and the verifier refuses: one program for each error, in the order in which one meets them.
//
// Above each program stands what its report must say: the reason, the variable ("-": none), and part of the hint; the line
// at fault ends in "// here".
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct flow {
	__u32 address;
	__u16 port;
};

struct locked {
	struct bpf_spin_lock lock;
	__u32 count;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct flow);
	__type(value, __u64);
	__uint(max_entries, 64);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, char[16]);
	__uint(max_entries, 4);
} names SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct locked);
	__uint(max_entries, 4);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 4);
} next SEC(".maps");

// packet_bounds | ip | compare `ip + 1` with `end` before the access
SEC("tc")
int missing_check(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = data + sizeof(*eth);

	if ((void *)(eth + 1) > end)
		return TC_ACT_OK;
	if (ip->protocol == 6) // here
		return TC_ACT_SHOT;
	return TC_ACT_OK;
}

// packet_bounds | tcp | compare `tcp + 1` with `end`
SEC("tc")
int checked_another_pointer(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct iphdr *ip = data + sizeof(struct ethhdr);
	struct tcphdr *tcp = (void *)(ip + 1);

	if ((void *)(ip + 1) > end)
		return TC_ACT_OK;
	return tcp->dest == bpf_htons(22) ? TC_ACT_SHOT : TC_ACT_OK; // here
}

// invalid_memory | eth | bpf_skb_store_bytes() in line 94 may have moved the packet
SEC("tc")
int stale_pointer(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;
	__u8 zero = 0;

	if ((void *)(eth + 1) > end)
		return TC_ACT_OK;
	bpf_skb_store_bytes(skb, 0, &zero, 1, 0);
	return eth->h_proto == bpf_htons(ETH_P_IP); // here
}

// invalid_memory | packets | check `packets` for NULL
SEC("tc")
int missing_null_check(struct __sk_buff *skb)
{
	struct flow key = {};
	__u64 *packets = bpf_map_lookup_elem(&flows, &key);

	*packets += 1; // here
	return TC_ACT_OK;
}

// stack_bounds | key | set all 4 bytes of `key`
SEC("tc")
int forgotten_key(struct __sk_buff *skb)
{
	__u32 key;
	char *name;

	// The key is set nowhere: what lies on the stack would be looked up.
	name = bpf_map_lookup_elem(&names, &key); // here
	return name ? TC_ACT_SHOT : TC_ACT_OK;
}

// too_large | - | bound the loops
SEC("tc")
int endless(struct __sk_buff *skb)
{
	volatile __u32 n = skb->len;
	__u32 sum = 0;

	for (__u32 i = 0; i < n; i++) // loop
		sum += i ^ n;
	return sum & 1;
}

// unbounded_index | offset | compare `offset` with the size
SEC("tc")
int variable_offset(struct __sk_buff *skb)
{
	__u32 key = 0, offset = skb->mark;
	char *name = bpf_map_lookup_elem(&names, &key);

	if (!name)
		return TC_ACT_OK;
	return name[offset]; // here
}

// map_value_bounds | at | the value has 16 bytes
SEC("tc")
int index_too_large(struct __sk_buff *skb)
{
	__u32 key = 0, at = skb->mark;
	char *name = bpf_map_lookup_elem(&names, &key);

	if (!name || at > 16)
		return TC_ACT_OK;
	return name[at]; // here
}

// pointer_out_of_bounds | at | bound `at` on both sides
SEC("tc")
int signed_index(struct __sk_buff *skb)
{
	__u32 key = 0;
	int at = skb->mark;
	char *name = bpf_map_lookup_elem(&names, &key);

	if (!name || at > 15)
		return TC_ACT_OK;
	return name[at]; // here
}

// reference_leak | event | release `event`, which bpf_ringbuf_reserve() gave in line 174, on every path
SEC("tc")
int forgotten_event(struct __sk_buff *skb)
{
	__u32 *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

	if (!event)
		return TC_ACT_OK;
	if (skb->len < 64)
		return TC_ACT_SHOT;
	*event = skb->len;
	bpf_ringbuf_submit(event, 0);
	return TC_ACT_OK;
}

// reference_leak | sk | release `sk`, which bpf_sk_lookup_tcp() gave
SEC("tc")
int forgotten_socket(struct __sk_buff *skb)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *sk = bpf_sk_lookup_tcp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);

	return sk ? TC_ACT_OK : TC_ACT_SHOT;
}

// helper_not_allowed | - | programs of type xdp cannot call bpf_skb_store_bytes()
SEC("xdp")
int helper_of_another_type(struct xdp_md *ctx)
{
	__u8 zero = 0;

	return bpf_skb_store_bytes((void *)ctx, 0, &zero, 1, 0); // here
}

static __attribute__((noinline)) int deep(struct __sk_buff *skb)
{
	volatile char buffer[400] = {};

	return buffer[skb->len & 255];
}

// stack_depth | - | too_much_stack 208 + deep 400
SEC("tc")
int too_much_stack(struct __sk_buff *skb)
{
	volatile char buffer[200] = {};

	return buffer[skb->len & 127] + deep(skb);
}

// return_range | - | this program type returns a value from 0 to 3
SEC("cgroup_skb/egress")
int wrong_code(struct __sk_buff *skb)
{
	return skb->len; // here
}

// ctx_access | - | `mark` lies at offset 8 and has 4 bytes: write it whole
SEC("tc")
int narrow_write(struct __sk_buff *skb)
{
	*(volatile __u8 *)&skb->mark = 1; // here
	return TC_ACT_OK;
}

// ctx_modified | base | use the context pointer itself
SEC("tc")
int moved_context(struct __sk_buff *skb)
{
	__u64 base = (__u64)skb;

	asm volatile("%[base] += 8" : [base] "+r"(base));
	return *(volatile __u32 *)base; // here
}

// call_while_locked | - | between bpf_spin_lock() and bpf_spin_unlock() nothing may be called
SEC("tc")
int call_under_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct locked *value = bpf_map_lookup_elem(&counters, &key);

	if (!value)
		return TC_ACT_OK;
	bpf_spin_lock(&value->lock);
	value->count = bpf_get_prandom_u32(); // here
	bpf_spin_unlock(&value->lock);
	return TC_ACT_OK;
}

// lock_held | - | call bpf_spin_unlock() on every path before it
SEC("tc")
int lock_kept(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct locked *value = bpf_map_lookup_elem(&counters, &key);

	if (!value)
		return TC_ACT_OK;
	bpf_spin_lock(&value->lock);
	value->count++;
	if (value->count > 100)
		return TC_ACT_SHOT;
	bpf_spin_unlock(&value->lock);
	return TC_ACT_OK;
}

static int visit(void *map, __u32 *key, char *value, void *context)
{
	return value[0]; // here
}

// callback_return_range | - | a callback returns 0 to go on or 1 to stop
SEC("tc")
int callback_code(struct __sk_buff *skb)
{
	return bpf_for_each_map_elem(&names, visit, NULL, 0);
}

// argument_size_unbounded | size | bound the size before the call
SEC("tc")
int size_from_the_packet(struct __sk_buff *skb)
{
	char buffer[32] = {};
	__u64 size = skb->len | 1;

	bpf_skb_load_bytes(skb, 0, buffer, size); // here
	return buffer[0];
}

// argument_type | key | argument 2 of the call must be
SEC("tc")
int wrong_map_argument(struct __sk_buff *skb)
{
	__u32 key = 0;

	bpf_tail_call(skb, (void *)&key, 0); // here
	return TC_ACT_OK;
}

// reference_leak | event | release `event`
SEC("tc")
int tail_call_with_an_event(struct __sk_buff *skb)
{
	__u32 *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

	if (!event)
		return TC_ACT_OK;
	bpf_tail_call(skb, &next, 0); // here
	bpf_ringbuf_discard(event, 0);
	return TC_ACT_OK;
}

// map_type | - | a map of this type cannot be used with map_push_elem
SEC("tc")
int push_to_a_hash(struct __sk_buff *skb)
{
	__u64 value = 0;

	return bpf_map_push_elem(&flows, &value, 0) ? TC_ACT_OK : TC_ACT_SHOT; // here
}

char _license[] SEC("license") = "GPL";

// stack_end | key | the key of map `flows` has 8 bytes, `key` at most 4
SEC("tc")
int key_of_another_type(struct __sk_buff *skb)
{
	__u32 key = skb->ifindex;

	return bpf_map_lookup_elem(&flows, &key) ? TC_ACT_SHOT : TC_ACT_OK; // here
}

// ctx_access | - | `protocol` can be read, not written
SEC("tc")
int field_for_reading(struct __sk_buff *skb)
{
	skb->protocol = 8; // here
	return TC_ACT_OK;
}

// ctx_access | - | programs of type sched_cls may not read `family`
SEC("tc")
int field_of_other_types(struct __sk_buff *skb)
{
	return skb->family; // here
}

// packet_bounds | q | `q` may lie up to 65537 bytes into the packet
SEC("tc")
int compared_too_far_out(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__u16 *len = data + 16;

	if ((void *)(len + 1) > end)
		return TC_ACT_OK;
	__u8 *q = data + bpf_ntohs(*len);
	if (q + 2 > (__u8 *)end)
		return TC_ACT_OK;
	return *(__u16 *)q; // here
}

// packet_bounds | i | compare `bytes + i + 1` with `end`
SEC("tc")
int loop_over_the_length(struct __sk_buff *skb)
{
	__u8 *bytes = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__u32 sum = 0;
	long n = end - bytes;

	for (int i = 0; i < n; i++)
		sum += bytes[i]; // here
	return sum & 1;
}

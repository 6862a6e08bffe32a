/* Functions that helpers call back, and subprograms that take the context: each program writes down what they were given. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 128);
	__type(key, __u32);
	__type(value, __s64);
} notes SEC(".maps");

#define WALKED(name, kind) \
	struct { \
		__uint(type, kind); \
		__uint(max_entries, 4); \
		__type(key, __u32); \
		__type(value, __u64); \
	} name SEC(".maps")

WALKED(array, BPF_MAP_TYPE_ARRAY);
WALKED(percpu_array, BPF_MAP_TYPE_PERCPU_ARRAY);
WALKED(hash, BPF_MAP_TYPE_HASH);
WALKED(percpu_hash, BPF_MAP_TYPE_PERCPU_HASH);
WALKED(lru_hash, BPF_MAP_TYPE_LRU_HASH);
WALKED(lru_percpu_hash, BPF_MAP_TYPE_LRU_PERCPU_HASH);

__u32 at;

/* Global, so that it is verified once. */
__attribute__((noinline)) int note(__s64 value)
{
	__u32 key = at++;
	__s64 *place = bpf_map_lookup_elem(&notes, &key);

	if (place)
		*place = value;
	return 0;
}

/* What follows does not depend on the order of a hash map's elements. */

static long key32(void *map, __u32 *key, void *value, __u64 *ctx) { *ctx += (*key + 1) * (*key + 1); return 0; }
static long key16(void *map, __u16 *key, void *value, __u16 *ctx) { *ctx += *key + 1; return 0; }
static long key8(void *map, __u8 *key, void *value, __u8 *ctx) { *ctx ^= key[0] * 3 + key[1] * 5 + key[3] * 7; return 0; }
static long both(void *map, __u32 *key, __u64 *value, __u64 *ctx) { *value += *key; *ctx += *value * (*key + 1); return 0; }
static long swap(void *map, __u32 *key, __u64 *value, __u64 *ctx)
{
	__u64 old = *ctx;

	*ctx = *key + 10;
	*value = *ctx;
	*ctx = old + *value;
	return 0;
}
static long own(void *map, __u32 *key, __u64 *value, void *ctx)
{
	__u64 copy = *key * 2, *found = bpf_map_lookup_elem(map, key);

	*value = copy;
	if (found)
		*found += *key;
	return 0;
}
static long third(void *map, __u32 *key, void *value, __u64 *ctx) { return ++*ctx == 3; }
static long refused(void *map, __u32 *key, void *value, __u64 *ctx) { return 0; }

static __always_inline void fill(void *map)
{
	for (int i = 0; i < 3; i++) {
		__u32 key = i;
		__u64 value = 100 + i;

		bpf_map_update_elem(map, &key, &value, 0);
	}
}

#define ONE(map, callback, type, start, flags) \
	SEC("tc") int map##_##callback(struct __sk_buff *skb) \
	{ \
		type ctx = start + skb->mark; /* which is 0: a number that is known would be followed round by round */ \
		__u64 again = skb->mark; \
\
		fill(&map); \
		note(bpf_for_each_map_elem(&map, callback, &ctx, flags)); \
		note(ctx); \
		note(bpf_for_each_map_elem(&map, both, &again, 0)); \
		note(again); \
		return 0; \
	}

#define WALK(map) \
	ONE(map, key32, __u64, 0, 0) \
	ONE(map, key16, __u16, 9, 0) \
	ONE(map, key8, __u8, 1, 0) \
	ONE(map, both, __u64, 3, 0) \
	ONE(map, swap, __u64, 3, 0) \
	ONE(map, own, __u64, 3, 0) \
	ONE(map, third, __u64, 0, 0) \
	ONE(map, refused, __u64, 0, 1)

WALK(array)
WALK(percpu_array)
WALK(hash)
WALK(percpu_hash)
WALK(lru_hash)
WALK(lru_percpu_hash)

struct turns { __u64 sum, last; __u32 small; __u8 byte; };

static long turn(__u64 i, struct turns *t)
{
	t->sum += i;
	t->last = i;
	t->small ^= (__u32)i << 3;
	t->byte += i;
	return i == 20;
}
static long walk_it(__u64 i, __u64 *sum) { bpf_for_each_map_elem(&array, both, sum, 0); return 0; }
static long nested(__u64 i, struct turns *t) { return bpf_loop(i, turn, t, 0) == 5; }

SEC("tc") int loops(struct __sk_buff *skb)
{
	struct turns t = {};
	__u64 sum = 0;

	note(bpf_loop(0, turn, &t, 0));
	note(bpf_loop(7, turn, &t, 0)); note(t.sum); note(t.last); note(t.small); note(t.byte);
	note(bpf_loop(100, turn, &t, 0)); note(t.sum); note(t.last);
	note(bpf_loop(9, nested, &t, 0)); note(t.sum); note(t.last);
	note(bpf_loop(3, walk_it, &sum, 0)); note(sum);
	return t.byte;
}

/* More turns than bpf_loop() takes, as it is written in place of the call, and as it is called: for its flags are not known. */
static long none(__u64 i, void *ctx) { return 1; }

SEC("tc") int too_many(struct __sk_buff *skb)
{
	long (*loop)(__u64, void *, void *, __u64) = (void *)181;

	note(loop(8388609, none, 0, 0));
	note(loop(8388608, none, 0, 0));
	note(loop(1ull << 32 | 2, none, 0, 0));
	note(loop(8388609, none, 0, skb->mark));
	note(loop(1ull << 32 | 2, none, 0, skb->mark));
	note(loop(1, none, 0, skb->mark + 1));
	return 0;
}

/* The context as an argument, which a helper changes between two reads of it. */

static __attribute__((noinline)) int tagged(struct __sk_buff *skb)
{
	int before = skb->vlan_present;

	bpf_skb_vlan_push(skb, 0x81, 5);
	return before * 1000 + skb->vlan_present * 100 + skb->vlan_tci;
}

static __attribute__((noinline)) int longer(struct __sk_buff *skb, int by)
{
	int before = skb->len;

	bpf_skb_change_tail(skb, before + by, 0);
	return skb->len - before;
}

struct held { struct __sk_buff *skb; int before, after; };

static long change_it(__u64 i, struct held *h)
{
	struct __sk_buff *skb = h->skb;

	h->before = skb->len;
	bpf_skb_change_head(skb, 4, 0);
	h->after = skb->len;
	return 0;
}

__attribute__((noinline)) int marked(struct __sk_buff *skb)
{
	skb->mark = 7;
	bpf_skb_change_type(skb, skb->pkt_type ^ 1);
	return skb->mark + skb->pkt_type * 100;
}

SEC("tc") int contexts(struct __sk_buff *skb)
{
	struct held h = {.skb = skb};

	note(tagged(skb));
	note(longer(skb, 3)); note(longer(skb, -5));
	note(bpf_loop(2, change_it, &h, 0)); note(h.after - h.before);
	note(marked(skb)); note(skb->mark); note(skb->len);
	return 0;
}

char _license[] SEC("license") = "GPL";

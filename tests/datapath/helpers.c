/* Helpers that are not about the packet's bytes: each program writes down, in order, what it was given. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define NOTES 256

struct event {
	__u32 number;
	char text[12];
};

struct locked {
	struct bpf_spin_lock lock;
	__u32 count;
	__u64 sum;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, NOTES);
	__type(key, __u32);
	__type(value, __s64);
} notes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, 4);
	__uint(value_size, 4);
} perf SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_BLOOM_FILTER);
	__uint(max_entries, 1000);
	__uint(map_extra, 3);
	__type(value, __u64);
} bloom SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 2);
	__type(value, __u32);
} queue SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u64);
} hash SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 5);
	__type(key, __u32);
	__type(value, __u64);
} percpu SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct locked);
} locks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct locked);
} locked_hash SEC(".maps");

const struct event *shown __attribute__((unused));
__u32 at;

static __always_inline void note(__s64 value)
{
	__u32 key = at++;
	__s64 *place = bpf_map_lookup_elem(&notes, &key);

	if (place)
		*place = value;
}

#define STRTOL(text, flags) do { \
	char buf[] = text; \
	long l = 7; \
	unsigned long u = 7; \
	note(bpf_strtol(buf, sizeof(buf) - 1, flags, &l)); note(l); \
	note(bpf_strtoul(buf, sizeof(buf) - 1, flags, &u)); note(u); \
} while (0)

SEC("tc/numbers")
int numbers(struct __sk_buff *skb)
{
	STRTOL("42", 0); STRTOL("  -17abc", 10); STRTOL("0x1fz", 0); STRTOL("0x1f", 16); STRTOL("0x", 0); STRTOL("0xg", 16);
	STRTOL("0755 ", 0); STRTOL("089", 0); STRTOL("f", 10); STRTOL("Ff", 16); STRTOL("-", 0); STRTOL("+1", 0);
	STRTOL("9223372036854775807", 0); STRTOL("9223372036854775808", 0); STRTOL("-9223372036854775808", 0);
	STRTOL("18446744073709551615", 0); STRTOL("18446744073709551616", 10); STRTOL("99999999999999999999999", 10);
	STRTOL("12", 8); STRTOL("12", 2); STRTOL("12", 42); STRTOL("   ", 0); STRTOL("\v\t\n\r 5", 0); STRTOL("-0", 0);
	STRTOL("000000000000000000000000000000000000000000000000000000000000000000007", 10);
	return 0;
}

#define SNPRINTF(size, format, ...) do { \
	char out[64] = "................................"; \
	__u64 data[] = {__VA_ARGS__}; \
	note(bpf_snprintf(out, size, format, data, sizeof(data))); \
	for (int i = 0; i < 40; i += 8) note(*(__s64 *)(out + i)); \
} while (0)

SEC("tc/texts")
int texts(struct __sk_buff *skb)
{
	char text[16] = "a string";
	__u8 ip[] = {10, 0, 200, 1};
	char mine[8] = "abc";

	SNPRINTF(64, "%d %u %x", -5, 7, 0xabc);
	SNPRINTF(64, "[%5d] [%-5d] [%05d]", 42, 42, 42);
	SNPRINTF(64, "%s and %d%%", (__u64)text, 9);
	SNPRINTF(8, "cut %lld off", -1234567890123);
	SNPRINTF(1, "%llx", 0xfeedfacecafe);
	SNPRINTF(64, "%pI4 %pi4", (__u64)ip, (__u64)ip);
	SNPRINTF(64, "%c%c%c", 'x', 'y', 'z');
	SNPRINTF(64, "[%ps] [%pS] [%pB]", 0x1234, 0xabcdef0123456789, 7);
	SNPRINTF(64, "[%12ps] [%-12pS]", 0x1234, 0x56);
	SNPRINTF(64, "% d %+d %X", 5, 5, 0xBEEF);
	note(bpf_strncmp(mine, 8, "abc"));
	note(bpf_strncmp(mine, 2, "abd"));
	note(bpf_strncmp(mine, 8, "abd"));
	note(bpf_strncmp(mine, 8, "ab"));
	note(bpf_strncmp(mine, 8, "abcd"));
	return 0;
}

extern int bpf_dynptr_from_skb(struct __sk_buff *skb, __u64 flags, struct bpf_dynptr *ptr) __ksym;
extern void *bpf_dynptr_slice(const struct bpf_dynptr *ptr, __u32 offset, void *buffer, __u32 buffer__szk) __ksym;

/* A dynptr of the packet: its flags are those of bpf_skb_store_bytes(), and it ends where the packet does now. */
SEC("tc/packets")
int packets(struct __sk_buff *skb)
{
	struct bpf_dynptr p, local;
	char text[8] = "abcdefg", out[8] = {}, buffer[8];

	note(bpf_dynptr_from_skb(skb, 0, &p));
	note(bpf_get_hash_recalc(skb) != 0);
	for (int flags = 0; flags < 6; flags++) note(bpf_dynptr_write(&p, 20, text, 8, flags));
	note(skb->hash);
	note(bpf_dynptr_read(out, 8, &p, 19, 0)); note(*(__s64 *)out); note(bpf_dynptr_read(out, 8, &p, 19, 1));
	note(bpf_dynptr_write(&p, 60, text, 8, 0)); note(bpf_dynptr_write(&p, 60, text, 8, 8));
	note(bpf_skb_change_tail(skb, 44, 0));
	note(bpf_dynptr_write(&p, 36, text, 8, 0)); note(bpf_dynptr_write(&p, 37, text, 8, 0));
	*(__s64 *)out = 7;
	note(bpf_dynptr_read(out, 8, &p, 40, 0)); note(*(__s64 *)out);
	note(bpf_dynptr_read(out, 8, &p, 36, 0)); note(*(__s64 *)out);
	void *in = bpf_dynptr_slice(&p, 36, buffer, 8); note(!!in);
	void *beyond = bpf_dynptr_slice(&p, 40, buffer, 8); note(!!beyond);
	return 0;
}

SEC("tc/dynptrs")
int dynptrs(struct __sk_buff *skb)
{
	__u32 key = 3;
	__u64 *value;
	__u8 out[8] = {};
	struct bpf_dynptr p, r, bad;

	value = bpf_map_lookup_elem(&percpu, &key);
	if (!value)
		return 0;
	*value = 0x0807060504030201;
	note(bpf_dynptr_from_mem(value, 8, 0, &p));
	note(bpf_dynptr_read(out, 4, &p, 2, 0)); note(*(__s64 *)out);
	note(bpf_dynptr_read(out, 4, &p, 5, 0)); note(bpf_dynptr_read(out, 4, &p, 0, 1));
	note(bpf_dynptr_write(&p, 6, out, 2, 0)); note(*value);
	note(bpf_dynptr_write(&p, 7, out, 2, 0)); note(bpf_dynptr_write(&p, 0, out, 2, 1));
	__u8 *slice = bpf_dynptr_data(&p, 4, 4);
	note(!!slice);
	if (slice)
		slice[3] = 0xee;
	note(*value);
	note(!!bpf_dynptr_data(&p, 5, 4));
	note(bpf_dynptr_from_mem(value, 8, 1, &bad)); note(bpf_dynptr_read(out, 1, &bad, 0, 0));
	note(!!bpf_dynptr_data(&bad, 0, 0));
	note(bpf_ringbuf_reserve_dynptr(&ring, 16, 0, &r));
	note(bpf_dynptr_write(&r, 0, out, 8, 0)); note(bpf_dynptr_write(&r, 12, out, 8, 0));
	bpf_ringbuf_submit_dynptr(&r, 0);
	note(bpf_ringbuf_reserve_dynptr(&ring, 8000, 0, &r)); note(bpf_dynptr_write(&r, 0, out, 1, 0));
	bpf_ringbuf_discard_dynptr(&r, 0);
	note(bpf_ringbuf_query(&ring, BPF_RB_PROD_POS));
	return 0;
}

SEC("tc/rings")
int rings(struct __sk_buff *skb)
{
	static const char big[600];
	struct event *e;

	note(bpf_ringbuf_query(&ring, BPF_RB_RING_SIZE));
	for (int i = 0; i < 3; i++) {
		e = bpf_ringbuf_reserve(&ring, sizeof(*e), 0);
		if (!e)
			return 1;
		e->number = i;
		__builtin_memcpy(e->text, "hello world", 12);
		if (i == 1)
			bpf_ringbuf_discard(e, 0);
		else
			bpf_ringbuf_submit(e, 0);
	}
	note(bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA)); note(bpf_ringbuf_query(&ring, BPF_RB_PROD_POS));
	note(bpf_ringbuf_query(&ring, BPF_RB_CONS_POS)); note(bpf_ringbuf_query(&ring, 77));
	e = bpf_ringbuf_reserve(&ring, 8192, 0);
	note(!!e);
	if (e)
		bpf_ringbuf_discard(e, 0);
	e = bpf_ringbuf_reserve(&ring, 8, 1);
	note(!!e);
	if (e)
		bpf_ringbuf_discard(e, 0);
	note(bpf_ringbuf_output(&ring, (void *)big, 5, 0)); note(bpf_ringbuf_output(&ring, (void *)big, 5, 4));
	for (int i = 0; i < 8; i++)
		note(bpf_ringbuf_output(&ring, (void *)big, sizeof(big), i % 3));
	note(bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA)); note(bpf_ringbuf_query(&ring, BPF_RB_PROD_POS));
	note(bpf_ringbuf_query(&ring, BPF_RB_CONS_POS));
	return 0;
}

SEC("tc/events")
int events(struct __sk_buff *skb)
{
	struct event e = {.number = 7, .text = "an event"};
	__u64 cpu = bpf_get_smp_processor_id(), flags = BPF_F_CURRENT_CPU;

	note(bpf_perf_event_output(skb, &perf, flags, &e, sizeof(e)));
	note(bpf_perf_event_output(skb, &perf, flags | 20ull << 32, &e, 5));
	note(bpf_perf_event_output(skb, &perf, flags | 2000ull << 32, &e, 5));
	note(bpf_perf_event_output(skb, &perf, cpu, &e, 1));
	note(bpf_perf_event_output(skb, &perf, 100000, &e, 1));
	note(bpf_perf_event_output(skb, &perf, flags | 1ull << 60, &e, 1));
	note(bpf_perf_event_output(skb, &perf, flags, &e, 0));
	return 0;
}

SEC("tc/blooms")
int blooms(struct __sk_buff *skb)
{
	__u64 a = 1, b = 0x123456789;
	__u32 v = 1;

	note(bpf_map_peek_elem(&bloom, &a));
	note(bpf_map_push_elem(&bloom, &a, 0)); note(bpf_map_push_elem(&bloom, &a, 1));
	note(bpf_map_peek_elem(&bloom, &a)); note(bpf_map_peek_elem(&bloom, &b));
	note(bpf_map_peek_elem(&queue, &v)); note(v);
	for (int i = 5; i < 8; i++) {
		v = i;
		note(bpf_map_push_elem(&queue, &v, 0));
	}
	note(bpf_map_push_elem(&queue, &v, BPF_EXIST));
	note(bpf_map_pop_elem(&queue, &v)); note(v); note(bpf_map_pop_elem(&queue, &v)); note(v); note(bpf_map_pop_elem(&queue, &v));
	return 0;
}

struct walk {
	__u64 sum, keys;
	__u32 stop;
};

static long visit(struct bpf_map *map, __u32 *key, __u64 *value, struct walk *w)
{
	w->sum += *value * 3;
	w->keys |= 1ull << (*key & 63);
	*value += 100;
	return w->stop && --w->stop == 0;
}

static long drop(struct bpf_map *map, __u32 *key, __u64 *value, struct walk *w)
{
	w->keys++;
	if (*key & 1)
		bpf_map_delete_elem(map, key);
	return 0;
}

SEC("tc/walks")
int walks(struct __sk_buff *skb)
{
	struct walk w = {};
	__u64 value;

	note(bpf_for_each_map_elem(&hash, visit, &w, 0));
	for (int i = 10; i < 17; i++) {
		__u32 key = i;

		value = key;
		bpf_map_update_elem(&hash, &key, &value, 0);
	}
	note(bpf_for_each_map_elem(&hash, visit, &w, 0)); note(w.sum); note(w.keys);
	note(bpf_for_each_map_elem(&hash, visit, &w, 1));
	w.stop = 3;
	note(bpf_for_each_map_elem(&hash, visit, &w, 0));
	w.keys = 0;
	note(bpf_for_each_map_elem(&hash, drop, &w, 0)); note(w.keys);
	w = (struct walk){};
	note(bpf_for_each_map_elem(&hash, visit, &w, 0)); note(w.keys);
	w = (struct walk){.stop = 4};
	note(bpf_for_each_map_elem(&percpu, visit, &w, 0)); note(w.sum); note(w.keys);
	w = (struct walk){};
	note(bpf_for_each_map_elem(&percpu, visit, &w, 0)); note(w.sum); note(w.keys);
	return 0;
}

SEC("tc/locking")
int locking(struct __sk_buff *skb)
{
	struct locked new = {.count = 50, .sum = 60}, *l;
	__u32 key = 1;

	l = bpf_map_lookup_elem(&locks, &key);
	if (!l)
		return 0;
	for (int i = 0; i < 10; i++) {
		bpf_spin_lock(&l->lock);
		l->count++;
		l->sum += i;
		bpf_spin_unlock(&l->lock);
	}
	note(l->count); note(l->sum);
	note(bpf_map_update_elem(&locks, &key, &new, BPF_F_LOCK)); note(l->count); note(l->sum);
	note(bpf_map_update_elem(&locks, &key, &new, BPF_F_LOCK | BPF_NOEXIST));
	note(bpf_map_update_elem(&percpu, &key, &new, BPF_F_LOCK));
	note(bpf_map_update_elem(&hash, &key, &new, BPF_F_LOCK));
	note(bpf_map_update_elem(&locked_hash, &key, &new, BPF_F_LOCK | BPF_EXIST));
	note(bpf_map_update_elem(&locked_hash, &key, &new, BPF_F_LOCK));
	l = bpf_map_lookup_elem(&locked_hash, &key);
	new.count = 51;
	note(bpf_map_update_elem(&locked_hash, &key, &new, BPF_F_LOCK));
	if (l)
		note(l->count);                                /* in place */
	new.count = 52;
	note(bpf_map_update_elem(&locked_hash, &key, &new, 0));
	l = bpf_map_lookup_elem(&locked_hash, &key);
	if (l) {
		bpf_spin_lock(&l->lock);
		l->sum = 61;
		bpf_spin_unlock(&l->lock);
		note(l->count); note(l->sum);
	}
	return 0;
}

SEC("tc/places")
int places(struct __sk_buff *skb)
{
	struct bpf_fib_lookup fib = {.family = 2, .ifindex = 1};
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *sk;
	char comm[16], few[4];
	__u32 mtu = 0;

	note(bpf_check_mtu(skb, 0, &mtu, 0, 0)); note(mtu);
	mtu = 0;
	note(bpf_check_mtu(skb, 1, &mtu, 70000, 0)); note(mtu);
	mtu = 0;
	note(bpf_check_mtu(skb, 1, &mtu, 65536 + 14 - skb->len, 0)); note(mtu);
	mtu = 0;
	note(bpf_check_mtu(skb, 1, &mtu, 65536 + 15 - skb->len, 0)); note(mtu);
	mtu = 65536;
	note(bpf_check_mtu(skb, 1, &mtu, 0, 0)); note(bpf_check_mtu(skb, 1, &mtu, 1, 0)); note(bpf_check_mtu(skb, 1, &mtu, 0, 1));
	mtu = 0;
	note(bpf_check_mtu(skb, 1, &mtu, 0, 1)); note(bpf_check_mtu(skb, 1, &mtu, 0, 2)); note(bpf_check_mtu(skb, 9999, &mtu, 0, 0));
	note(mtu);
	note(bpf_fib_lookup(skb, &fib, sizeof(fib), 0)); note(bpf_fib_lookup(skb, &fib, 60, 0));
	note(bpf_fib_lookup(skb, &fib, sizeof(fib), 1 << 10)); note(bpf_fib_lookup(skb, &fib, sizeof(fib), BPF_FIB_LOOKUP_OUTPUT));
	fib.ifindex = 9999;
	note(bpf_fib_lookup(skb, &fib, sizeof(fib), 0));
	fib.family = 3;
	note(bpf_fib_lookup(skb, &fib, sizeof(fib), 0));
	fib.family = 10;
	note(bpf_fib_lookup(skb, &fib, sizeof(fib), 0));
	fib.ifindex = 1;
	fib.ipv6_dst[0] = 0x20;
	fib.ipv6_src[0] = 0x20;
	note(bpf_fib_lookup(skb, &fib, sizeof(fib), 0));
	fib.ipv6_dst[0] = 0x80fe;
	note(bpf_fib_lookup(skb, &fib, sizeof(fib), 0));
	sk = bpf_sk_lookup_udp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	note(!!sk);
	if (sk)
		bpf_sk_release(sk);
	sk = bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
	note(!!sk);
	if (sk)
		bpf_sk_release(sk);
	note(bpf_get_current_comm(comm, sizeof(comm))); note(bpf_get_current_comm(few, sizeof(few)));
	note(*(__s64 *)comm); note(*(__s64 *)(comm + 8)); note(*(__s32 *)few);
	note(bpf_get_current_pid_tgid()); note(bpf_get_current_uid_gid());
	note(bpf_skb_get_xfrm_state(skb, 0, (void *)&tuple, 16, 0));
	return 0;
}

/* BPF_PROG_TEST_RUN makes a socket up; a packet on its way in has none. */
SEC("tc/sockets")
int sockets(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;

	note(!!sk);
	if (sk)
		note(!!bpf_sk_fullsock(sk));
	note(bpf_get_socket_cookie(skb)); note(bpf_get_socket_uid(skb)); note(bpf_skb_cgroup_id(skb));
	note(bpf_skb_ancestor_cgroup_id(skb, 0)); note(bpf_get_netns_cookie(skb));
	return 0;
}

char _license[] SEC("license") = "GPL";

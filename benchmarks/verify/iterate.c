// SPDX-License-Identifier: Apache-2.0
/* Loops that the verifier walks once: callbacks of bpf_loop and bpf_for_each_map_elem, and may_goto. */
#include "large.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, struct tuple);
} peers SEC(".maps");

struct walk {
	struct __sk_buff *skb;
	__u32 off, sum, found;
	__u8 window[32];
};

/* Ends a loop when the kernel has had enough of it: may_goto, in bytes for compilers that have no name for it. */
#define enough()                                                                                  \
	({                                                                                        \
		__label__ over;                                                               \
		int done = 1;                                                                     \
		asm volatile goto("1: .byte 0xe5, 0; .long (%l[over] - 1b - 8) / 8 & 0xffff; .short 0" :::: over); \
		done = 0;                                                                         \
	over:                                                                                     \
		done;                                                                             \
	})

static long scan(__u32 i, struct walk *w)
{
	__u8 byte = 0;

	if (bpf_skb_load_bytes(w->skb, (w->off + i) & 0xffff, &byte, 1))
		return 1;
	w->window[i & 31] = byte;
	w->sum = w->sum * 31 + byte;
	if (byte >= '0' && byte <= '9')
		w->found |= 1;
	else if (byte >= 'a' && byte <= 'z')
		w->found |= 2;
	else if (byte == ' ' || byte == '\t')
		w->found = 0;
	return w->found == 3;
}

static long peer(struct bpf_map *map, __u32 *key, struct tuple *value, struct walk *w)
{
	if (value->saddr == w->sum)
		w->found |= 4;
	if (value->protocol == IPPROTO_TCP && value->dport > 1024)
		w->sum ^= value->daddr;
	return value->zone == *key;
}

static __always_inline int words(struct __sk_buff *skb, __u32 start, __u32 *sum)
{
	__u32 i = 0, odd = 0;

	while (!enough()) {
		__u32 word = 0;

		if (bpf_skb_load_bytes(skb, (start + i * 4) & 0xffff, &word, 4))
			break;
		if (word & 1)
			odd = i;
		*sum += word;
		i++;
	}
	return odd;
}

/* One part; its marks are made in its place, since what a compiler puts off to the end has to wait on the stack. */
#define PART(n)                                                                                   \
	w.off = 14 + (n);                                                                         \
	bpf_loop(64 + (n), scan, &w, 0);                                                          \
	if (w.found & 1 && skb->len > 100 + (n))                                                  \
		bpf_for_each_map_elem(&peers, peer, &w, 0);                                       \
	if (words(skb, w.off, &sum) > (n))                                                        \
		marks |= 1u << ((n) % 5);                                                         \
	if (w.window[(n) & 31] == (n) && w.found)                                                 \
		marks &= ~(1u << ((n) % 3));                                                     \
	opaque(marks);

SEC("tc")
int iterate(struct __sk_buff *skb)
{
	struct walk w = {.skb = skb};
	__u32 sum = 0, marks = 0;

	R64(PART, 0) R16(PART, 4)
	skb->mark = marks;
	return sum == marks ? TC_ACT_SHOT : TC_ACT_OK;
}

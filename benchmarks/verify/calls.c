// SPDX-License-Identifier: Apache-2.0
/* Functions that call functions, each with a stack of its own, and tail calls: a program as compilers leave it at -O1. */
#include "large.h"

#define FUNCTION static __attribute__((noinline))

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u32);
} stages SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u64);
} totals SEC(".maps");

struct names {
	__u8 text[8];
	__u32 length, label;
};

FUNCTION int count(__u32 slot, __u64 by)
{
	__u64 *total = bpf_map_lookup_elem(&totals, &slot);

	if (!total)
		return -1;
	__sync_fetch_and_add(total, by);
	return 0;
}

FUNCTION int byte_at(struct __sk_buff *skb, __u32 off)
{
	__u8 byte;

	if (off > 1500 || bpf_skb_load_bytes(skb, off, &byte, 1))
		return -1;
	return byte;
}

/* A name of labels, lower case, into a buffer of the caller. */
FUNCTION int name_at(struct __sk_buff *skb, __u32 off, struct names *name)
{
	__u32 i;

	name->length = name->label = 0;
	for (i = 0; i < sizeof(name->text); i++) {
		int byte = byte_at(skb, off + i);

		if (byte < 0)
			return -1;
		if (byte == 0)
			break;
		if (byte < 64)
			name->label = byte;
		if (byte >= 'A' && byte <= 'Z')
			byte += 'a' - 'A';
		name->text[i] = byte;
	}
	name->length = i;
	return name->label + 2;
}

FUNCTION __u32 hash(const struct names *name, __u32 seed)
{
	__u32 i;

	for (i = 0; i < sizeof(name->text) && i < name->length; i++)
		seed = (seed ^ name->text[i]) * 16777619u;
	return seed;
}

FUNCTION int question(struct __sk_buff *skb, __u32 off, __u32 kind)
{
	struct names name = {};
	int length = name_at(skb, off, &name);
	__u32 sum;

	if (length < 0)
		return -1;
	sum = hash(&name, kind);
	if (count(sum & 255, length))
		return -1;
	return length + 5;
}

#define ASK(n)                                                                                    \
	step = question(skb, off, n);                                                             \
	if (step < 0)                                                                             \
		goto out;                                                                         \
	off = (off + step) & 1023;                                                                \
	if (skb->len > 64 * (n) && (step & 7) == (n) % 8) {                                       \
		count(n, off);                                                                    \
		asked |= 1;                                                         \
	} else if (byte_at(skb, off) == (n)) {                                                    \
		asked &= ~1u;                                                      \
	}

SEC("tc")
int calls(struct __sk_buff *skb)
{
	__u32 off = ETH_HLEN + sizeof(struct iphdr) + sizeof(struct udphdr) + 12, asked = 0;
	int step;

	R64(ASK, 0) R64(ASK, 1) R64(ASK, 2)
out:
	skb->mark = asked;
	bpf_tail_call(skb, &stages, asked & 15);
	return TC_ACT_OK;
}

// SPDX-License-Identifier: Apache-2.0
/* Straight arithmetic between few branches: hashes over every part of the packet, all loops unrolled. */
#include "large.h"

#define rotl(x, n) ((x) << (n) | (x) >> (32 - (n)))

static __always_inline __u32 jenkins(__u32 a, __u32 b, __u32 c)
{
	a += 0xdeadbeef; b += 0xdeadbeef; c += 0xdeadbeef;
	c ^= b; c -= rotl(b, 14);
	a ^= c; a -= rotl(c, 11);
	b ^= a; b -= rotl(a, 25);
	c ^= b; c -= rotl(b, 16);
	a ^= c; a -= rotl(c, 4);
	b ^= a; b -= rotl(a, 14);
	c ^= b; c -= rotl(b, 24);
	return c;
}

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, __u64);
} sketch SEC(".maps");

/* One block of the packet into the sketch, by a hash of it; some blocks choose what the next are hashed with. */
#define BLOCK(n)                                                                                  \
	{                                                                                         \
		__u32 *word = bound(skb, data) + 14 + 12 * (n), slot;                             \
		__u64 *cell;                                                                      \
                                                                                                  \
		if ((void *)(word + 3) > bound(skb, data_end))                                    \
			goto out;                                                                 \
		slot = jenkins(word[0], word[1] ^ seed, word[2]);                                 \
		if (slot >> 16 > 1000 * (n))                                                      \
			odd ^= 1 << ((n) % 4);                                                    \
		if (word[0] == word[2])                                                           \
			seed = n;                                                                 \
		slot &= 4095;                                                                     \
		cell = bpf_map_lookup_elem(&sketch, &slot);                                       \
		if (cell)                                                                         \
			*cell += (word[1] & 255) + 1;                                             \
	}

SEC("tc")
int unroll(struct __sk_buff *skb)
{
	__u32 seed = skb->hash, odd = 0;

	R64(BLOCK, 0) R16(BLOCK, 4)
out:
	return odd > 5 ? TC_ACT_SHOT : TC_ACT_OK;
}

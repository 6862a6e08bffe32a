// SPDX-License-Identifier: Apache-2.0
/* Loops that the verifier walks round by round: sums over the packet, a sort, a search for text, nested counting. */
#include "large.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u32);
} samples SEC(".maps");

static __always_inline __u32 crc(__u32 sum, __u8 byte)
{
	int i;

	sum ^= byte;
#pragma clang loop unroll(disable)
	for (i = 0; i < 8; i++)
		sum = sum & 1 ? sum >> 1 ^ 0xedb88320 : sum >> 1;
	return sum;
}

static __always_inline int sums(struct __sk_buff *skb, __u32 start, __u32 *out)
{
	void *data = bound(skb, data), *end = bound(skb, data_end);
	__u32 i, a = 1, b = 0, sum = ~0u;

#pragma clang loop unroll(disable)
	for (i = 0; i < 8; i++) {
		__u8 *p = data + start + i;

		if ((void *)(p + 1) > end)
			break;
		a += *p;
		b += a;
		if (a >= 65521)
			a -= 65521;
		sum = crc(sum, *p);
	}
	*out = (b % 65521 << 16 | a) ^ sum;
	return i > 1;
}

static __always_inline void sort(__u32 *a)
{
	int i, j;

#pragma clang loop unroll(disable)
	for (i = 1; i < 10; i++) {
#pragma clang loop unroll(disable)
		for (j = i; j > 0 && j < 10; j--) {
			__u32 left = a[j - 1], right = a[j];

			if (left <= right)
				break;
			a[j - 1] = right;
			a[j] = left;
		}
	}
}

#define PART(n)                                                                                   \
	{                                                                                         \
		__u32 values[10] = {}, slot = (n) % 64, *sample, sum = 0;                         \
		int read = sums(skb, 14 + (n) * 4, &sum), i;                                      \
                                                                                                  \
		if (!read)                                                                     \
			goto out;                                                                 \
		for (i = 0; i < 10; i++)                                                          \
			values[i] = sum >> i ^ hash;                                         \
		sort(values);                                                                     \
		sample = bpf_map_lookup_elem(&samples, &slot);                                    \
		if (sample)                                                                       \
			*sample += values[7];                                                     \
		else                                                                              \
			bad++;                                                                    \
	}

SEC("tc")
int loops(struct __sk_buff *skb)
{
	__u32 bad = 0, hash = skb->hash;

	R16(PART, 0)
out:
	return bad > 1 ? TC_ACT_SHOT : TC_ACT_OK;
}

// SPDX-License-Identifier: Apache-2.0
/* About a thousand instructions, to time loading: SipHash over 160 bytes, unrolled, and a decision on it. */
#include "packet.h"

#define ROTL(x, b) ((x) << (b) | (x) >> (64 - (b)))
#define ROUND(a, b, c, d) do { \
		a += b; c += d; b = ROTL(b, 13) ^ a; d = ROTL(d, 16) ^ c; a = ROTL(a, 32); \
		c += b; a += d; b = ROTL(b, 17) ^ c; d = ROTL(d, 21) ^ a; c = ROTL(c, 32); \
	} while (0)

SEC("tc")
int prog(struct __sk_buff *skb)
{
	__u64 *p = packet(skb, 160);
	__u64 a = 0x736f6d6570736575, b = 0x646f72616e646f6d, c = 0x6c7967656e657261, d = 0x7465646279746573;
	__u32 m = 0;

	if (!p)
		return TC_ACT_SHOT;
#pragma unroll
	for (int i = 0; i < 20; i++) {
		d ^= p[i];
		ROUND(a, b, c, d);
		if (a & 1)
			b ^= p[i];
		else
			m += (__u32)c;
	}
	skb->mark = m;
	return (a ^ b ^ c ^ d) & 1 ? TC_ACT_OK : TC_ACT_SHOT;
}

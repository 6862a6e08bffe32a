// SPDX-License-Identifier: Apache-2.0
/* Pure compute at 64 bits: SipHash-2-4 over 64 bytes of the packet. */
#include "packet.h"

#define ROTL(x, b) ((x) << (b) | (x) >> (64 - (b)))
#define ROUND(a, b, c, d) do { \
		a += b; c += d; b = ROTL(b, 13) ^ a; d = ROTL(d, 16) ^ c; a = ROTL(a, 32); \
		c += b; a += d; b = ROTL(b, 17) ^ c; d = ROTL(d, 21) ^ a; c = ROTL(c, 32); \
	} while (0)

SEC("tc")
int prog(struct __sk_buff *skb)
{
	__u64 *p = packet(skb, 64);
	__u64 a = 0x736f6d6570736575, b = 0x646f72616e646f6d, c = 0x6c7967656e657261, d = 0x7465646279746573;

	if (!p)
		return 0;
	for (int i = 0; i < 8; i++) {
		d ^= p[i];
		ROUND(a, b, c, d);
		ROUND(a, b, c, d);
		a ^= p[i];
	}
	c ^= 0xff;
	ROUND(a, b, c, d);
	ROUND(a, b, c, d);
	ROUND(a, b, c, d);
	ROUND(a, b, c, d);
	return (a ^ b ^ c ^ d) & 0xff;
}

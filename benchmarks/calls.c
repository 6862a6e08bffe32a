// SPDX-License-Identifier: Apache-2.0
/* Calls between functions that are not inlined: a little state machine over 24 bytes. */
#include "packet.h"

static __noinline __u32 letter(__u32 state, __u32 c)
{
	return state * 31 + (c | 0x20);
}

static __noinline __u32 digit(__u32 state, __u32 c)
{
	return state * 10 + (c - '0');
}

static __noinline __u32 other(__u32 state, __u32 c)
{
	return state ^ (c << 7) ^ (state >> 3);
}

static __noinline __u32 step(__u32 state, __u32 c)
{
	if (c >= '0' && c <= '9')
		return digit(state, c);
	if ((c | 0x20) >= 'a' && (c | 0x20) <= 'z')
		return letter(state, c);
	return other(state, c);
}

SEC("tc")
int prog(struct __sk_buff *skb)
{
	unsigned char *p = packet(skb, 90);
	__u32 state = 7;

	if (!p)
		return 0;
	for (int i = 66; i < 90; i++)
		state = step(state, p[i]);
	return state & 0xff;
}

// SPDX-License-Identifier: Apache-2.0
/* Division in a loop: is this number from the packet a prime? */
#include "packet.h"

SEC("tc")
int prog(struct __sk_buff *skb)
{
	unsigned char *p = packet(skb, 64);
	__u32 n, i;

	if (!p)
		return 0;
	n = 3001 + (p[14] & 2);
	for (i = 3; i < 60; i += 2)
		if (n % i == 0)
			break;
	return i < 60;
}

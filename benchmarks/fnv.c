// SPDX-License-Identifier: Apache-2.0
/* Pure compute: FNV-1a over the first 96 bytes of the packet, a byte at a time. */
#include "packet.h"

SEC("tc")
int prog(struct __sk_buff *skb)
{
	unsigned char *p = packet(skb, 96);
	__u32 h = 0x811c9dc5;

	if (!p)
		return 0;
	for (int i = 0; i < 96; i++)
		h = (h ^ p[i]) * 0x01000193;
	return h & 0xff;
}

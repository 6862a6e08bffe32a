// SPDX-License-Identifier: Apache-2.0
/* A loop over the packet: the Internet checksum of 96 bytes, sixteen bits at a time. */
#include "packet.h"

SEC("tc")
int prog(struct __sk_buff *skb)
{
	__u16 *p = packet(skb, 96);
	__u64 sum = 0;

	if (!p)
		return 0;
	for (int i = 0; i < 48; i++)
		sum += p[i];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__u16)~sum & 0xff;
}

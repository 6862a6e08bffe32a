// SPDX-License-Identifier: Apache-2.0
/* Branches and the stack: insertion sort of sixteen numbers from the packet. */
#include "packet.h"

#define N 16

SEC("tc")
int prog(struct __sk_buff *skb)
{
	__u32 *p = packet(skb, 4 * N), v[N];

	if (!p)
		return 0;
	for (int i = 0; i < N; i++)
		v[i] = p[i] * 2654435761u;
#pragma unroll
	for (int i = 1; i < N; i++) {
#pragma unroll
		for (int j = i; j > 0; j--) {
			if (v[j - 1] > v[j]) {
				__u32 t = v[j];

				v[j] = v[j - 1];
				v[j - 1] = t;
			}
		}
	}
	return v[N / 2] & 0xff;
}

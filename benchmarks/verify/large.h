// SPDX-License-Identifier: Apache-2.0
/* What the large programs share: headers, a seed of copies of a piece of code, and the parts of a packet. */
#include <linux/bpf.h>
#include <linux/stddef.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

char _license[] SEC("license") = "GPL";

#define R4(M, n) M(4 * (n)) M(4 * (n) + 1) M(4 * (n) + 2) M(4 * (n) + 3)
#define R16(M, n) R4(M, 4 * (n)) R4(M, 4 * (n) + 1) R4(M, 4 * (n) + 2) R4(M, 4 * (n) + 3)
#define R64(M, n) R16(M, 4 * (n)) R16(M, 4 * (n) + 1) R16(M, 4 * (n) + 2) R16(M, 4 * (n) + 3)
/* The same once more, for copies of copies. */
#define S4(M, n) M(4 * (n)) M(4 * (n) + 1) M(4 * (n) + 2) M(4 * (n) + 3)
#define S16(M, n) S4(M, 4 * (n)) S4(M, 4 * (n) + 1) S4(M, 4 * (n) + 2) S4(M, 4 * (n) + 3)


#define barrier() asm volatile("" ::: "memory")
#define opaque(x) asm volatile("" : "+r"(x))
/* The compiler shall know nothing of x here; the verifier does. */

/* The packet's bounds, read at this place: the compiler would fold the offsets of several reads into the pointer. */
#define bound(skb, field)                                                                         \
	({                                                                                        \
		void *at;                                                                         \
		asm volatile("%0 = *(u32 *)(%1 + %2)" : "=r"(at) : "r"(skb), "i"(offsetof(struct __sk_buff, field))); \
		at;                                                                               \
	})

struct tuple {
	__u32 saddr, daddr;
	__u16 sport, dport;
	__u8 protocol, flags;
	__u16 zone;
};

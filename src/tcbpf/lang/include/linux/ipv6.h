/* IPv6. Source: RFC 8200; include/uapi/linux/ipv6.h. */
#ifndef TCBPF_LINUX_IPV6_H
#define TCBPF_LINUX_IPV6_H
#define _IPV6_H
#define _UAPI_IPV6_H

#include <linux/types.h>
#include <linux/in6.h>
#include <asm/byteorder.h>
#include <linux/stddef.h>

#define IPV6_MIN_MTU 1280

struct ipv6_rt_hdr {
	__u8 nexthdr;
	__u8 hdrlen;
	__u8 type;
	__u8 segments_left;
};

struct ipv6_opt_hdr {
	__u8 nexthdr;
	__u8 hdrlen;
} __attribute__((packed));
#define ipv6_destopt_hdr ipv6_opt_hdr
#define ipv6_hopopt_hdr ipv6_opt_hdr

struct frag_hdr {
	__u8 nexthdr;
	__u8 reserved;
	__be16 frag_off;
	__be32 identification;
};

struct ipv6hdr {
	__u8 priority:4, version:4;
	__u8 flow_lbl[3];
	__be16 payload_len;
	__u8 nexthdr;
	__u8 hop_limit;
	__struct_group(ipv6_addrs, addrs, ,
		struct in6_addr saddr;
		struct in6_addr daddr;
	);
};

#endif

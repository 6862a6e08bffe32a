// SPDX-License-Identifier: Apache-2.0
/* A parser of tunnels in tunnels: VLAN tags, IPv4 with options, IPv6 with its chain of headers, GRE, VXLAN, TCP options. */
#include "large.h"

#define LEVELS 12

struct cursor {
	void *at, *end;
};

struct found {
	struct tuple tuple;
	__u32 depth, vni, mss, wscale, fragment, labels, options, left;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct tuple);
	__type(value, struct found);
} flows SEC(".maps");

struct gre {
	__be16 flags, protocol;
};

struct vxlan {
	__be32 flags, vni;
};

static __always_inline void *take(struct cursor *c, __u32 n)
{
	void *at = c->at;

	if (at + n > c->end)
		return NULL;
	c->at = at + n;
	return at;
}

/* The length of that many words of options, at most 15: the mask is for the verifier, the compiler would fold it away. */
static __always_inline __u64 skip(__u64 words)
{
	opaque(words);
	return (words & 15) * 4;
}

static __always_inline int tcp_options(struct cursor *c, __u32 length, struct found *f)
{
	__u32 off = 0;
	int i;

	for (i = 0; i < 16 && off < length; i++) {
		__u8 *option = c->at + (off & 63);

		if (option + 4 > (__u8 *)c->end)
			return -1;
		if (option[0] == 0)
			break;
		if (option[0] == 1) {
			off = (off + 1) & 63;
			continue;
		}
		if (option[1] < 2)
			return -1;
		if (option[0] == 2)
			f->mss = option[2] << 8 | option[3];
		else if (option[0] == 3)
			f->wscale = option[2] & 15;
		f->options |= 1u << (option[0] & 31);
		off = (off + option[1]) & 63;
	}
	return 0;
}

static __always_inline int ip6_chain(struct cursor *c, __u8 next)
{
	int i;

#pragma unroll
	for (i = 0; i < 6; i++) {
		struct ipv6_opt_hdr *opt;

		if (next != 0 && next != 43 && next != 44 && next != 60 && next != 51)
			return next;
		opt = take(c, 8);
		if (!opt)
			return -1;
		if (next == 51) {
			if (!take(c, (opt->hdrlen * 4) & 127))
				return -1;
		} else if (next != 44 && !take(c, (opt->hdrlen * 8) & 127)) {
			return -1;
		}
		next = opt->nexthdr;
	}
	return next;
}

/* One level: returns the ether type that is inside, 0 for a transport header that was read, -1 for a bad packet. */
static __always_inline int level(struct cursor *c, int proto, struct found *f)
{
	int next, i;

#pragma unroll
	for (i = 0; i < 2; i++)
		if (proto == ETH_P_8021Q || proto == ETH_P_8021AD) {
			__be16 *tag = take(c, 4);

			if (!tag)
				return -1;
			proto = bpf_ntohs(tag[1]);
			f->labels++;
		}
	if (proto == ETH_P_IP) {
		struct iphdr *ip = take(c, sizeof(*ip));

		if (!ip || ip->version != 4 || ip->ihl < 5)
			return -1;
		if (!take(c, skip(ip->ihl - 5)))
			return -1;
		f->tuple.saddr = ip->saddr;
		f->tuple.daddr = ip->daddr;
		f->fragment |= ip->frag_off & bpf_htons(0x1fff) ? 1 : 0;
		next = ip->protocol;
	} else if (proto == ETH_P_IPV6) {
		struct ipv6hdr *ip6 = take(c, sizeof(*ip6));

		if (!ip6 || ip6->version != 6)
			return -1;
		f->tuple.saddr = ip6->saddr.in6_u.u6_addr32[3];
		f->tuple.daddr = ip6->daddr.in6_u.u6_addr32[3];
		next = ip6_chain(c, ip6->nexthdr);
	} else {
		return -1;
	}
	f->depth++;
	f->tuple.protocol = next;
	if (next == IPPROTO_IPIP)
		return ETH_P_IP;
	if (next == IPPROTO_IPV6)
		return ETH_P_IPV6;
	if (next == IPPROTO_GRE) {
		struct gre *gre = take(c, sizeof(*gre));

		if (!gre)
			return -1;
		if (gre->flags & bpf_htons(0x8000) && !take(c, 4))
			return -1;
		if (gre->flags & bpf_htons(0x2000) && !take(c, 4))
			return -1;
		return bpf_ntohs(gre->protocol);
	}
	if (next == IPPROTO_TCP) {
		struct tcphdr *tcp = take(c, sizeof(*tcp));

		if (!tcp || tcp->doff < 5)
			return -1;
		f->tuple.sport = tcp->source;
		f->tuple.dport = tcp->dest;
		f->left = (tcp->doff - 5) * 4;
		return 0;
	}
	if (next == IPPROTO_UDP) {
		struct udphdr *udp = take(c, sizeof(*udp));
		struct ethhdr *eth;
		struct vxlan *vxlan;

		if (!udp)
			return -1;
		f->tuple.sport = udp->source;
		f->tuple.dport = udp->dest;
		if (udp->dest != bpf_htons(4789))
			return 0;
		vxlan = take(c, sizeof(*vxlan));
		eth = take(c, sizeof(*eth));
		if (!vxlan || !eth)
			return -1;
		f->vni = bpf_ntohl(vxlan->vni) >> 8;
		return bpf_ntohs(eth->h_proto);
	}
	return 0;
}

SEC("tc")
int parse(struct __sk_buff *skb)
{
	struct cursor c = {(void *)(long)skb->data, (void *)(long)skb->data_end};
	struct ethhdr *eth = take(&c, sizeof(*eth));
	struct found f = {}, *known;
	int proto, i;
	__u64 off;

	if (!eth)
		return TC_ACT_OK;
	proto = bpf_ntohs(eth->h_proto);
#pragma unroll
	for (i = 0; i < LEVELS; i++) {
		proto = level(&c, proto, &f);
		off = c.at - (void *)eth;
		opaque(off);
		c.at = (void *)eth + (off & 1023);
		if (proto < 0)
			return TC_ACT_SHOT;
		if (!proto)
			break;
	}
	if (f.tuple.protocol == IPPROTO_TCP && tcp_options(&c, f.left, &f))
		return TC_ACT_SHOT;
	known = bpf_map_lookup_elem(&flows, &f.tuple);
	if (known)
		*known = f;
	else
		bpf_map_update_elem(&flows, &f.tuple, &f, BPF_ANY);
	return TC_ACT_OK;
}

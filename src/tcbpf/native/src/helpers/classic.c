/* What a converted classic filter calls: payload offset, netlink attributes, the device's hardware type.
 *
 * Source: bpf_skb_get_pay_offset(), bpf_skb_get_nlattr(), bpf_skb_get_nlattr_nest(), net/core/filter.c; __skb_get_poff(),
 * __skb_flow_dissect(), net/core/flow_dissector.c (v6.12), as far as the payload offset needs it.
 */
#include "../base.h"

enum { ETH_P_ARP = 0x806, ETH_P_RARP = 0x8035, ETH_P_TEB = 0x6558, ETH_P_PPP_SES = 0x8864, ETH_P_TIPC = 0x88ca,
       ETH_P_MPLS_UC = 0x8847, ETH_P_MPLS_MC = 0x8848, ETH_P_FCOE = 0x8906, ETH_P_BATMAN = 0x4305, ETH_P_1588 = 0x88f7,
       ETH_P_PRP = 0x88fb, ETH_P_HSR = 0x892f, ETH_P_CFM = 0x8902, ETH_P_PPP = 0x880b };
enum { PROTO_ICMP = 1, PROTO_IGMP = 2, PROTO_IPIP = 4, PROTO_TCP = 6, PROTO_UDP = 17, PROTO_DCCP = 33, PROTO_IPV6 = 41,
       PROTO_GRE = 47, PROTO_ICMPV6 = 58, PROTO_SCTP = 132, PROTO_UDPLITE = 136, PROTO_MPLS = 137,
       NEXT_HOP = 0, NEXT_ROUTING = 43, NEXT_FRAGMENT = 44, NEXT_DEST = 60 };
enum { PPP_IP = 0x21, PPP_IPV6 = 0x57, PPP_MPLS_UC = 0x281, PPP_MPLS_MC = 0x283 };
enum { GRE_CSUM = 0x8000, GRE_ROUTING = 0x4000, GRE_KEY = 0x2000, GRE_SEQ = 0x1000, GRE_ACK = 0x80, GRE_VERSION = 7 };
enum { HEADERS_MAX = 15 };

/* What a header is followed by: no telling; nothing more to tell; a header that an EtherType names; one that an IP number does. */
enum walk { BAD, DONE, NETWORK, TRANSPORT };

/* A walk along a packet's headers: what comes at `at` (proto in host order), and what was met. */
struct walk_at {
    const struct tcbpf_skb *skb;
    u32 at;
    u16 proto;
    u8 ip_proto;
    u8 tagged;                  /* the tag beside the packet, or one in it, is behind */
    u8 later;                   /* a fragment, not the first */
};

static ALWAYS const u8 *header(const struct walk_at *w, u32 size)
{
    return (u64)w->at + size <= w->skb->u.len ? w->skb->data + w->at : NULL;
}

static ALWAYS u16 be16(const u8 *p) { return swap16(load16(p)); }

static enum walk walk_ipv4(struct walk_at *w)
{
    const u8 *ip = header(w, IPV4_HLEN);
    u16 fragment;

    if (!ip || (ip[0] & 15) < 5)
        return BAD;
    w->at += (ip[0] & 15) * 4u;
    w->ip_proto = ip[9];
    fragment = be16(ip + 6) & 0x3fff;
    w->later |= (fragment & 0x1fff) != 0;
    return fragment ? DONE : TRANSPORT;
}

static enum walk walk_ipv6(struct walk_at *w)
{
    const u8 *ip = header(w, IPV6_HLEN);

    if (!ip)
        return BAD;
    w->at += IPV6_HLEN;
    w->ip_proto = ip[6];
    return TRANSPORT;
}

/* The first tag is the one beside the packet, when it has one. */
static enum walk walk_vlan(struct walk_at *w)
{
    const u8 *tag;

    if (!w->tagged && w->skb->u.vlan_present) {
        w->proto = swap16((u16)w->skb->u.protocol);
    } else {
        tag = header(w, VLAN_HLEN);
        if (!tag)
            return BAD;
        w->proto = be16(tag + 2);
        w->at += VLAN_HLEN;
    }
    w->tagged = 1;
    return NETWORK;
}

static enum walk walk_pppoe(struct walk_at *w)
{
    const u8 *ppp = header(w, 8);
    u16 proto;

    if (!ppp || ppp[0] != 0x11 || ppp[1])
        return BAD;
    proto = be16(ppp + 6);
    w->at += 8;
    switch (proto) {
    case PPP_IP: w->proto = ETH_P_IP; return NETWORK;
    case PPP_IPV6: w->proto = ETH_P_IPV6; return NETWORK;
    case PPP_MPLS_UC: w->proto = ETH_P_MPLS_UC; return NETWORK;
    case PPP_MPLS_MC: w->proto = ETH_P_MPLS_MC; return NETWORK;
    }
    return (proto & 0x0101) == 1 ? DONE : BAD;
}

static enum walk walk_batman(struct walk_at *w)
{
    const u8 *unicast = header(w, 10 + ETH_HLEN);

    if (!unicast || unicast[0] != 0x40 || unicast[1] != 15)    /* BATADV_UNICAST, BATADV_COMPAT_VERSION */
        return BAD;
    w->proto = be16(unicast + 10 + 12);
    w->at += 10 + ETH_HLEN;
    return NETWORK;
}

static enum walk walk_network(struct walk_at *w)
{
    switch (w->proto) {
    case ETH_P_IP: return walk_ipv4(w);
    case ETH_P_IPV6: return walk_ipv6(w);
    case ETH_P_8021Q: case ETH_P_8021AD: return walk_vlan(w);
    case ETH_P_PPP_SES: return walk_pppoe(w);
    case ETH_P_BATMAN: return walk_batman(w);
    case ETH_P_TIPC: return header(w, 16) ? DONE : BAD;
    case ETH_P_MPLS_UC: case ETH_P_MPLS_MC: w->at += 4; return DONE;
    case ETH_P_ARP: case ETH_P_RARP: case ETH_P_CFM: return DONE;
    case ETH_P_FCOE:
        if ((s64)w->skb->u.len - w->at < 38)
            return BAD;
        w->at += 38;
        return DONE;
    case ETH_P_1588:
        if (!header(w, 34))
            return BAD;
        w->at += 34;
        return DONE;
    case ETH_P_PRP: case ETH_P_HSR:
        if (!header(w, 6))
            return BAD;
        w->proto = be16(header(w, 6) + 4);
        w->at += 6;
        return NETWORK;
    }
    return BAD;
}

/* Version 0 carries anything; version 1 is PPTP's. */
static enum walk walk_gre(struct walk_at *w)
{
    const u8 *gre = header(w, 4), *inner;
    u16 flags;

    if (!gre)
        return BAD;
    flags = be16(gre);
    w->proto = be16(gre + 2);
    if (flags & GRE_ROUTING || (flags & GRE_VERSION) > 1 || (flags & GRE_VERSION && (w->proto != ETH_P_PPP || !(flags & GRE_KEY))))
        return DONE;
    w->at += 4 + (flags & GRE_CSUM ? 4u : 0);
    if (flags & GRE_KEY && !header(w, 4))
        return BAD;
    w->at += (flags & GRE_KEY ? 4u : 0) + (flags & GRE_SEQ ? 4u : 0);
    if (flags & GRE_VERSION) {
        w->at += flags & GRE_ACK ? 4 : 0;
        inner = header(w, 4);
        if (!inner)
            return BAD;
        w->proto = be16(inner + 2) == PPP_IP ? ETH_P_IP : be16(inner + 2) == PPP_IPV6 ? ETH_P_IPV6 : w->proto;
        w->at += 4;
    } else if (w->proto == ETH_P_TEB) {
        inner = header(w, ETH_HLEN);
        if (!inner)
            return BAD;
        w->proto = be16(inner + 12);
        w->at += ETH_HLEN;
    }
    return NETWORK;
}

static enum walk walk_transport(struct walk_at *w)
{
    const u8 *next;

    switch (w->ip_proto) {
    case PROTO_GRE: return walk_gre(w);
    case PROTO_IPIP: w->proto = ETH_P_IP; return NETWORK;
    case PROTO_IPV6: w->proto = ETH_P_IPV6; return NETWORK;
    case PROTO_MPLS: w->proto = ETH_P_MPLS_UC; return NETWORK;
    case NEXT_HOP: case NEXT_ROUTING: case NEXT_DEST:
        if (w->proto != ETH_P_IPV6)
            return DONE;
        next = header(w, 2);
        if (!next)
            return BAD;
        w->ip_proto = next[0];
        w->at += (next[1] + 1u) * 8;
        return TRANSPORT;
    case NEXT_FRAGMENT:
        if (w->proto != ETH_P_IPV6)
            return DONE;
        next = header(w, 8);
        if (!next)
            return BAD;
        w->later |= (be16(next + 2) & 0xfff8) != 0;
        w->ip_proto = next[0];
        w->at += 8;
        return DONE;
    }
    return DONE;
}

/* skb_flow_dissect_flow_keys_basic(): 0 when the headers cannot be told. */
static int walk_headers(struct walk_at *w)
{
    enum walk met, next = NETWORK;
    u32 headers = 0;

    do {
        met = next;
        next = met == NETWORK ? walk_network(w) : walk_transport(w);
        headers += next == NETWORK || met == TRANSPORT;
    } while (next != BAD && next != DONE && headers <= HEADERS_MAX);
    w->at = min_u32(w->at, w->skb->u.len);
    return next != BAD && w->at <= 0xffff;
}

/* (skb): where the payload starts, 0 when that cannot be told. */
HELPER(classic_pay_offset)
{
    const struct tcbpf_skb *skb = skb_of(r1);
    struct walk_at w = {.skb = skb, .at = skb->network};
    const u8 *tcp;

    w.proto = swap16((u16)(skb->u.vlan_present ? skb->u.vlan_proto : skb->u.protocol));
    if (!walk_headers(&w))
        return 0;
    if (w.later)
        return w.at;
    switch (w.ip_proto) {
    case PROTO_TCP:
        tcp = header(&w, 13);
        return tcp ? w.at + ((tcp[12] & 0xf0u) >> 2 > 20 ? (tcp[12] & 0xf0u) >> 2 : 20) : w.at;
    case PROTO_UDP: case PROTO_UDPLITE: case PROTO_ICMP: case PROTO_ICMPV6: case PROTO_IGMP: return w.at + 8;
    case PROTO_SCTP: case PROTO_DCCP: return w.at + 12;
    }
    return w.at;
}

/* The offset of the first attribute of a type from `at` on, in `len` bytes; 0 when there is none (nla_find). */
static u32 attribute_find(const struct tcbpf_skb *skb, u32 at, u32 len, u32 type)
{
    while (len >= 4) {
        u32 size = load16(skb->data + at), step = (u32)round_up(size, 4);

        if (size < 4 || size > len)
            return 0;
        if ((load16(skb->data + at + 2) & 0x3fff) == type)
            return at;
        at += step;
        len -= min_u32(step, len);
    }
    return 0;
}

/* (skb, A, X): the offset of attribute X at or after A. */
HELPER(classic_nlattr)
{
    const struct tcbpf_skb *skb = skb_of(r1);
    u32 at = (u32)r2;

    return at <= skb->u.len ? attribute_find(skb, at, skb->u.len - at, (u32)r3) : 0;
}

/* (skb, A, X): the offset of attribute X inside the one at A. */
HELPER(classic_nlattr_nest)
{
    const struct tcbpf_skb *skb = skb_of(r1);
    u32 at = (u32)r2, size;

    if (at > skb->u.len || skb->u.len - at < 4)
        return 0;
    size = load16(skb->data + at);
    return size >= 4 && size <= skb->u.len - at ? attribute_find(skb, at + 4, size - 4, (u32)r3) : 0;
}

/* (skb): ARPHRD_LOOPBACK or _ETHER. A packet that is on no device of ours has the number of one: 1 is the loopback's. */
HELPER(classic_hatype)
{
    const struct tcbpf_skb *skb = skb_of(r1);

    return (skb->dev ? skb->dev->kind == TCBPF_DEV_LO : skb->u.ifindex == 1) ? 772 : 1;
}

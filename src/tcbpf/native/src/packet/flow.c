/* A walk along a packet's headers: to its payload, and for the keys of its flow, which skb_get_hash() hashes.
 *
 * The hash is never 0 and the same in both directions, since addresses and ports are sorted. What cannot be followed leaves the
 * keys that were found so far. Differs: the kernel's hash is keyed with a random secret of each boot; which packets share one
 * is the same.
 *
 * Source: __skb_flow_dissect(), flow_keys_dissector_keys, __flow_hash_from_keys(), net/core/flow_dissector.c (v6.18).
 */
#include "../base.h"

enum { ETH_P_ARP = 0x806, ETH_P_RARP = 0x8035, ETH_P_TEB = 0x6558, ETH_P_PPP_SES = 0x8864, ETH_P_TIPC = 0x88ca,
       ETH_P_MPLS_UC = 0x8847, ETH_P_MPLS_MC = 0x8848, ETH_P_FCOE = 0x8906, ETH_P_BATMAN = 0x4305, ETH_P_1588 = 0x88f7,
       ETH_P_PRP = 0x88fb, ETH_P_HSR = 0x892f, ETH_P_CFM = 0x8902, ETH_P_PPP = 0x880b };
enum { PROTO_ICMP = 1, PROTO_IGMP = 2, PROTO_IPIP = 4, PROTO_TCP = 6, PROTO_UDP = 17, PROTO_DCCP = 33, PROTO_IPV6 = 41,
       PROTO_GRE = 47, PROTO_ICMPV6 = 58, PROTO_SCTP = 132, PROTO_UDPLITE = 136, PROTO_MPLS = 137,
       PROTO_ESP = 50, PROTO_AH = 51, NEXT_HOP = 0, NEXT_ROUTING = 43, NEXT_FRAGMENT = 44, NEXT_DEST = 60 };
enum { PPP_IP = 0x21, PPP_IPV6 = 0x57, PPP_MPLS_UC = 0x281, PPP_MPLS_MC = 0x283 };
enum { GRE_CSUM = 0x8000, GRE_ROUTING = 0x4000, GRE_KEY = 0x2000, GRE_SEQ = 0x1000, GRE_ACK = 0x80, GRE_VERSION = 7 };
enum { HEADERS_MAX = 15, TIPC_KEEPALIVE = 0x0e080000 };

/* What a header is followed by: no telling; nothing more to tell; a header that an EtherType names; one that an IP number does. */
enum walk { BAD, DONE, NETWORK, TRANSPORT };

/* What is hashed: all of it up to the addresses, and of those as many bytes as are used. */
struct flow {
    u16 protocol;
    u8 ip_proto, pad;
    u32 label;
    u16 vlan_id, vlan_proto, vlan_inner, pad2;                 /* of the first tag */
    u32 gre_key;
    u16 ports[2];
    u8 addresses[2][16];
    u32 address_len;                                           /* of one */
};

/* A walk along a packet's headers: what comes at `at` (proto in host order), and what was met. */
struct walk_at {
    const struct tcbpf_skb *skb;
    u32 at;
    u16 proto;
    u8 ip_proto;
    u8 tagged;                  /* the tag beside the packet, or one in it, is behind */
    u8 fragment, later;         /* one; not the first */
    struct flow *flow;          /* where keys go; NULL when only the way is wanted */
};

static ALWAYS const u8 *header(const struct walk_at *w, u32 size)
{
    return (u64)w->at + size <= w->skb->u.len ? w->skb->data + w->at : NULL;
}

static ALWAYS u16 be16(const u8 *p) { return swap16(load16(p)); }

static ALWAYS void note_addresses(struct walk_at *w, const u8 *pair, u32 len)
{
    if (!w->flow)
        return;
    memcpy(w->flow->addresses[0], pair, len);
    memcpy(w->flow->addresses[1], pair + len, len);
    w->flow->address_len = len;
}

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
    w->fragment |= fragment != 0;
    note_addresses(w, ip + 12, 4);
    return fragment ? DONE : TRANSPORT;
}

static enum walk walk_ipv6(struct walk_at *w)
{
    const u8 *ip = header(w, IPV6_HLEN);

    if (!ip)
        return BAD;
    w->at += IPV6_HLEN;
    w->ip_proto = ip[6];
    note_addresses(w, ip + 8, 16);
    if (!w->flow || !(load32(ip) & swap32(0x000fffff)))
        return TRANSPORT;
    w->flow->label = load32(ip) & swap32(0x000fffff);          /* which tells flows apart (FLOW_DISSECTOR_F_STOP_AT_FLOW_LABEL) */
    return DONE;
}

/* The first tag is the one beside the packet, when it has one. */
static enum walk walk_vlan(struct walk_at *w)
{
    u16 tpid = swap16(w->proto), tci = (u16)w->skb->u.vlan_tci;
    const u8 *tag;

    if (!w->tagged && w->skb->u.vlan_present) {
        w->proto = swap16((u16)w->skb->u.protocol);
    } else {
        tag = header(w, VLAN_HLEN);
        if (!tag)
            return BAD;
        tci = be16(tag);
        w->proto = be16(tag + 2);
        w->at += VLAN_HLEN;
    }
    if (w->flow && !w->tagged) {
        w->flow->vlan_id = tci & 0xefff;                       /* without the drop eligible bit */
        w->flow->vlan_proto = tpid;
        w->flow->vlan_inner = swap16(w->proto);
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

/* The node is the only key; the kernel's is a random number for messages that only keep a link alive. */
static enum walk walk_tipc(struct walk_at *w)
{
    const u8 *tipc = header(w, 16);

    if (tipc && w->flow && (load32(tipc) & swap32(TIPC_KEEPALIVE)) != swap32(TIPC_KEEPALIVE)) {
        memcpy(w->flow->addresses[0], tipc + 12, 4);
        w->flow->address_len = 4;
    }
    return tipc ? DONE : BAD;
}

static enum walk walk_network(struct walk_at *w)
{
    switch (w->proto) {
    case ETH_P_IP: return walk_ipv4(w);
    case ETH_P_IPV6: return walk_ipv6(w);
    case ETH_P_8021Q: case ETH_P_8021AD: return walk_vlan(w);
    case ETH_P_PPP_SES: return walk_pppoe(w);
    case ETH_P_BATMAN: return walk_batman(w);
    case ETH_P_TIPC: return walk_tipc(w);
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
    if (flags & GRE_ROUTING || (flags & GRE_VERSION) > 1)
        return DONE;
    w->proto = be16(gre + 2);
    if (flags & GRE_VERSION && (w->proto != ETH_P_PPP || !(flags & GRE_KEY)))
        return DONE;
    w->at += 4 + (flags & GRE_CSUM ? 4u : 0);
    if (flags & GRE_KEY) {
        inner = header(w, 4);
        if (!inner)
            return BAD;
        if (w->flow)
            w->flow->gre_key = flags & GRE_VERSION ? load32(inner) & swap32(0xffff) : load32(inner);
    }
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
        w->fragment = 1;
        w->later |= (be16(next + 2) & 0xfff8) != 0;
        w->ip_proto = next[0];
        w->at += 8;
        return DONE;
    }
    return DONE;
}

/* What stands where this protocol has its ports, or its index of a security association. */
static void note_ports(const struct walk_at *w)
{
    struct walk_at ports = *w;
    const u8 *at = NULL;

    switch (w->ip_proto) {
    case PROTO_AH:
        ports.at += 4;
    case PROTO_TCP: case PROTO_UDP: case PROTO_DCCP: case PROTO_ESP: case PROTO_SCTP: case PROTO_UDPLITE:
        at = header(&ports, 4);
    }
    memset(w->flow->ports, 0, sizeof(w->flow->ports));
    if (at)
        memcpy(w->flow->ports, at, 4);
}

/* skb_flow_dissect_flow_keys_basic(): 0 when the headers cannot be told. */
static int walk_headers(struct walk_at *w)
{
    enum walk met, next = NETWORK;
    u32 headers = 0;

    do {
        met = next;
        next = met == NETWORK ? walk_network(w) : walk_transport(w);
        if (w->flow && met == TRANSPORT && next != BAD && !w->fragment)
            note_ports(w);
        headers += next == NETWORK || met == TRANSPORT;
    } while (next != BAD && next != DONE && headers <= HEADERS_MAX);
    w->at = min_u32(w->at, w->skb->u.len);
    return next != BAD && w->at <= 0xffff;
}

static void flow_of(const struct tcbpf_skb *skb, struct flow *flow)
{
    struct walk_at w = {.skb = skb, .at = skb->network, .flow = flow};

    memset(flow, 0, sizeof(*flow));
    w.proto = swap16((u16)(skb->u.vlan_present ? skb->u.vlan_proto : skb->u.protocol));
    walk_headers(&w);
    flow->protocol = w.proto;
    flow->ip_proto = w.ip_proto;
}

static u32 flow_hash(struct flow *flow)
{
    u32 n = flow->address_len, hash;
    int other = 0;

    if (n == 4)
        other = load32(flow->addresses[1]) < load32(flow->addresses[0]);
    for (u32 i = 0; n == 16 && i < n; i++)
        if (flow->addresses[0][i] != flow->addresses[1][i]) {
            other = flow->addresses[1][i] < flow->addresses[0][i];
            break;
        }
    if (other) {
        u8 first[16];

        memcpy(first, flow->addresses[0], 16);
        memcpy(flow->addresses[0], flow->addresses[1], 16);
        memcpy(flow->addresses[1], first, 16);
    }
    if (n && flow->ports[1] < flow->ports[0]) {
        u16 first = flow->ports[0];

        flow->ports[0] = flow->ports[1];
        flow->ports[1] = first;
    }
    hash = hash_key((const u8 *)flow, offsetof(struct flow, addresses), n);
    for (u32 i = 0; n && i < 2; i++)
        hash = hash_key(flow->addresses[i], n, hash);
    return hash ? hash : 1;
}

HELPER(get_hash_recalc)
{
    struct tcbpf_skb *skb = skb_of(r1);

    if (!skb->u.hash && !skb->l4_hash) {
        struct flow flow;

        flow_of(skb, &flow);
        skb->l4_hash = flow.ports[0] || flow.ports[1] || flow.label;
        skb->u.hash = flow_hash(&flow);
    }
    return skb->u.hash;
}

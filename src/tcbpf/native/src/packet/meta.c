/* Helpers about what is kept beside the packet: hash, type, time stamp, class and cgroup ids. */
#include "../base.h"

enum { CLOCK_REALTIME_TYPE = 0, CLOCK_TAI_TYPE = 2 };

/* (skb, pkt_type) */
HELPER(skb_change_type)
{
    struct tcbpf_skb *skb = skb_of(r1);

    if (unlikely(skb->u.pkt_type > PACKET_OTHERHOST || (u32)r2 > PACKET_OTHERHOST))
        return ERR(EINVAL);
    skb->u.pkt_type = (u32)r2;
    return 0;
}

/* What the flow's hash is made of: addresses, ports and protocol of the outermost IP header. */
struct flow { u8 src[16], dst[16]; u32 ports; u8 protocol; };

static int flow_of(const struct tcbpf_skb *skb, struct flow *flow)
{
    const u8 *ip = skb->data + skb->network;
    u32 left = skb->u.len > skb->network ? skb->u.len - skb->network : 0, header;

    memset(flow, 0, sizeof(*flow));
    if (is_ipv4(skb) && left >= IPV4_HLEN) {
        memcpy(flow->src, ip + 12, 4);
        memcpy(flow->dst, ip + 16, 4);
        flow->protocol = ip[9];
        header = (u32)(ip[0] & 15) * 4;
        if (load16(ip + 6) & swap16(0x3fff))               /* a fragment: no ports */
            return 1;
    } else if (is_ipv6(skb) && left >= IPV6_HLEN) {
        memcpy(flow->src, ip + 8, 16);
        memcpy(flow->dst, ip + 24, 16);
        flow->protocol = ip[6];
        header = IPV6_HLEN;
    } else {
        return 0;
    }
    if ((flow->protocol == 6 || flow->protocol == 17) && left >= header + 4)
        flow->ports = load32(ip + header);
    return 1;
}

/* The same in both directions, never 0 for a flow. Differs: the kernel's is keyed with a random secret of each boot. */
HELPER(get_hash_recalc)
{
    struct tcbpf_skb *skb = skb_of(r1);
    struct flow flow;

    if (!skb->u.hash && !skb->l4_hash && flow_of(skb, &flow)) {
        u32 there = hash_key(flow.src, 16, flow.ports & 0xffff), back = hash_key(flow.dst, 16, flow.ports >> 16);
        u64 sum = (u64)there + back;

        skb->u.hash = (u32)mix(sum ^ flow.protocol, 0x9e3779b97f4a7c15u);
        skb->u.hash += !skb->u.hash;
        skb->l4_hash = flow.ports != 0;
    }
    return skb->u.hash;
}

HELPER(set_hash_invalid)
{
    hash_clear(skb_of(r1));
    return 0;
}

/* (skb, hash) */
HELPER(set_hash)
{
    skb_of(r1)->u.hash = (u32)r2;
    skb_of(r1)->l4_hash = 1;
    return 0;
}

/* No packet here has a socket or a route: the ids that a packet without one has. */
HELPER(get_cgroup_classid) { return 0; }
HELPER(skb_cgroup_classid) { return 0; }
HELPER(get_route_realm) { return 0; }

/* (skb, tstamp, type) */
HELPER(skb_set_tstamp)
{
    struct tcbpf_skb *skb = skb_of(r1);

    if (!is_ipv4(skb) && !is_ipv6(skb))
        return ERR(EOPNOTSUPP);
    if ((u32)r3 > CLOCK_TAI_TYPE || ((u32)r3 != CLOCK_REALTIME_TYPE && !r2))
        return ERR(EINVAL);
    skb->u.tstamp = r2;
    skb->u.tstamp_type = (u8)r3;
    return 0;
}

/* The protocol behind the tags in the packet's bytes. */
static u16 inner_protocol(const struct tcbpf_skb *skb)
{
    u16 proto = (u16)skb->u.protocol;

    for (u32 at = ETH_HLEN; is_vlan(proto) && at + VLAN_HLEN <= skb->u.len; at += VLAN_HLEN)
        proto = load16(skb->data + at + 2);
    return proto;
}

/* Mark congestion where the network header is: 1 when the packet carries the mark now, 0 when it cannot. */
HELPER(skb_ecn_set_ce)
{
    struct tcbpf_skb *skb = skb_of(r1);
    u16 proto = inner_protocol(skb);
    u32 header = proto == swap16(ETH_P_IP) ? IPV4_HLEN : proto == swap16(ETH_P_IPV6) ? IPV6_HLEN : 0;
    u8 *ip, ecn;

    if (!header || skb_writable(skb, (u64)skb->network + header))
        return 0;
    ip = skb->data + skb->network;
    if (header == IPV6_HLEN) {
        ecn = ip[1] >> 4 & 3;
        if (ecn)
            ip[1] |= 0x30;
        return ecn != 0;
    }
    ecn = ip[1] & 3;
    if (ecn == 1 || ecn == 2) {
        u32 by = ecn == 1 ? swap16(0xfffd) : swap16(0xfffe), sum = (u32)load16(ip + 10) + by;

        store16(ip + 10, (u16)(sum + (sum >= 0xffff)));
        ip[1] |= 3;
    }
    return ecn != 0;
}

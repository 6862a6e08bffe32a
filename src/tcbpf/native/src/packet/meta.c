/* Helpers about what is kept beside the packet: hash, type, time stamp, class and cgroup ids. */
#include "../base.h"

enum { CLOCK_REALTIME_TYPE = 0, CLOCK_TAI_TYPE = 2, VLAN_MAX_DEPTH = 8 };

/* (skb, pkt_type) */
HELPER(skb_change_type)
{
    struct tcbpf_skb *skb = skb_of(r1);

    if (unlikely(skb->u.pkt_type > PACKET_OTHERHOST || (u32)r2 > PACKET_OTHERHOST))
        return ERR(EINVAL);
    skb->u.pkt_type = (u32)r2;
    return 0;
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

/* The protocol behind the tags in the packet's bytes, which begin where vlan_get_protocol() looks for them: before the end of the
 * link header once its length is known, which is so at ingress and after bpf_skb_change_head().
 */
static u16 inner_protocol(const struct tcbpf_skb *skb)
{
    u16 proto = (u16)skb->u.protocol;
    u32 at = skb->mac_len >= VLAN_HLEN ? skb->mac_len - VLAN_HLEN : ETH_HLEN;

    for (u32 depth = 1; is_vlan(proto); depth++, at += VLAN_HLEN) {
        if (depth == VLAN_MAX_DEPTH || at + VLAN_HLEN > skb->u.len)
            return 0;
        proto = load16(skb->data + at + 2);
    }
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

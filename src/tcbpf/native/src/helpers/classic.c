/* What a converted classic filter calls: payload offset, netlink attributes, the device's hardware type.
 *
 * Source: bpf_skb_get_pay_offset(), bpf_skb_get_nlattr(), bpf_skb_get_nlattr_nest(), net/core/filter.c; __skb_get_poff(),
 * net/core/flow_dissector.c (v6.12).
 */
#include "../base.h"

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

/* Helpers that change a packet's headers and length: VLAN tags, IPv4 to IPv6 and back, head, tail, room in the middle. */
#include "../base.h"

enum { SKB_MAX_LEN = 16384 - 320, ADJ_ROOM_MAX = 0xfff };         /* SKB_MAX_ALLOC with 4 KiB pages */
enum { IPV4_HLEN = 20, IPV6_HLEN = 40 };
enum { ADJ_ROOM_NET, ADJ_ROOM_MAC };
enum { ADJ_FIXED_GSO = 1 << 0, ADJ_ENCAP_IPV4 = 1 << 1, ADJ_ENCAP_IPV6 = 1 << 2, ADJ_ENCAP_GRE = 1 << 3,
       ADJ_ENCAP_UDP = 1 << 4, ADJ_NO_CSUM_RESET = 1 << 5, ADJ_ENCAP_L2_ETH = 1 << 6, ADJ_DECAP_IPV4 = 1 << 7,
       ADJ_DECAP_IPV6 = 1 << 8, ADJ_ENCAP_L3 = ADJ_ENCAP_IPV4 | ADJ_ENCAP_IPV6,
       ADJ_DECAP_L3 = ADJ_DECAP_IPV4 | ADJ_DECAP_IPV6, ADJ_ALL = (1 << 9) - 1, ADJ_L2_SHIFT = 56 };
enum { GSO_TCPV4 = 1 << 0, GSO_DODGY = 1 << 1, GSO_TCPV6 = 1 << 4, GSO_GRE = 1 << 6, GSO_IPXIP4 = 1 << 8,
       GSO_IPXIP6 = 1 << 9, GSO_UDP_TUNNEL = 1 << 10, GSO_UDP_L4 = 1 << 17 };

static ALWAYS int is_ipv4(const struct tcbpf_skb *skb) { return (u16)skb->u.protocol == swap16(ETH_P_IP); }
static ALWAYS int is_ipv6(const struct tcbpf_skb *skb) { return (u16)skb->u.protocol == swap16(ETH_P_IPV6); }
static ALWAYS int is_vlan(u16 proto) { return proto == swap16(ETH_P_8021Q) || proto == swap16(ETH_P_8021AD); }

/* Around a change of the link header at ingress, skb->csum covers it too. */
static void rcsum_mac_push(struct tcbpf_skb *skb)
{
    if (skb->at_ingress)
        rcsum_push(skb, skb->data, skb->mac_len, 0);
}

static void rcsum_mac_pull(struct tcbpf_skb *skb)
{
    if (skb->at_ingress)
        rcsum_pull(skb, skb->data, skb->mac_len, 0);
}

/* --- VLAN ------------------------------------------------------------------------------------------------------------------ */

static ALWAYS void tag_put(struct tcbpf_skb *skb, u16 proto, u16 tci)
{
    skb->u.vlan_present = 1;
    skb->u.vlan_proto = proto;
    skb->u.vlan_tci = tci;
}

/* Move the tag kept beside the packet into its bytes. */
static s64 tag_insert(struct tcbpf_skb *skb)
{
    u16 network = skb->network;
    s64 err = skb->u.len < 2 * ETH_ALEN ? -EINVAL : skb_make_headroom(skb, VLAN_HLEN);

    if (err)
        return err;
    skb_push(skb, VLAN_HLEN);
    memmove(skb->data, skb->data + VLAN_HLEN, 2 * ETH_ALEN);
    store16(skb->data + 12, (u16)skb->u.vlan_proto);
    store16(skb->data + 14, swap16((u16)skb->u.vlan_tci));
    skb->u.protocol = (u16)skb->u.vlan_proto;
    skb->network = network;
    return 0;
}

/* Take the outermost tag out of the packet's bytes. */
static s64 tag_remove(struct tcbpf_skb *skb, u16 *tci)
{
    s64 err = skb_writable(skb, ETH_HLEN + VLAN_HLEN);

    if (err)
        return err;
    rcsum_pull(skb, skb->data + 2 * ETH_ALEN, VLAN_HLEN, 0);
    *tci = swap16(load16(skb->data + 14));
    memmove(skb->data + VLAN_HLEN, skb->data, 2 * ETH_ALEN);
    skb_pull(skb, VLAN_HLEN);
    skb->u.protocol = ether_protocol(skb->data + 12, skb->u.len - 12);
    if (skb->network < ETH_HLEN)
        skb->network = ETH_HLEN;
    skb->mac_len = skb->network;
    return 0;
}

static s64 vlan_push(struct tcbpf_skb *skb, u16 proto, u16 tci)
{
    if (skb->u.vlan_present) {
        s64 err = tag_insert(skb);

        if (err)
            return err;
        rcsum_push(skb, skb->data + 2 * ETH_ALEN, VLAN_HLEN, 0);
    }
    tag_put(skb, proto, tci);
    return 0;
}

static s64 vlan_pop(struct tcbpf_skb *skb)
{
    u16 tci = 0, proto;
    s64 err;

    if (skb->u.vlan_present) {
        skb->u.vlan_present = skb->u.vlan_proto = skb->u.vlan_tci = 0;
    } else {
        if (!is_vlan((u16)skb->u.protocol))
            return 0;
        err = tag_remove(skb, &tci);
        if (err)
            return err;
    }
    proto = (u16)skb->u.protocol;
    if (!is_vlan(proto))
        return 0;
    err = tag_remove(skb, &tci);
    if (!err)
        tag_put(skb, proto, tci);
    return err;
}

/* (skb, vlan_proto in network order, vlan_tci) */
HELPER(skb_vlan_push)
{
    struct tcbpf_skb *skb = skb_of(r1);
    u16 proto = is_vlan((u16)r2) ? (u16)r2 : swap16(ETH_P_8021Q);
    s64 err = skb_writable(skb, 0);

    if (err)
        return (u64)err;
    rcsum_mac_push(skb);
    err = vlan_push(skb, proto, (u16)r3);
    rcsum_mac_pull(skb);
    return (u64)err;
}

HELPER(skb_vlan_pop)
{
    struct tcbpf_skb *skb = skb_of(r1);
    s64 err;

    rcsum_mac_push(skb);
    err = vlan_pop(skb);
    rcsum_mac_pull(skb);
    return (u64)err;
}

/* --- room between headers --------------------------------------------------------------------------------------------------- */

/* Open `len` zero bytes at `at`; headers before it move down, with the link and the network header. */
static s64 room_open(struct tcbpf_skb *skb, u32 at, u32 len)
{
    u16 network = skb->network;
    int same_transport = skb->transport == network;
    s64 err = skb_make_headroom(skb, len);

    if (err)
        return err;
    skb_push(skb, len);
    memmove(skb->data, skb->data + len, at);
    memset(skb->data + at, 0, len);
    skb->network = network;
    if (same_transport)
        skb->transport = network;
    return 0;
}

static s64 room_close(struct tcbpf_skb *skb, u32 at, u32 len)
{
    u16 network = skb->network;
    int same_transport = skb->transport == network;
    s64 err = skb_writable(skb, (u64)at + len);

    if (err)
        return err;
    rcsum_pull(skb, skb->data + at, len, at);
    memmove(skb->data + len, skb->data, at);
    skb_pull(skb, len);
    skb->network = network;
    if (same_transport)
        skb->transport = network;
    return 0;
}

static ALWAYS void gso_swap(struct tcbpf_skb *skb, u32 from, u32 to)
{
    if (skb->u.gso_size && skb->gso_type & from)
        skb->gso_type = (skb->gso_type & ~from) | to;
}

/* (skb, proto in network order, flags): makes room for the other IP header, fills in nothing. */
HELPER(skb_change_proto)
{
    struct tcbpf_skb *skb = skb_of(r1);
    u16 to = (u16)r2;
    s64 err;

    if (unlikely(r3))
        return ERR(EINVAL);
    if (is_ipv4(skb) && to == swap16(ETH_P_IPV6)) {
        err = room_open(skb, skb->network, IPV6_HLEN - IPV4_HLEN);
        if (!err)
            gso_swap(skb, GSO_TCPV4, GSO_TCPV6);
    } else if (is_ipv6(skb) && to == swap16(ETH_P_IP)) {
        err = room_close(skb, skb->network, IPV6_HLEN - IPV4_HLEN);
        if (!err)
            gso_swap(skb, GSO_TCPV6, GSO_TCPV4);
    } else {
        return ERR(ENOTSUPP);
    }
    if (!err) {
        skb->u.protocol = to;
        hash_clear(skb);
    }
    return (u64)err;
}

static ALWAYS u32 ip_base_len(const struct tcbpf_skb *skb) { return is_ipv4(skb) ? IPV4_HLEN : IPV6_HLEN; }

/* GSO packets keep their segments' size only when they are TCP, or the caller vouches for UDP's. */
static int gso_refused(const struct tcbpf_skb *skb, u64 flags)
{
    return skb->u.gso_size && !(skb->gso_type & (GSO_TCPV4 | GSO_TCPV6))
        && (!(skb->gso_type & GSO_UDP_L4) || !(flags & ADJ_FIXED_GSO));
}

static s64 encap_check(const struct tcbpf_skb *skb, u32 len, u64 flags)
{
    u8 inner_mac_len = (u8)(flags >> ADJ_L2_SHIFT);

    if ((flags & ADJ_ENCAP_L3) == ADJ_ENCAP_L3
        || (flags & (ADJ_ENCAP_GRE | ADJ_ENCAP_UDP)) == (ADJ_ENCAP_GRE | ADJ_ENCAP_UDP)
        || (flags & ADJ_ENCAP_L2_ETH && inner_mac_len < ETH_HLEN))
        return -EINVAL;
    if (skb->encapsulation)
        return -EALREADY;
    return inner_mac_len > len ? -EINVAL : 0;
}

static void encap_mark(struct tcbpf_skb *skb, u64 flags)
{
    skb->encapsulation = 1;
    if (flags & (ADJ_ENCAP_GRE | ADJ_ENCAP_UDP))
        skb->transport = (u16)(skb->network + (flags & ADJ_ENCAP_IPV6 ? IPV6_HLEN : IPV4_HLEN));
    skb->u.protocol = swap16(flags & ADJ_ENCAP_IPV6 ? ETH_P_IPV6 : ETH_P_IP);
}

static u32 encap_gso(u64 flags)
{
    if (!(flags & ADJ_ENCAP_L3))
        return GSO_DODGY;
    if (flags & ADJ_ENCAP_UDP)
        return GSO_DODGY | GSO_UDP_TUNNEL;
    if (flags & ADJ_ENCAP_GRE)
        return GSO_DODGY | GSO_GRE;
    return GSO_DODGY | (flags & ADJ_ENCAP_IPV6 ? GSO_IPXIP6 : GSO_IPXIP4);
}

/* The kernel moves headers down by their length even when a shorter packet ends inside them: what lies behind it moves along. */
static s64 tail_reach(struct tcbpf_skb *skb, u32 at)
{
    u32 behind = at - skb->u.len, fresh = skb->readonly;
    s64 err = skb_make_tailroom(skb, behind);

    if (!err && fresh)
        memset(skb->data_end, 0, behind);
    return err;
}

static s64 room_grow(struct tcbpf_skb *skb, u32 at, u32 len, u64 flags)
{
    s64 err;

    if (gso_refused(skb, flags))
        return -ENOTSUPP;
    if (flags & ADJ_ENCAP_L3) {
        err = encap_check(skb, len, flags);
        if (err)
            return err;
    }
    err = at > skb->u.len ? tail_reach(skb, at) : 0;
    err = err ? err : room_open(skb, at, len);
    if (err)
        return err;
    if (flags & ADJ_ENCAP_L3)
        encap_mark(skb, flags);
    if (skb->u.gso_size) {
        if (!(flags & ADJ_FIXED_GSO))
            skb->u.gso_size -= min_u32(len, skb->u.gso_size);
        skb->gso_type |= encap_gso(flags);
        skb->u.gso_segs = 0;
    }
    return 0;
}

static s64 room_shrink(struct tcbpf_skb *skb, u32 at, u32 len, u64 flags)
{
    s64 err;

    if (flags & ~(u64)(ADJ_FIXED_GSO | ADJ_DECAP_L3 | ADJ_NO_CSUM_RESET))
        return -EINVAL;
    if (gso_refused(skb, flags))
        return -ENOTSUPP;
    err = room_close(skb, at, len);
    if (err)
        return err;
    if (is_ipv4(skb) && flags & ADJ_DECAP_IPV6)
        skb->u.protocol = swap16(ETH_P_IPV6);
    else if (is_ipv6(skb) && flags & ADJ_DECAP_IPV4)
        skb->u.protocol = swap16(ETH_P_IP);
    if (skb->u.gso_size) {
        if (!(flags & ADJ_FIXED_GSO))
            skb->u.gso_size += len;
        skb->gso_type |= GSO_DODGY;
        skb->u.gso_segs = 0;
    }
    return 0;
}

/* (skb, len_diff, mode, flags) */
HELPER(skb_adjust_room)
{
    struct tcbpf_skb *skb = skb_of(r1);
    s32 diff = (s32)r2;
    u32 len = (u32)(diff < 0 ? -(s64)diff : diff), min, at = skb->network, behind;
    s64 err;

    if (unlikely(r4 & ~((u64)ADJ_ALL | (u64)0xff << ADJ_L2_SHIFT)))
        return ERR(EINVAL);
    if (unlikely(len > ADJ_ROOM_MAX))
        return ERR(EFAULT);
    if (unlikely(!is_ipv4(skb) && !is_ipv6(skb)))
        return ERR(ENOTSUPP);
    min = ip_base_len(skb);
    if ((u32)r3 == ADJ_ROOM_NET)
        at += min;
    else if ((u32)r3 != ADJ_ROOM_MAC)
        return ERR(ENOTSUPP);
    if (r4 & ADJ_DECAP_L3) {
        if (diff >= 0 || (r4 & ADJ_DECAP_L3) == ADJ_DECAP_L3)
            return ERR(EINVAL);
        min = r4 & ADJ_DECAP_IPV4 ? IPV4_HLEN : IPV6_HLEN;
    }
    behind = skb->u.len > skb->network ? skb->u.len - skb->network : 0;
    if (diff < 0 ? len >= behind || behind - len < min : skb->u.len + len > SKB_MAX_LEN && !skb->u.gso_size)
        return ERR(ENOTSUPP);
    err = diff < 0 ? room_shrink(skb, at, len, r4) : room_grow(skb, at, len, r4);
    if (!err && !(r4 & ADJ_NO_CSUM_RESET))
        csum_reset(skb);
    return (u64)err;
}

/* --- head and tail ------------------------------------------------------------------------------------------------------------ */

static u32 tail_min(const struct tcbpf_skb *skb)
{
    if (skb->ip_summed == TCBPF_CSUM_PARTIAL)
        return (u32)skb->csum_start + skb->csum_offset + 2;
    return skb->transport != TCBPF_UNKNOWN ? skb->transport : skb->network;
}

/* (skb, len, flags) */
HELPER(skb_change_tail)
{
    struct tcbpf_skb *skb = skb_of(r1);
    u32 len = (u32)r2, old = skb->u.len;
    s64 err;

    if (unlikely(r3 || len > SKB_MAX_LEN || len < tail_min(skb)))
        return ERR(EINVAL);
    if (skb->encapsulation)
        return ERR(ENOTSUPP);
    err = len > old ? skb_make_tailroom(skb, len - old) : skb_writable(skb, 0);
    if (err)
        return (u64)err;
    if (len < old && skb->ip_summed == TCBPF_CSUM_COMPLETE)
        rcsum_pull(skb, skb->data + len, old - len, len);
    skb->data_end = skb->data + len;
    skb_moved(skb);
    if (len > old)
        memset(skb->data + old, 0, len - old);
    if (skb->u.gso_size)
        skb->u.gso_size = skb->u.gso_segs = skb->gso_type = 0;
    return 0;
}

/* (skb, bytes, flags): the link header moves down with data. */
HELPER(skb_change_head)
{
    struct tcbpf_skb *skb = skb_of(r1);
    u32 room = (u32)r2;
    s64 err;

    if (unlikely(r3 || (u64)skb->u.len + room > 0xffffffff || (!skb->u.gso_size && skb->u.len + room > SKB_MAX_LEN)))
        return ERR(EINVAL);
    err = skb_make_headroom(skb, room);
    if (err)
        return (u64)err;
    skb_push(skb, room);
    memset(skb->data, 0, room);
    skb->mac_len = skb->network;
    return 0;
}

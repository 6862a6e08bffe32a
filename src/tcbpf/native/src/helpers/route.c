/* Where a packet could go: a device's MTU, and routes, of which a host that forwards nothing has no need.
 *
 * Differs: no device forwards, so bpf_fib_lookup() finds no route, as in a new network namespace.
 */
#include "../base.h"

enum { MTU_CHK_SUCCESS, MTU_CHK_FRAG_NEEDED, MTU_CHK_SEGS_TOOBIG, MTU_CHK_SEGS = 1 };
enum { LOOPBACK_MTU = 65536 };
enum { FIB_LOOKUP_FLAGS = 0x3f, FIB_LOOKUP_SIZE = 64, FIB_NOT_FWDED = 4, FIB_FWD_DISABLED = 5, AF_INET = 2, AF_INET6 = 10 };

struct fib_lookup { u8 family, protocol; u16 sport, dport, tot_len; u32 ifindex, tos; u8 src[16], dst[16], rest[16]; };

/* The device of an index in the packet's namespace; one without devices has the loopback, as a new namespace does. */
static int device_of(struct tcbpf_env *env, const struct tcbpf_skb *skb, u32 ifindex, u32 *mtu, u32 *header)
{
    const struct tcbpf_dev *dev = dev_find(env, netns_of(skb), ifindex);

    *mtu = dev ? dev->mtu : LOOPBACK_MTU;
    *header = dev ? dev->hard_header_len : ETH_HLEN;
    return dev || ifindex == LOOPBACK_IFINDEX;
}

/* A segment's length from the network header on. */
static u32 segment_len(const struct tcbpf_skb *skb)
{
    const u8 *transport = skb->data + skb->transport;
    u32 header = skb->gso_type & (GSO_TCPV4 | GSO_TCPV6) ? (u32)(transport[12] >> 4) * 4 : 8;

    return (u32)(skb->transport - skb->network) + header + skb->u.gso_size;
}

/* Multicast, link-local or loopback: bound to a link, never forwarded. */
static int strict6(const u8 *ip)
{
    static const u8 loopback[16] = {[15] = 1};

    return ip[0] == 0xff || (ip[0] == 0xfe && (ip[1] & 0xc0) == 0x80) || !memcmp(ip, loopback, 16);
}

/* (skb, ifindex, u32 *mtu_len, s32 len_diff, flags) */
HELPER(check_mtu)
{
    const struct tcbpf_skb *skb = skb_of(r1);
    u32 *mtu_len = (void *)r3, asked = *mtu_len, mtu, header;
    s32 diff = (s32)r4, len, ret = MTU_CHK_FRAG_NEEDED;

    if (r5 & ~(u64)MTU_CHK_SEGS || (r5 & MTU_CHK_SEGS && (diff || asked)))
        return ERR(EINVAL);
    if (!device_of(env, skb, (u32)r2 ? (u32)r2 : skb->u.ifindex, &mtu, &header))
        return ERR(ENODEV);
    len = (s32)(asked ? asked + header : skb->u.len) + diff;
    if (len <= (s32)(mtu + header))
        ret = MTU_CHK_SUCCESS;
    else if (skb->u.gso_size)
        ret = r5 & MTU_CHK_SEGS && skb->transport != TCBPF_UNKNOWN && segment_len(skb) > mtu ? MTU_CHK_SEGS_TOOBIG : MTU_CHK_SUCCESS;
    *mtu_len = mtu;
    return (u64)(s64)ret;
}

/* (skb, params, its size, flags) */
HELPER(fib_lookup)
{
    const struct fib_lookup *fib = (void *)r2;
    u32 mtu, header;

    if ((s32)r3 < FIB_LOOKUP_SIZE || (u32)r4 & ~(u32)FIB_LOOKUP_FLAGS)
        return ERR(EINVAL);
    if (fib->family != AF_INET && fib->family != AF_INET6)
        return ERR(EAFNOSUPPORT);
    if (fib->family == AF_INET6 && (strict6(fib->dst) || strict6(fib->src)))
        return FIB_NOT_FWDED;
    return device_of(env, skb_of(r1), fib->ifindex, &mtu, &header) ? FIB_FWD_DISABLED : ERR(ENODEV);
}

/* Ones' complement sums: the helpers that keep L3 and L4 checksums right, and skb->csum's own. */
#include "../base.h"

enum { BPF_F_HDR_FIELD_MASK = 0xf, BPF_F_PSEUDO_HDR = 0x10, BPF_F_MARK_MANGLED_0 = 0x20, BPF_F_MARK_ENFORCE = 0x40,
       BPF_F_IPV6 = 0x80 };
enum { CSUM_LEVEL_QUERY, CSUM_LEVEL_INC, CSUM_LEVEL_DEC, CSUM_LEVEL_RESET, MAX_CSUM_LEVEL = 3 };

static ALWAYS u32 csum_add(u32 a, u32 b)
{
    u32 sum = a + b;

    return sum + (sum < b);
}

static ALWAYS u32 csum_sub(u32 a, u32 b) { return csum_add(a, ~b); }

static ALWAYS u16 csum_from32(u32 sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    return (u16)((sum & 0xffff) + (sum >> 16));
}

static ALWAYS u16 csum_fold(u32 sum) { return (u16)~csum_from32(sum); }

static u32 csum_partial(const u8 *at, u32 len, u32 seed)
{
    u64 sum = seed;

    for (; len >= 4; len -= 4, at += 4)
        sum += load32(at);
    if (len & 2) {
        sum += load16(at);
        at += 2;
    }
    if (len & 1)
        sum += *at;
    sum = (sum & 0xffffffff) + (sum >> 32);
    return (u32)((sum & 0xffffffff) + (sum >> 32));
}

/* A block's sum, as it counts when the block starts at an odd offset. */
static ALWAYS u32 csum_shift(u32 sum, u32 offset) { return offset & 1 ? sum << 24 | sum >> 8 : sum; }

static void rcsum_pull(struct tcbpf_skb *skb, const u8 *start, u32 len, u32 offset)
{
    if (skb->ip_summed == TCBPF_CSUM_COMPLETE)
        skb->csum = csum_sub(skb->csum, csum_shift(csum_partial(start, len, 0), offset));
    else if (skb->ip_summed == TCBPF_CSUM_PARTIAL && (s16)skb->csum_start < 0)
        skb->ip_summed = TCBPF_CSUM_NONE;
}

static void rcsum_push(struct tcbpf_skb *skb, const u8 *start, u32 len, u32 offset)
{
    if (skb->ip_summed == TCBPF_CSUM_COMPLETE)
        skb->csum = csum_add(skb->csum, csum_shift(csum_partial(start, len, 0), offset));
}


static ALWAYS u16 sum_add_diff(u16 sum, u32 diff) { return csum_fold(csum_add(diff, ~(u32)sum)); }

static ALWAYS u16 sum16_add(u16 a, u16 b)
{
    u16 sum = (u16)(a + b);

    return (u16)(sum + (sum < b));
}

/* (skb, offset, from, to, flags) */
HELPER(l3_csum_replace)
{
    struct tcbpf_skb *skb = skb_of(r1);
    u32 offset = (u32)r2;
    u8 *at;

    if (unlikely(r5 & ~(u64)BPF_F_HDR_FIELD_MASK))
        return ERR(EINVAL);
    if (unlikely(offset > 0xffff || offset & 1 || skb_writable(skb, (u64)offset + 2)))
        return ERR(EFAULT);
    at = skb->data + offset;
    switch (r5) {
    case 0:
        if (r3)
            return ERR(EINVAL);
        store16(at, sum_add_diff(load16(at), (u32)r4));
        return 0;
    case 2:
        store16(at, (u16)~sum16_add(sum16_add((u16)~load16(at), (u16)~(u16)r3), (u16)r4));
        return 0;
    case 4:
        store16(at, csum_fold(csum_add(csum_sub(~(u32)load16(at), (u32)r3), (u32)r4)));
        return 0;
    default:
        return ERR(EINVAL);
    }
}

/* A field of the pseudo header or of the payload changed: both `sum` and the device's own sum follow. */
static ALWAYS u16 l4_replace(struct tcbpf_skb *skb, u16 sum, u32 from, u32 to, int pseudo)
{
    if (skb->ip_summed == TCBPF_CSUM_PARTIAL)
        return pseudo ? (u16)~csum_fold(csum_add(csum_sub(sum, from), to)) : sum;
    if (skb->ip_summed == TCBPF_CSUM_COMPLETE && pseudo)
        skb->csum = ~csum_add(csum_sub(~skb->csum, from), to);
    return csum_fold(csum_add(csum_sub(~(u32)sum, from), to));
}

static ALWAYS u16 l4_add_diff(struct tcbpf_skb *skb, u16 sum, u32 diff, int pseudo, int ipv6)
{
    if (skb->ip_summed == TCBPF_CSUM_PARTIAL)
        return pseudo ? (u16)~csum_fold(csum_add(diff, sum)) : sum;
    if (skb->ip_summed == TCBPF_CSUM_COMPLETE && pseudo && !ipv6)
        skb->csum = ~csum_sub(diff, skb->csum);
    return sum_add_diff(sum, diff);
}

/* (skb, offset, from, to, flags) */
HELPER(l4_csum_replace)
{
    struct tcbpf_skb *skb = skb_of(r1);
    u32 offset = (u32)r2;
    int pseudo = !!(r5 & BPF_F_PSEUDO_HDR);
    u16 sum;
    u8 *at;

    if (unlikely(r5 & ~(u64)(BPF_F_HDR_FIELD_MASK | BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0 | BPF_F_MARK_ENFORCE
                             | BPF_F_IPV6)))
        return ERR(EINVAL);
    if (unlikely(offset > 0xffff || offset & 1 || skb_writable(skb, (u64)offset + 2)))
        return ERR(EFAULT);
    at = skb->data + offset;
    sum = load16(at);
    if (r5 & BPF_F_MARK_MANGLED_0 && !(r5 & BPF_F_MARK_ENFORCE) && !sum)
        return 0;
    switch (r5 & BPF_F_HDR_FIELD_MASK) {
    case 0:
        if (r3)
            return ERR(EINVAL);
        sum = l4_add_diff(skb, sum, (u32)r4, pseudo, !!(r5 & BPF_F_IPV6));
        break;
    case 2:
        sum = l4_replace(skb, sum, (u16)r3, (u16)r4, pseudo);
        break;
    case 4:
        sum = l4_replace(skb, sum, (u32)r3, (u32)r4, pseudo);
        break;
    default:
        return ERR(EINVAL);
    }
    store16(at, r5 & BPF_F_MARK_MANGLED_0 && !sum ? 0xffff : sum);
    return 0;
}

/* (from, from_size, to, to_size, seed): 16 bits, of any sizes, as of Linux 6.13 */
HELPER(csum_diff)
{
    u32 from_size = (u32)r2, to_size = (u32)r4, sum = (u32)r5;

    if (from_size && to_size)
        sum = csum_sub(csum_partial((u8 *)r3, to_size, sum), csum_partial((u8 *)r1, from_size, 0));
    else if (to_size)
        sum = csum_partial((u8 *)r3, to_size, sum);
    else if (from_size)
        sum = ~csum_partial((u8 *)r1, from_size, ~sum);
    return csum_from32(sum);
}

/* (skb, csum) */
HELPER(csum_update)
{
    struct tcbpf_skb *skb = skb_of(r1);

    if (skb->ip_summed != TCBPF_CSUM_COMPLETE)
        return ERR(ENOTSUPP);
    return skb->csum = csum_add(skb->csum, (u32)r2);
}

static void csum_reset(struct tcbpf_skb *skb)
{
    if (skb->ip_summed == TCBPF_CSUM_UNNECESSARY) {
        skb->ip_summed = TCBPF_CSUM_NONE;
        skb->csum_level = 0;
    }
}

/* (skb, level) */
HELPER(csum_level)
{
    struct tcbpf_skb *skb = skb_of(r1);
    int unnecessary = skb->ip_summed == TCBPF_CSUM_UNNECESSARY;

    switch (r2) {
    case CSUM_LEVEL_INC:
        if (unnecessary && skb->csum_level < MAX_CSUM_LEVEL) {
            skb->csum_level++;
        } else if (skb->ip_summed == TCBPF_CSUM_NONE) {
            skb->ip_summed = TCBPF_CSUM_UNNECESSARY;
            skb->csum_level = 0;
        }
        return 0;
    case CSUM_LEVEL_DEC:
        if (unnecessary && skb->csum_level)
            skb->csum_level--;
        else if (unnecessary)
            skb->ip_summed = TCBPF_CSUM_NONE;
        return 0;
    case CSUM_LEVEL_RESET:
        csum_reset(skb);
        return 0;
    case CSUM_LEVEL_QUERY:
        return unnecessary ? skb->csum_level : ERR(EACCES);
    default:
        return ERR(EINVAL);
    }
}

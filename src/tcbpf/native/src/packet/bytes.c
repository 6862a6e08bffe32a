/* Helpers that copy packet bytes, and the classic loads. */
#include "../base.h"

enum { BPF_F_RECOMPUTE_CSUM = 1, BPF_F_INVALIDATE_HASH = 2 };
enum { SKF_LL_OFF = -0x200000, SKF_NET_OFF = -0x100000 };

static void rcsum_pull(struct tcbpf_skb *skb, const u8 *start, u32 len, u32 offset);
static void rcsum_push(struct tcbpf_skb *skb, const u8 *start, u32 len, u32 offset);

static ALWAYS void hash_clear(struct tcbpf_skb *skb)
{
    skb->u.hash = 0;
    skb->l4_hash = 0;
}

/* (skb, offset, from, len, flags) */
HELPER(skb_store_bytes)
{
    struct tcbpf_skb *skb = skb_of(r1);
    u32 offset = (u32)r2, len = (u32)r4;
    u8 *at;

    if (unlikely(r5 & ~(u64)(BPF_F_RECOMPUTE_CSUM | BPF_F_INVALIDATE_HASH)))
        return ERR(EINVAL);
    if (unlikely((s32)offset < 0 || skb_writable(skb, (u64)offset + len)))
        return ERR(EFAULT);
    at = skb->data + offset;
    if (r5 & BPF_F_RECOMPUTE_CSUM)
        rcsum_pull(skb, at, len, offset);
    memmove(at, (void *)r3, len);
    if (r5 & BPF_F_RECOMPUTE_CSUM)
        rcsum_push(skb, at, len, offset);
    if (r5 & BPF_F_INVALIDATE_HASH)
        hash_clear(skb);
    return 0;
}

/* (skb, offset, to, len) */
HELPER(skb_load_bytes)
{
    struct tcbpf_skb *skb = skb_of(r1);
    u32 offset = (u32)r2, len = (u32)r4;

    if (unlikely((s32)offset < 0 || (u64)offset + len > skb->u.len)) {
        memset((void *)r3, 0, len);
        return ERR(EFAULT);
    }
    memcpy((void *)r3, skb->data + offset, len);
    return 0;
}

/* (skb, offset, to, len, start_header): 0 counts from the link header, 1 from the network header. */
HELPER(skb_load_bytes_relative)
{
    struct tcbpf_skb *skb = skb_of(r1);
    u32 offset = (u32)r2, len = (u32)r4, header = (u32)r5;
    s64 start = header ? skb->network : -(s64)skb->mac_back;

    if (unlikely(offset > 0xffff || header > 1 || start + offset + len > (s64)skb->u.len)) {
        memset((void *)r3, 0, len);
        return ERR(EFAULT);
    }
    memcpy((void *)r3, skb->data + start + offset, len);
    return 0;
}

/* (skb, len): every packet here is linear, so this only makes it writable. */
HELPER(skb_pull_data)
{
    struct tcbpf_skb *skb = skb_of(r1);

    return (u64)skb_writable(skb, (u32)r2 ? (u32)r2 : skb->u.len);
}

/* Where `size` bytes at a classic offset lie, or NULL. Negative ones count from the network or the link header. */
static ALWAYS const u8 *classic_at(const struct tcbpf_skb *skb, s32 offset, u32 size)
{
    s64 at = offset;

    if (unlikely(offset < 0)) {
        if (offset >= SKF_NET_OFF)
            at = (s64)skb->network + offset - SKF_NET_OFF;
        else if (offset >= SKF_LL_OFF)
            at = (s64)offset - SKF_LL_OFF - skb->mac_back;
        else
            return NULL;
    }
    return at + size <= (s64)skb->u.len ? skb->data + at : NULL;
}

INLINED u64 tcbpf_ld_abs(struct tcbpf_env *env, struct tcbpf_skb *skb, s32 offset, u32 size, u64 *value)
{
    const u8 *at = classic_at(skb, offset, size);

    if (unlikely(!at))
        return 0;
    *value = size == 1 ? *at : size == 2 ? swap16(load16(at)) : swap32(load32(at));
    return 1;
}

/* Collect-metadata tunnels: the key and the options that a device took off, or is to put on. */
#include "../base.h"

enum { TUNINFO_IPV6 = 1, ZERO_CSUM_TX = 2, DONT_FRAGMENT = 4, SEQ_NUMBER = 8, NO_TUNNEL_KEY = 16, TUNINFO_FLAGS = 16 };
/* ip_tunnel_info's flags, in host order */
enum { TUNNEL_CSUM = 0x01, TUNNEL_KEY = 0x04, TUNNEL_SEQ = 0x08, TUNNEL_DONT_FRAGMENT = 0x100, TUNNEL_NOCACHE = 0x2000,
       TUNNEL_OPTIONS = 0x800 | 0x1000 | 0x4000 | 0x8000 };

struct tunnel_key {             /* struct bpf_tunnel_key: numbers in host order */
    u32 id, remote[4];
    u8 tos, ttl;
    u16 flags;
    u32 label, local[4];
};

/* The shorter structs of older kernels: before local, label, flags, and the IPv6 address. */
static int is_old_size(u32 size)
{
    return size == offsetof(struct tunnel_key, local) || size == offsetof(struct tunnel_key, label)
        || size == offsetof(struct tunnel_key, flags) || size == offsetof(struct tunnel_key, remote[1]);
}

static s64 tunnel_check(const struct tcbpf_tunnel *t, u32 size, u64 flags)
{
    if (!t->family || flags & ~(u64)(TUNINFO_IPV6 | TUNINFO_FLAGS))
        return -EINVAL;
    if (t->family != (flags & TUNINFO_IPV6 ? 6 : 4))
        return -EPROTO;
    if (size == sizeof(struct tunnel_key))
        return 0;
    return !is_old_size(size) || (size == offsetof(struct tunnel_key, remote[1]) && t->family != 4) ? -EINVAL : 0;
}

/* (skb, key, size, flags) */
HELPER(skb_get_tunnel_key)
{
    const struct tcbpf_tunnel *t = &skb_of(r1)->tunnel;
    struct tunnel_key key;
    s64 err = tunnel_check(t, (u32)r3, r4);

    if (err) {
        memset((void *)r2, 0, (u32)r3);
        return (u64)err;
    }
    memset(&key, 0, sizeof(key));
    key.id = t->id;
    key.tos = t->tos;
    key.ttl = t->ttl;
    key.flags = r4 & TUNINFO_FLAGS ? t->flags : 0;
    if (t->family == 6) {
        memcpy(key.remote, t->src, 16);
        memcpy(key.local, t->dst, 16);
        key.label = t->label;
    } else {
        key.remote[0] = swap32(load32(t->src));
        key.local[0] = swap32(load32(t->dst));
    }
    memcpy((void *)r2, &key, (u32)r3);
    return 0;
}

/* (skb, key, size, flags) */
HELPER(skb_set_tunnel_key)
{
    struct tcbpf_tunnel *t = &skb_of(r1)->tunnel;
    struct tunnel_key key;
    u16 flags = TUNNEL_KEY | TUNNEL_CSUM | TUNNEL_NOCACHE;
    u32 size = (u32)r3;

    if (r4 & ~(u64)(TUNINFO_IPV6 | ZERO_CSUM_TX | DONT_FRAGMENT | SEQ_NUMBER | NO_TUNNEL_KEY))
        return ERR(EINVAL);
    if (size != sizeof(key) && !is_old_size(size))
        return ERR(EINVAL);
    memset(&key, 0, sizeof(key));
    memcpy(&key, (void *)r2, size);
    if ((!(r4 & TUNINFO_IPV6) && key.label) || key.flags)
        return ERR(EINVAL);
    memset(t, 0, offsetof(struct tcbpf_tunnel, opt));
    t->tx = 1;
    t->id = key.id;
    t->tos = key.tos;
    t->ttl = key.ttl;
    flags |= r4 & DONT_FRAGMENT ? TUNNEL_DONT_FRAGMENT : 0;
    flags |= r4 & SEQ_NUMBER ? TUNNEL_SEQ : 0;
    flags &= (u16)~(r4 & ZERO_CSUM_TX ? TUNNEL_CSUM : 0);
    flags &= (u16)~(r4 & NO_TUNNEL_KEY ? TUNNEL_KEY : 0);
    t->flags = swap16(flags);
    if (r4 & TUNINFO_IPV6) {
        t->family = 6;
        memcpy(t->dst, key.remote, 16);
        memcpy(t->src, key.local, 16);
        t->label = key.label & 0xfffff;
    } else {
        t->family = 4;
        store32(t->dst, swap32(key.remote[0]));
        store32(t->src, swap32(key.local[0]));
    }
    return 0;
}

/* (skb, to, size): the options' length */
HELPER(skb_get_tunnel_opt)
{
    const struct tcbpf_tunnel *t = &skb_of(r1)->tunnel;
    u32 size = (u32)r3;

    memset((void *)r2, 0, size);
    if (!t->family || !(swap16(t->flags) & TUNNEL_OPTIONS))
        return ERR(ENOENT);
    if (size < t->opt_len)
        return ERR(ENOMEM);
    memcpy((void *)r2, t->opt, t->opt_len);
    return t->opt_len;
}

/* (skb, from, size): after bpf_skb_set_tunnel_key() only */
HELPER(skb_set_tunnel_opt)
{
    struct tcbpf_tunnel *t = &skb_of(r1)->tunnel;
    u32 size = (u32)r3;

    if (!t->family || !t->tx || size & 3)
        return ERR(EINVAL);
    if (size > sizeof(t->opt))
        return ERR(ENOMEM);
    memcpy(t->opt, (void *)r2, size);
    t->opt_len = (u8)size;
    if (size)
        t->flags |= swap16(TUNNEL_OPTIONS);
    return 0;
}

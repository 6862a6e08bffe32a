/* Dynamic pointers: memory with its bounds, in 16 bytes of a program's stack. */
#include "../base.h"

#define DYNPTR_MAX ((1u << 24) - 1)

enum { DYNPTR_PACKET = 1 << 28, DYNPTR_RDONLY = 1 << 29 };

/* data is NULL in one that names nothing, and the packet's skb in one of packet data, which moves; the flags above lie in size. */
struct dynptr { u8 *data; u32 size, offset; };

static ALWAYS u32 dynptr_size(const struct dynptr *p) { return p->size & DYNPTR_MAX; }

static ALWAYS u8 *dynptr_at(const struct dynptr *p, u32 offset)
{
    return (p->size & DYNPTR_PACKET ? ((struct tcbpf_skb *)p->data)->data : p->data) + p->offset + offset;
}

static ALWAYS s64 dynptr_outside(const struct dynptr *p, u32 offset, u32 len)
{
    u32 size = dynptr_size(p);

    return len > size || offset > size - len ? -E2BIG : 0;
}

/* The same, and whether the packet still has what was its when the dynptr was made. */
static ALWAYS s64 dynptr_reach(const struct dynptr *p, u32 offset, u32 len)
{
    s64 err = dynptr_outside(p, offset, len);

    if (!err && p->size & DYNPTR_PACKET && (u64)p->offset + offset + len > ((struct tcbpf_skb *)p->data)->u.len)
        err = -EFAULT;
    return err;
}

static ALWAYS u64 dynptr_set(struct dynptr *p, void *data, u32 size, s64 err)
{
    *p = (struct dynptr){err ? NULL : data, err ? 0 : size, 0};
    return (u64)err;
}

/* (data, size, flags, dynptr) */
HELPER(dynptr_from_mem)
{
    return dynptr_set((void *)r4, (void *)r1, (u32)r2, (u32)r2 > DYNPTR_MAX ? -E2BIG : r3 ? -EINVAL : 0);
}

/* (dst, len, dynptr, offset, flags) */
HELPER(dynptr_read)
{
    const struct dynptr *p = (void *)r3;
    s64 err = !p->data || r5 ? -EINVAL : dynptr_outside(p, (u32)r4, (u32)r2);

    if (err)
        return (u64)err;
    if (p->size & DYNPTR_PACKET)
        return tcbpf_helper_skb_load_bytes(env, (u64)p->data, p->offset + (u32)r4, r1, r2, 0);
    memmove((void *)r1, dynptr_at(p, (u32)r4), (u32)r2);
    return 0;
}

/* (dynptr, offset, src, len, flags) */
HELPER(dynptr_write)
{
    const struct dynptr *p = (void *)r1;
    s64 err = !p->data || p->size & DYNPTR_RDONLY ? -EINVAL : dynptr_outside(p, (u32)r2, (u32)r4);

    if (err)
        return (u64)err;
    if (p->size & DYNPTR_PACKET)
        return tcbpf_helper_skb_store_bytes(env, (u64)p->data, p->offset + (u32)r2, r3, r4, r5);
    if (r5)
        return ERR(EINVAL);
    memmove(dynptr_at(p, (u32)r2), (void *)r3, (u32)r4);
    return 0;
}

/* (dynptr, offset, len): where they lie, or NULL. */
HELPER(dynptr_data)
{
    const struct dynptr *p = (void *)r1;

    return !p->data || p->size & (DYNPTR_PACKET | DYNPTR_RDONLY) || dynptr_outside(p, (u32)r2, (u32)r3)
               ? 0 : (u64)dynptr_at(p, (u32)r2);
}

/* (map, size, flags, dynptr) */
HELPER(ringbuf_reserve_dynptr)
{
    s64 err = r3 ? -EINVAL : (u32)r2 > DYNPTR_MAX ? -E2BIG : 0;
    void *record = err ? NULL : ring_reserve(env, (struct tcbpf_map *)r1, (u32)r2);

    return dynptr_set((void *)r4, record, (u32)r2, err ? err : record ? 0 : -EINVAL);
}

static u64 dynptr_commit(struct dynptr *p, int discard)
{
    if (p->data) {
        ring_commit(p->data, discard);
        dynptr_set(p, NULL, 0, 0);
    }
    return 0;
}

/* (dynptr, flags) */
HELPER(ringbuf_submit_dynptr) { return dynptr_commit((void *)r1, 0); }
HELPER(ringbuf_discard_dynptr) { return dynptr_commit((void *)r1, 1); }

/* Kernel functions that programs call by name: iterators over numbers, dynamic pointers, and the sections in which nothing may
 * interrupt, which mean nothing in one thread. */
#include "../base.h"

#define KFUNC(name) \
    u64 tcbpf_kfunc_##name(struct tcbpf_env *env, u64 r1, u64 r2, u64 r3, u64 r4, u64 r5); \
    u64 tcbpf_kfunc_##name(struct tcbpf_env *env, u64 r1, u64 r2, u64 r3, u64 r4, u64 r5)

struct iter_num { s32 cur, end; };                      /* in the program's struct bpf_iter_num */

KFUNC(bpf_iter_num_new)
{
    struct iter_num *it = (struct iter_num *)r1;
    s32 start = (s32)r2, end = (s32)r3;
    s64 result = start > end ? -EINVAL : (s64)end - start > TCBPF_MAX_LOOPS ? -E2BIG : 0;

    *it = result ? (struct iter_num){0, 0} : (struct iter_num){(s32)((u32)start - 1), end};
    return (u64)result;
}

KFUNC(bpf_iter_num_next)
{
    struct iter_num *it = (struct iter_num *)r1;

    if ((s32)((u32)it->cur + 1) >= it->end) {
        it->cur = it->end = 0;
        return 0;
    }
    it->cur++;
    return (u64)&it->cur;
}

KFUNC(bpf_iter_num_destroy)
{
    *(struct iter_num *)r1 = (struct iter_num){0, 0};
    return 0;
}

KFUNC(bpf_preempt_disable) { return 0; }
KFUNC(bpf_preempt_enable) { return 0; }
KFUNC(bpf_rcu_read_lock) { return 0; }
KFUNC(bpf_rcu_read_unlock) { return 0; }
KFUNC(bpf_local_irq_save) { return 0; }
KFUNC(bpf_local_irq_restore) { return 0; }

/* (skb, flags, dynptr) */
static u64 dynptr_from_packet(u64 ctx, u64 flags, struct dynptr *p)
{
    struct tcbpf_skb *skb = skb_of(ctx);
    u32 kind = DYNPTR_PACKET | (skb->readonly ? DYNPTR_RDONLY : 0);
    s64 err = flags ? -EINVAL : skb->u.len > DYNPTR_MAX ? -E2BIG : 0;

    dynptr_set(p, skb, skb->u.len | kind, err);
    return (u64)err;
}

KFUNC(bpf_dynptr_from_skb) { return dynptr_from_packet(r1, r2, (void *)r3); }
KFUNC(bpf_dynptr_from_xdp) { return dynptr_from_packet(r1, r2, (void *)r3); }

/* (dynptr, offset, buffer, len): packets are in one piece, so the buffer is not needed. */
KFUNC(bpf_dynptr_slice)
{
    const struct dynptr *p = (void *)r1;

    return !p->data || dynptr_reach(p, (u32)r2, (u32)r4) ? 0 : (u64)dynptr_at(p, (u32)r2);
}

KFUNC(bpf_dynptr_slice_rdwr)
{
    const struct dynptr *p = (void *)r1;

    return p->size & DYNPTR_RDONLY ? 0 : tcbpf_kfunc_bpf_dynptr_slice(env, r1, r2, r3, r4, r5);
}

/* (dynptr, start, end) */
KFUNC(bpf_dynptr_adjust)
{
    struct dynptr *p = (void *)r1;
    u32 start = (u32)r2, end = (u32)r3, size = dynptr_size(p);

    if (!p->data || start > end)
        return ERR(EINVAL);
    if (start > size || end > size)
        return ERR(ERANGE);
    p->offset += start;
    p->size = (p->size & ~DYNPTR_MAX) | (end - start);
    return 0;
}

KFUNC(bpf_dynptr_is_null) { return !((struct dynptr *)r1)->data; }

KFUNC(bpf_dynptr_is_rdonly)
{
    const struct dynptr *p = (void *)r1;

    return p->data && p->size & DYNPTR_RDONLY;
}

KFUNC(bpf_dynptr_size)
{
    const struct dynptr *p = (void *)r1;

    return p->data ? dynptr_size(p) : (u32)-EINVAL;
}

KFUNC(bpf_dynptr_clone)
{
    *(struct dynptr *)r2 = *(struct dynptr *)r1;
    return ((struct dynptr *)r1)->data ? 0 : ERR(EINVAL);
}

/* (to, offset, from, offset, len) */
KFUNC(bpf_dynptr_copy)
{
    const struct dynptr *to = (void *)r1, *from = (void *)r3;
    s64 err;

    if (!to->data || !from->data || to->size & DYNPTR_RDONLY)
        return ERR(EINVAL);
    err = dynptr_reach(to, (u32)r2, (u32)r5);
    err = err ? err : dynptr_reach(from, (u32)r4, (u32)r5);
    if (err)
        return (u64)err;
    memmove(dynptr_at(to, (u32)r2), dynptr_at(from, (u32)r4), (u32)r5);
    return 0;
}

/* (dynptr, offset, len, byte) */
KFUNC(bpf_dynptr_memset)
{
    const struct dynptr *p = (void *)r1;
    s64 err = !p->data || p->size & DYNPTR_RDONLY ? -EINVAL : dynptr_reach(p, (u32)r2, (u32)r3);

    if (!err)
        memset(dynptr_at(p, (u32)r2), (u8)r4, (u32)r3);
    return (u64)err;
}

/* Kernel functions that programs call by name: iterators over numbers, and the sections in which nothing may interrupt,
 * which mean nothing in one thread. */
#include "base.h"

#define KFUNC(name) \
    u64 tcbpf_kfunc_##name(struct tcbpf_env *env, u64 r1, u64 r2, u64 r3, u64 r4, u64 r5)

enum { MAX_LOOPS = 8 * 1024 * 1024 };

struct iter_num { s32 cur, end; };                      /* in the program's struct bpf_iter_num */

KFUNC(bpf_iter_num_new)
{
    struct iter_num *it = (struct iter_num *)r1;
    s32 start = (s32)r2, end = (s32)r3;
    s64 result = start > end ? -EINVAL : (s64)end - start > MAX_LOOPS ? -E2BIG : 0;

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

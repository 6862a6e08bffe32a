/* What the kinds of maps share of checking and laying out a shape. */
#include "types.h"

enum { MAX_PERCPU_VALUE = 32 << 10, KMALLOC_MAX = 4 << 20, PAGE = 4096 };

/* The rules that all types with elements share. */
static s64 elements_check(const struct tcbpf_shape *s)
{
    if (!s->max_entries || !s->cpus || !s->value_size)
        return -EINVAL;
    return is_per_cpu(s) && round_up(s->value_size, 8) > MAX_PERCPU_VALUE ? -E2BIG : 0;
}

/* Short slots keep to one cache line. */
static u32 slot_size(u64 bytes)
{
    u64 size = 16;

    while (size < bytes && size < 64)
        size *= 2;
    return (u32)(size < bytes ? round_up(bytes, 8) : size);
}

/* Lay out n_slots slots with a value at value_off; the file's size. */
static s64 slots_plan(struct tcbpf_shape *s)
{
    u64 values = (u64)s->value_stride * s->cpus;

    if (s->value_off + values > 0x7fffffff)
        return -E2BIG;
    s->slot_stride = slot_size(s->value_off + values);
    return (s64)(s->slots + (u64)s->n_slots * s->slot_stride);
}

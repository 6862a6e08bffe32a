/* The plan of a map's file: the header, then buckets, then slots. What bpf(2) refuses is refused with its errno. */
#include "types.h"

static s64 check_of(const struct tcbpf_shape *s)
{
    switch (kind_of(s)) {
#define CHECK_OF(kind) case KIND_##kind: return kind##_check(s);
    MAP_KINDS(CHECK_OF)
#undef CHECK_OF
    case KIND_none: break;
    }
    return -EINVAL;
}

static s64 plan_of(struct tcbpf_shape *s)
{
    switch (kind_of(s)) {
#define PLAN_OF(kind) case KIND_##kind: return kind##_plan(s);
    MAP_KINDS(PLAN_OF)
#undef PLAN_OF
    case KIND_none: break;
    }
    return -EINVAL;
}

s64 tcbpf_map_plan(struct tcbpf_shape *s)
{
    s64 size = check_of(s);

    if (size)
        return size;
    if (!(traits_of(s) & (PER_CPU | CPU_RINGS)))
        s->cpus = 1;
    s->value_stride = (u32)round_up(s->value_size, 8);
    s->value_off = s->n_buckets = s->slot_stride = s->n_slots = 0;
    s->buckets = (u32)round_up(sizeof(struct tcbpf_map), PAGE);
    s->slots = s->buckets;
    size = plan_of(s);
    return size < 0 ? size : (s64)round_up((u64)size, PAGE);
}

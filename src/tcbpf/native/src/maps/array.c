/* Arrays: values by index, there from the start. Per-CPU values lie one CPU after another. */
#include "types.h"

static ALWAYS u8 *array_at(struct tcbpf_map *map, const struct tcbpf_shape *s, u32 cpu, u32 index)
{
    return (u8 *)map + s->slots + ((u64)cpu * s->max_entries + index) * s->value_stride;
}

static ALWAYS void *array_lookup(struct tcbpf_env *env, struct tcbpf_map *map, const struct tcbpf_shape *s, const void *key)
{
    u32 index = load32(key);

    if (unlikely(index >= s->max_entries))
        return NULL;
    return array_at(map, s, is_per_cpu(s) ? this_cpu(env, s) : 0, index);
}

static u64 array_update(struct tcbpf_env *env, struct tcbpf_map *map, const struct tcbpf_shape *s, const void *key,
                        const void *value, u64 flags, enum by by)
{
    u32 index = load32(key);

    if ((flags & ~(u64)BPF_F_LOCK) > BPF_EXIST || (by == BY_USER && flags & BPF_F_LOCK && !s->spin_lock))
        return ERR(EINVAL);
    if (index >= s->max_entries)
        return ERR(E2BIG);
    if (flags & BPF_NOEXIST)
        return ERR(EEXIST);
    if (flags & BPF_F_LOCK && !s->spin_lock)
        return ERR(EINVAL);
    if (!is_per_cpu(s))
        value_copy(env, s, array_at(map, s, 0, index), value, (flags & BPF_F_LOCK) != 0);
    else if (by == BY_PROGRAM)
        memcpy(array_at(map, s, this_cpu(env, s), index), value, s->value_size);
    else
        for (u32 cpu = 0; cpu < s->cpus; cpu++)
            memcpy(array_at(map, s, cpu, index), (const u8 *)value + (u64)cpu * s->value_stride, s->value_stride);
    return 0;
}

static s64 array_copy(struct tcbpf_env *env, struct tcbpf_map *map, const struct tcbpf_shape *s, const void *key, void *value)
{
    u32 index = load32(key);

    if (index >= s->max_entries)
        return -ENOENT;
    if (!is_per_cpu(s)) {
        memcpy(value, array_at(map, s, 0, index), s->value_size);
        if (s->spin_lock)
            *spin_of(s, value) = 0;
    } else
        for (u32 cpu = 0; cpu < s->cpus; cpu++)
            memcpy((u8 *)value + (u64)cpu * s->value_stride, array_at(map, s, cpu, index), s->value_stride);
    return 0;
}

static s64 array_next_key(struct tcbpf_env *env, struct tcbpf_map *map, const struct tcbpf_shape *s, const void *key, void *next)
{
    u32 index = key ? load32(key) : ~0u;

    if (index >= s->max_entries)
        store32(next, 0);
    else if (index == s->max_entries - 1)
        return -ENOENT;
    else
        store32(next, index + 1);
    return 0;
}

/* The key is written to *index. */
static u32 array_each(struct tcbpf_env *env, struct tcbpf_map *map, u32 *at, u32 *index, void **key, void **value)
{
    const struct tcbpf_shape *s = &map->s;

    if (*at >= s->max_entries)
        return 0;
    *index = (*at)++;
    *key = index;
    *value = array_at(map, s, is_per_cpu(s) ? this_cpu(env, s) : 0, *index);
    return 1;
}

static void *array_at_cpu(struct tcbpf_map *map, const struct tcbpf_shape *s, const void *key, u32 cpu)
{
    return is_per_cpu(s) && load32(key) < s->max_entries ? array_at(map, s, cpu, load32(key)) : NULL;
}

static s64 array_check(const struct tcbpf_shape *s)
{
    s64 err = elements_check(s);

    if (err)
        return err;
    if (s->key_size != 4)
        return -EINVAL;
    return s->value_size > 0x7fffffff ? -E2BIG : 0;
}

static s64 array_plan(struct tcbpf_shape *s)
{
    s->n_slots = s->max_entries;
    s->slot_stride = s->value_stride;
    return (s64)(s->slots + (u64)s->n_slots * s->value_stride * s->cpus);
}

#define array_delete refuse_EINVAL
#define array_take refuse_ENOTSUPP

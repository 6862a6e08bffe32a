/* Arrays: values by index, there from the start. Per-CPU values lie one CPU after another. */
#include "../base.h"

enum { MAP_HASH = 1, MAP_ARRAY, MAP_PROG_ARRAY, MAP_PERCPU_HASH = 5, MAP_PERCPU_ARRAY, MAP_LRU_HASH = 9, MAP_LRU_PERCPU_HASH,
       MAP_LPM_TRIE, MAP_ARRAY_OF_MAPS, MAP_HASH_OF_MAPS, MAP_QUEUE = 22, MAP_STACK, MAP_SK_STORAGE };
enum { BPF_ANY, BPF_NOEXIST, BPF_EXIST, BPF_F_LOCK = 4, BPF_F_NO_PREALLOC = 1 };

static ALWAYS u8 *array_at(struct tcbpf_map *map, const struct tcbpf_shape *s, u32 cpu, u32 index)
{
    return (u8 *)map + s->slots + ((u64)cpu * s->max_entries + index) * s->value_stride;
}

static ALWAYS void *array_lookup(struct tcbpf_env *env, struct tcbpf_map *map, const struct tcbpf_shape *s, const void *key)
{
    u32 index = load32(key);

    if (unlikely(index >= s->max_entries))
        return NULL;
    return array_at(map, s, s->type == MAP_PERCPU_ARRAY ? this_cpu(env, s) : 0, index);
}

static u64 array_update(struct tcbpf_env *env, struct tcbpf_map *map, const struct tcbpf_shape *s, const void *key,
                        const void *value, u64 flags, enum by by)
{
    u32 index = load32(key);

    if ((flags & ~(u64)BPF_F_LOCK) > BPF_EXIST || (by == BY_USER && flags & BPF_F_LOCK && !s->extra))
        return ERR(EINVAL);
    if (index >= s->max_entries)
        return ERR(E2BIG);
    if (flags & BPF_NOEXIST)
        return ERR(EEXIST);
    if (flags & BPF_F_LOCK && !s->extra)
        return ERR(EINVAL);
    if (s->type != MAP_PERCPU_ARRAY)
        value_copy(env, s, array_at(map, s, 0, index), value, (flags & BPF_F_LOCK) != 0);
    else if (by == BY_PROGRAM)
        memcpy(array_at(map, s, this_cpu(env, s), index), value, s->value_size);
    else
        for (u32 cpu = 0; cpu < s->cpus; cpu++)
            memcpy(array_at(map, s, cpu, index), (const u8 *)value + (u64)cpu * s->value_stride, s->value_stride);
    return 0;
}

static s64 array_copy(struct tcbpf_map *map, const struct tcbpf_shape *s, const void *key, u8 *value)
{
    u32 index = load32(key);

    if (index >= s->max_entries)
        return -ENOENT;
    if (s->type != MAP_PERCPU_ARRAY) {
        memcpy(value, array_at(map, s, 0, index), s->value_size);
        if (s->extra)
            *spin_of(s, value) = 0;
    } else
        for (u32 cpu = 0; cpu < s->cpus; cpu++)
            memcpy(value + (u64)cpu * s->value_stride, array_at(map, s, cpu, index), s->value_stride);
    return 0;
}

static s64 array_next_key(const struct tcbpf_shape *s, const void *key, void *next)
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

/* --- arrays of programs and of maps: the value is an id, 0 for none ---------------------------------------------------- */

static s64 ids_update(struct tcbpf_map *map, const struct tcbpf_shape *s, const void *key, const void *value, u64 flags)
{
    u32 index = load32(key);

    if (flags != BPF_ANY)
        return -EINVAL;
    if (index >= s->max_entries)
        return -E2BIG;
    publish32((u32 *)array_at(map, s, 0, index), load32(value));
    return 0;
}

static s64 ids_delete(struct tcbpf_map *map, const struct tcbpf_shape *s, const void *key)
{
    u32 index = load32(key);

    if (index >= s->max_entries)
        return -E2BIG;
    return __atomic_exchange_n((u32 *)array_at(map, s, 0, index), 0, __ATOMIC_ACQ_REL) ? 0 : -ENOENT;
}

static s64 ids_copy(struct tcbpf_map *map, const struct tcbpf_shape *s, const void *key, u8 *value)
{
    u32 index = load32(key), id;

    if (index >= s->max_entries)
        return -ENOENT;
    id = acquire32((u32 *)array_at(map, s, 0, index));
    store32(value, id);
    return id ? 0 : -ENOENT;
}

INLINED struct tcbpf_prog *tcbpf_tail_call(struct tcbpf_env *env, struct tcbpf_map *map, const struct tcbpf_shape *s, u64 index)
{
    struct tcbpf_prog *prog = NULL;
    u32 id;

    if (unlikely((u32)index >= s->max_entries || env->tail_calls >= TCBPF_MAX_TAIL_CALLS))
        return NULL;
    id = acquire32((u32 *)array_at(map, s, 0, (u32)index));
    if (!id)
        return NULL;
    if (likely(id < env->n_progs))
        prog = env->progs[id];
    if (unlikely(!prog) && env->host)
        prog = (struct tcbpf_prog *)env->host(env, TCBPF_HOST_PROG, NULL, id);
    if (prog)
        env->tail_calls++;
    return prog;
}

static ALWAYS void *inner_map(struct tcbpf_env *env, const u32 *id_at)
{
    u32 id = id_at ? acquire32(id_at) : 0;
    struct tcbpf_map *inner = NULL;

    if (!id)
        return NULL;
    if (likely(id < env->n_maps))
        inner = env->maps[id];
    if (unlikely(!inner) && env->host)
        inner = (struct tcbpf_map *)env->host(env, TCBPF_HOST_MAP, NULL, id);
    return inner;
}

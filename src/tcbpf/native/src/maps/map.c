/* Maps as programs use them, whatever the type; with a constant shape the choice costs nothing. And the plan of a map's file. */
#include "../base.h"

INLINED void *tcbpf_map_lookup(struct tcbpf_env *env, struct tcbpf_map *map, const struct tcbpf_shape *s, const void *key)
{
    switch (s->type) {
    case MAP_ARRAY:
    case MAP_PERCPU_ARRAY:
        return array_lookup(env, map, s, key);
    case MAP_HASH:
    case MAP_PERCPU_HASH:
    case MAP_LRU_HASH:
    case MAP_LRU_PERCPU_HASH:
        return hash_lookup(env, map, s, key);
    case MAP_LPM_TRIE:
        return lpm_lookup(map, s, key);
    case MAP_ARRAY_OF_MAPS:
        return inner_map(env, array_lookup(env, map, s, key));
    case MAP_HASH_OF_MAPS:
        return inner_map(env, hash_lookup(env, map, s, key));
    default:
        return NULL;
    }
}

INLINED u64 tcbpf_map_update(struct tcbpf_env *env, struct tcbpf_map *map, const struct tcbpf_shape *s, const void *key,
                             const void *value, u64 flags)
{
    switch (s->type) {
    case MAP_ARRAY:
    case MAP_PERCPU_ARRAY:
        return array_update(env, map, s, key, value, flags, BY_PROGRAM);
    case MAP_HASH:
    case MAP_PERCPU_HASH:
    case MAP_LRU_HASH:
    case MAP_LRU_PERCPU_HASH:
        return hash_update(env, map, s, key, value, flags, BY_PROGRAM);
    case MAP_LPM_TRIE:
        return lpm_update(env, map, s, key, value, flags);
    default:
        return ERR(EINVAL);
    }
}

INLINED u64 tcbpf_map_delete(struct tcbpf_env *env, struct tcbpf_map *map, const struct tcbpf_shape *s, const void *key)
{
    switch (s->type) {
    case MAP_HASH:
    case MAP_PERCPU_HASH:
    case MAP_LRU_HASH:
    case MAP_LRU_PERCPU_HASH:
        return hash_delete(env, map, s, key);
    case MAP_LPM_TRIE:
        return lpm_delete(env, map, s, key);
    default:
        return ERR(EINVAL);
    }
}

#define MAP ((struct tcbpf_map *)r1)

HELPER(map_lookup_elem) { return (u64)tcbpf_map_lookup(env, MAP, &MAP->s, (void *)r2); }
HELPER(map_update_elem) { return tcbpf_map_update(env, MAP, &MAP->s, (void *)r2, (void *)r3, r4); }
HELPER(map_delete_elem) { return tcbpf_map_delete(env, MAP, &MAP->s, (void *)r2); }

/* (map, key, cpu): another CPU's value. */
HELPER(map_lookup_percpu_elem)
{
    const struct tcbpf_shape *s = &MAP->s;
    u8 *slot;

    if ((u32)r3 >= s->cpus)
        return 0;
    if (s->type == MAP_PERCPU_ARRAY)
        return load32((void *)r2) < s->max_entries ? (u64)array_at(MAP, s, (u32)r3, load32((void *)r2)) : 0;
    if (!is_percpu_hash(s->type))
        return 0;
    slot = hash_find(MAP, s, (void *)r2);
    return slot ? (u64)(slot + s->value_off + (u64)(u32)r3 * s->value_stride) : 0;
}

/* (map, value, flags) */
HELPER(map_push_elem)
{
    if (MAP->s.type == MAP_BLOOM_FILTER)
        return bloom_push(MAP, &MAP->s, (void *)r2, r3);
    return is_queue(MAP->s.type) ? queue_push(env, MAP, &MAP->s, (void *)r2, r3) : ERR(EOPNOTSUPP);
}

/* (map, value) */
HELPER(map_pop_elem) { return is_queue(MAP->s.type) ? queue_take(env, MAP, &MAP->s, (void *)r2, 1) : ERR(EOPNOTSUPP); }

HELPER(map_peek_elem)
{
    if (MAP->s.type == MAP_BLOOM_FILTER)
        return bloom_peek(MAP, &MAP->s, (void *)r2);
    return is_queue(MAP->s.type) ? queue_take(env, MAP, &MAP->s, (void *)r2, 0) : ERR(EOPNOTSUPP);
}

/* --- the plan of a file --------------------------------------------------------------------------------------------------- */

enum { MAX_VALUE = 1 << 30, MAX_PERCPU_VALUE = 32 << 10, MAX_HASH_ELEMENT = 4 << 20, MAX_LPM_DATA = 256, PAGE = 4096 };

/* What map_alloc_check() and the allocation of each type refuse. */
static s64 plan_check(const struct tcbpf_shape *s)
{
    int per_cpu = s->type == MAP_PERCPU_ARRAY || is_percpu_hash(s->type);

    switch (s->type) {                                     /* those that have no elements */
    case MAP_RINGBUF:
        return s->key_size || s->value_size || !s->max_entries || s->max_entries & (s->max_entries - 1) || s->max_entries % PAGE
            ? -EINVAL : 0;
    case MAP_SK_STORAGE:
        return s->max_entries || s->key_size != 4 || !s->value_size ? -EINVAL : 0;
    }
    if (!s->max_entries || !s->cpus || !s->value_size)
        return -EINVAL;
    if (per_cpu && round_up(s->value_size, 8) > MAX_PERCPU_VALUE)
        return -E2BIG;
    switch (s->type) {
    case MAP_PROG_ARRAY:
    case MAP_PERF_EVENT_ARRAY:
    case MAP_ARRAY_OF_MAPS:
        return s->key_size == 4 && s->value_size == 4 ? 0 : -EINVAL;
    case MAP_ARRAY:
    case MAP_PERCPU_ARRAY:
        if (s->key_size != 4)
            return -EINVAL;
        return s->value_size > 0x7fffffff ? -E2BIG : 0;
    case MAP_HASH_OF_MAPS:
        if (s->value_size != 4)
            return -EINVAL;
        /* fall through */
    case MAP_HASH:
    case MAP_PERCPU_HASH:
    case MAP_LRU_HASH:
    case MAP_LRU_PERCPU_HASH:
        if (is_lru(s->type) && s->flags & BPF_F_NO_PREALLOC)
            return -ENOTSUPP;
        if (!s->key_size)
            return -EINVAL;
        if ((u64)s->key_size + s->value_size >= MAX_HASH_ELEMENT - 48)
            return -E2BIG;
        return s->max_entries > MAX_SLOTS / 2 ? -E2BIG : 0;
    case MAP_LPM_TRIE:
        if (s->key_size < 5 || s->key_size > 4 + MAX_LPM_DATA || s->value_size > MAX_HASH_ELEMENT)
            return -EINVAL;
        return s->max_entries > MAX_SLOTS / 4 ? -ENOMEM : 0;
    case MAP_BLOOM_FILTER:
        if (s->extra > BLOOM_MAX_HASHES)
            return -EINVAL;
        /* fall through */
    case MAP_QUEUE:
    case MAP_STACK:
        if (s->key_size)
            return -EINVAL;
        return s->value_size > MAX_HASH_ELEMENT ? -E2BIG : 0;
    default:
        return -EINVAL;
    }
}

/* Short slots keep to one cache line. */
static u32 slot_size(u64 bytes)
{
    u64 size = 16;

    while (size < bytes && size < 64)
        size *= 2;
    return (u32)(size < bytes ? round_up(bytes, 8) : size);
}

s64 tcbpf_map_plan(struct tcbpf_shape *s, u64 *buckets_end)
{
    s64 err = plan_check(s);
    u64 at = round_up(sizeof(struct tcbpf_map), PAGE), values;
    int per_cpu = s->type == MAP_PERCPU_ARRAY || is_percpu_hash(s->type);

    if (err)
        return err;
    if (!per_cpu && s->type != MAP_PERF_EVENT_ARRAY)
        s->cpus = 1;
    s->value_stride = (u32)round_up(s->value_size, 8);
    s->value_off = s->n_buckets = s->slot_stride = s->n_slots = 0;
    s->buckets = s->slots = *buckets_end = at;
    switch (s->type) {
    case MAP_RINGBUF:
        return (s64)(at + 2 * (u64)s->max_entries);
    case MAP_SK_STORAGE:
        return (s64)at;
    case MAP_BLOOM_FILTER:
        s->n_slots = bloom_mask(s->max_entries, s->extra);
        return (s64)round_up(at + (u64)s->n_slots / 8 + 1, PAGE);
    case MAP_PERF_EVENT_ARRAY:
        s->n_slots = min_u32(s->max_entries, s->cpus);
        return (s64)round_up(at + s->n_slots * sizeof(struct tcbpf_perf_ring), PAGE);
    }
    values = (u64)s->value_stride * s->cpus;
    if (is_hash(s->type)) {
        s->value_off = (u32)round_up(HASH_KEY + (u64)s->key_size, 8);
        s->n_slots = s->max_entries + (per_cpu ? 0 : 16);       /* 16: replacements under way */
        for (s->n_buckets = 1; s->n_buckets < s->max_entries;)
            s->n_buckets *= 2;
        at = round_up(at + 4 * (u64)s->n_buckets, PAGE);
    } else if (s->type == MAP_LPM_TRIE) {
        s->value_off = (u32)round_up(LPM_DATA + (u64)data_size(s), 8);
        s->n_slots = 2 * s->max_entries + 2;
    } else {
        s->n_slots = s->max_entries;
    }
    *buckets_end = s->slots = at;
    if (s->value_off + values > 0x7fffffff && (is_hash(s->type) || s->type == MAP_LPM_TRIE))
        return -E2BIG;
    if (s->type == MAP_ARRAY || s->type == MAP_PERCPU_ARRAY || s->type == MAP_PROG_ARRAY || s->type == MAP_ARRAY_OF_MAPS) {
        s->slot_stride = s->value_stride;
        return (s64)round_up(at + (u64)s->n_slots * values, PAGE);
    }
    s->slot_stride = slot_size(s->value_off + values);
    return (s64)round_up(at + (u64)s->n_slots * s->slot_stride, PAGE);
}

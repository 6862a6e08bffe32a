/* Hash tables: chains of slots; plain, per-CPU and LRU.
 *
 * A slot is {next, state, key, value}. A chain ends with END | bucket, so that a reader which was led into another chain by a
 * slot's reuse notices, and starts again (the kernel's nulls lists). An empty bucket may also hold 0, as the file starts.
 */
#include "types.h"

#define END 0x80000000u
enum { HASH_KEY = 8 };

static ALWAYS u64 mix(u64 a, u64 b)
{
    unsigned __int128 m = (unsigned __int128)a * b;

    return (u64)m ^ (u64)(m >> 64);
}

/* Multiply-fold in the manner of wyhash: eight bytes a step. With a constant size this is straight-line code. */
static ALWAYS u32 hash_key(const u8 *key, u32 size, u32 seed)
{
    const u64 k0 = 0x9e3779b97f4a7c15u, k1 = 0xe7037ed1a0b428dbu;
    u64 h = (u64)seed ^ k1, tail = 0;

    for (; size >= 8; size -= 8, key += 8)
        h = mix(h ^ load64(key), k0);
    if (size & 4) {
        tail = load32(key);
        key += 4;
    }
    if (size & 2) {
        tail = tail << 16 | load16(key);
        key += 2;
    }
    if (size & 1)
        tail = tail << 8 | *key;
    if (size & 7)
        h = mix(h ^ tail, k0 ^ size);
    return (u32)h ^ (u32)(h >> 32);
}

static ALWAYS int same(const u8 *a, const u8 *b, u32 size)
{
    switch (size) {
    case 4: return load32(a) == load32(b);
    case 8: return load64(a) == load64(b);
    case 16: return ((load64(a) ^ load64(b)) | (load64(a + 8) ^ load64(b + 8))) == 0;
    default: return memcmp(a, b, size) == 0;
    }
}

static ALWAYS u32 *bucket_at(struct tcbpf_map *map, const struct tcbpf_shape *s, u32 bucket)
{
    return (u32 *)((u8 *)map + s->buckets) + bucket;
}

static ALWAYS u32 bucket_of(struct tcbpf_map *map, const struct tcbpf_shape *s, const u8 *key)
{
    return hash_key(key, s->key_size, map->seed) & (s->n_buckets - 1);
}

static ALWAYS int is_link(u32 at) { return (s32)at > 0; }

/* The slot that holds `key`, or NULL. Waits for nobody. */
static ALWAYS u8 *hash_find(struct tcbpf_map *map, const struct tcbpf_shape *s, const u8 *key)
{
    u32 bucket = bucket_of(map, s, key), at;

    do {
        for (at = acquire32(bucket_at(map, s, bucket)); is_link(at);) {
            u8 *slot = slot_at(map, s, at - 1);

            if (same(slot + HASH_KEY, key, s->key_size))
                return slot;
            at = acquire32((u32 *)slot);
        }
    } while (unlikely(at && at != (END | bucket)));
    return NULL;
}

static ALWAYS void *hash_lookup(struct tcbpf_env *env, struct tcbpf_map *map, const struct tcbpf_shape *s, const void *key)
{
    u8 *slot = hash_find(map, s, key);

    if (!slot)
        return NULL;
    if (is_lru(s)) {
        u32 state = relaxed32(state_of(slot));

        if (!(state & REF) && state & USED)        /* a lost race leaves the mark off, nothing worse */
            __atomic_compare_exchange_n(state_of(slot), &state, state | REF, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    }
    return value_of(env, s, slot);
}

/* --- writers: the map's lock is held ------------------------------------------------------------------------------------ */

/* The link that points at `key`'s slot, or NULL. */
static ALWAYS u32 *hash_link(struct tcbpf_map *map, const struct tcbpf_shape *s, const u8 *key, u32 bucket)
{
    u32 *link = bucket_at(map, s, bucket);

    while (is_link(*link)) {
        u8 *slot = slot_at(map, s, *link - 1);

        if (same(slot + HASH_KEY, key, s->key_size))
            return link;
        link = (u32 *)slot;
    }
    return NULL;
}

static ALWAYS void hash_unlink(struct tcbpf_map *map, const struct tcbpf_shape *s, u32 *link)
{
    u32 index = *link - 1;

    publish32(link, *(u32 *)slot_at(map, s, index));
    slot_give(map, s, index);
    map->count--;
}

/* Make room: drop the first element from the hand on that was not looked up since the hand last passed. */
static void lru_evict(struct tcbpf_map *map, const struct tcbpf_shape *s)
{
    for (u64 steps = 2 * (u64)s->n_slots + 1; steps; steps--) {
        u32 index = map->hand < map->fresh ? map->hand : 0;
        u8 *slot = slot_at(map, s, index);
        u32 state = relaxed32(state_of(slot));

        map->hand = index + 1;
        if (!(state & USED))
            continue;
        if (state & REF) {
            __atomic_fetch_and(state_of(slot), ~REF, __ATOMIC_RELAXED);
            continue;
        }
        u32 *link = hash_link(map, s, slot + HASH_KEY, bucket_of(map, s, slot + HASH_KEY));
        if (link && *link == index + 1) {
            hash_unlink(map, s, link);
            return;
        }
    }
}

static ALWAYS u64 hash_insert(struct tcbpf_env *env, struct tcbpf_map *map, const struct tcbpf_shape *s, const u8 *key,
                              const void *value, u32 bucket, enum by by)
{
    u32 *head = bucket_at(map, s, bucket);
    s64 index;
    u8 *slot;

    if (map->count >= s->max_entries) {
        if (!is_lru(s))
            return ERR(E2BIG);
        lru_evict(map, s);
    }
    index = slot_take(map, s);
    if (index < 0)
        return ERR(ENOMEM);
    slot = slot_at(map, s, (u32)index);
    memcpy(slot + HASH_KEY, key, s->key_size);
    value_put(env, s, slot, value, by, 1);
    publish32((u32 *)slot, *head ? *head : END | bucket);
    publish32(head, (u32)index + 1);
    map->count++;
    return 0;
}

/* Replace an element by another slot, as the kernel does: who holds a pointer to the old value keeps the old value. */
static ALWAYS void hash_replace(struct tcbpf_env *env, struct tcbpf_map *map, const struct tcbpf_shape *s, u32 *link,
                                const void *value, enum by by)
{
    u32 old = *link - 1;
    u8 *old_slot = slot_at(map, s, old), *slot = old_slot;
    s64 index = is_per_cpu(s) ? -1 : slot_take(map, s);

    if (index >= 0) {
        slot = slot_at(map, s, (u32)index);
        memcpy(slot + HASH_KEY, old_slot + HASH_KEY, s->key_size);
    }
    value_put(env, s, slot, value, by, 0);
    if (index >= 0) {
        publish32((u32 *)slot, *(u32 *)old_slot);
        publish32(link, (u32)index + 1);
        slot_give(map, s, old);
    }
    if (is_lru(s))
        __atomic_fetch_or(state_of(slot), REF, __ATOMIC_RELAXED);
}

static ALWAYS u64 hash_update(struct tcbpf_env *env, struct tcbpf_map *map, const struct tcbpf_shape *s, const void *key,
                              const void *value, u64 flags, enum by by)
{
    u32 bucket = bucket_of(map, s, key), *link;
    u64 err;

    if (unlikely((flags & ~(u64)BPF_F_LOCK) > BPF_EXIST || (flags & BPF_F_LOCK && !s->spin_lock)))
        return ERR(EINVAL);
    err = lock(env, map);
    if (unlikely(err))
        return err;
    link = hash_link(map, s, key, bucket);
    if (link && flags & BPF_NOEXIST)
        err = ERR(EEXIST);
    else if (!link && flags & BPF_EXIST)
        err = ERR(ENOENT);
    else if (link && flags & BPF_F_LOCK)
        value_copy(env, s, slot_at(map, s, *link - 1) + s->value_off, value, 1);
    else if (link)
        hash_replace(env, map, s, link, value, by);
    else
        err = hash_insert(env, map, s, key, value, bucket, by);
    unlock(map);
    return err;
}

static ALWAYS u64 hash_delete(struct tcbpf_env *env, struct tcbpf_map *map, const struct tcbpf_shape *s, const void *key)
{
    u64 err = lock(env, map);
    u32 *link;

    if (unlikely(err))
        return err;
    link = hash_link(map, s, key, bucket_of(map, s, key));
    if (link)
        hash_unlink(map, s, link);
    unlock(map);
    return link ? 0 : ERR(ENOENT);
}

/* --- user space ---------------------------------------------------------------------------------------------------------- */

static void hash_copy_value(const struct tcbpf_shape *s, const u8 *slot, u8 *value)
{
    memcpy(value, slot + s->value_off, is_per_cpu(s) ? (u64)s->value_stride * s->cpus : s->value_size);
    if (s->spin_lock)
        *spin_of(s, value) = 0;
}

/* A slot may be reused while its value is being copied; then it no longer is the key's. */
static s64 hash_copy(struct tcbpf_env *env, struct tcbpf_map *map, const struct tcbpf_shape *s, const void *key, void *value)
{
    for (u32 tries = 0; tries < 100; tries++) {
        u8 *slot = hash_find(map, s, key);

        if (!slot)
            return -ENOENT;
        hash_copy_value(s, slot, value);
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (hash_find(map, s, key) == slot)
            break;
    }
    return 0;
}

static s64 hash_take(struct tcbpf_env *env, struct tcbpf_map *map, const struct tcbpf_shape *s, const void *key, void *value)
{
    s64 err = (s64)lock(env, map);
    u32 *link;

    if (err)
        return err;
    link = hash_link(map, s, key, bucket_of(map, s, key));
    if (link) {
        hash_copy_value(s, slot_at(map, s, *link - 1), value);
        hash_unlink(map, s, link);
    }
    unlock(map);
    return link ? 0 : -ENOENT;
}

/* By bucket, then along the chain; from the start when `key` is not there (any more). */
static s64 hash_next_key(struct tcbpf_env *env, struct tcbpf_map *map, const struct tcbpf_shape *s, const void *key, void *next)
{
    u8 *slot = key ? hash_find(map, s, key) : NULL;
    u32 bucket = 0, at = 0;

    if (slot) {
        bucket = bucket_of(map, s, key) + 1;
        at = acquire32((u32 *)slot);
    }
    while (!is_link(at)) {
        if (bucket == s->n_buckets)
            return -ENOENT;
        at = acquire32(bucket_at(map, s, bucket++));
    }
    memcpy(next, slot_at(map, s, at - 1) + HASH_KEY, s->key_size);
    return 0;
}

/* After a writer died: what the chains reach is used, the rest is free. A chain that comes round is cut. */
static COLD void hash_repair(struct tcbpf_map *map)
{
    const struct tcbpf_shape *s = &map->s;

    slots_clear(map, s);
    map->count = 0;
    for (u32 bucket = 0; bucket < s->n_buckets; bucket++) {
        for (u32 *link = bucket_at(map, s, bucket); is_link(*link);) {
            u8 *slot = *link <= s->n_slots ? slot_at(map, s, *link - 1) : NULL;

            if (!slot || *state_of(slot) & USED) {
                publish32(link, END | bucket);
                break;
            }
            if (*link > map->fresh)
                map->fresh = *link;
            *state_of(slot) = USED;
            map->count++;
            link = (u32 *)slot;
        }
    }
    slots_sweep(map, s);
}

static u32 hash_each(struct tcbpf_env *env, struct tcbpf_map *map, u32 *at, u32 *index, void **key, void **value)
{
    const struct tcbpf_shape *s = &map->s;

    while (*at < s->n_slots && *at < relaxed32(&map->fresh)) {
        u8 *slot = slot_at(map, s, (*at)++);

        if (!(relaxed32(state_of(slot)) & USED) || hash_find(map, s, slot + HASH_KEY) != slot)
            continue;
        *key = slot + HASH_KEY;
        *value = value_of(env, s, slot);
        return 1;
    }
    return 0;
}

static void *hash_at_cpu(struct tcbpf_map *map, const struct tcbpf_shape *s, const void *key, u32 cpu)
{
    u8 *slot = is_per_cpu(s) ? hash_find(map, s, key) : NULL;

    return slot ? slot + s->value_off + (u64)cpu * s->value_stride : NULL;
}

/* --- the plan of its file ------------------------------------------------------------------------------------------------- */

static s64 hash_check(const struct tcbpf_shape *s)
{
    s64 err = elements_check(s);

    if (err)
        return err;
    if (is_lru(s) && s->flags & BPF_F_NO_PREALLOC)
        return -ENOTSUPP;
    if (!s->key_size)
        return -EINVAL;
    if ((u64)s->key_size + s->value_size >= KMALLOC_MAX - 48)
        return -E2BIG;
    return s->max_entries > MAX_SLOTS / 2 ? -E2BIG : 0;
}

static s64 hash_plan(struct tcbpf_shape *s)
{
    s->value_off = (u32)round_up(HASH_KEY + (u64)s->key_size, 8);
    s->n_slots = s->max_entries + (is_per_cpu(s) ? 0 : 16);        /* 16: replacements under way */
    for (s->n_buckets = 1; s->n_buckets < s->max_entries;)
        s->n_buckets *= 2;
    s->slots = round_up(s->buckets + 4 * (u64)s->n_buckets, PAGE);
    return slots_plan(s);
}

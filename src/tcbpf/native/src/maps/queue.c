/* Queue and stack: values without keys, in a ring of max_entries. */
#include "types.h"

static ALWAYS u8 *ring_at(struct tcbpf_map *map, const struct tcbpf_shape *s, u64 place)
{
    return slot_at(map, s, (u32)(place % s->max_entries));
}

static u64 queue_push(struct tcbpf_env *env, struct tcbpf_map *map, const struct tcbpf_shape *s, const void *value, u64 flags)
{
    u64 err;

    if (flags & BPF_NOEXIST || flags > BPF_EXIST)
        return ERR(EINVAL);
    err = lock(env, map);
    if (err)
        return err;
    if (map->tail - map->head >= s->max_entries) {
        if (!(flags & BPF_EXIST)) {
            unlock(map);
            return ERR(E2BIG);
        }
        map->head++;                                       /* the oldest makes room */
    }
    memcpy(ring_at(map, s, map->tail), value, s->value_size);
    map->tail++;
    map->count = (u32)(map->tail - map->head);
    unlock(map);
    return 0;
}

static u64 queue_head(struct tcbpf_env *env, struct tcbpf_map *map, const struct tcbpf_shape *s, void *value, int take)
{
    u64 err = lock(env, map);

    if (err) {
        memset(value, 0, s->value_size);
        return err;
    }
    if (map->tail == map->head) {
        memset(value, 0, s->value_size);
        err = ERR(ENOENT);
    } else {
        memcpy(value, ring_at(map, s, s->type == MAP_STACK ? map->tail - 1 : map->head), s->value_size);
        if (take && s->type == MAP_STACK)
            map->tail--;
        else if (take)
            map->head++;
        map->count = (u32)(map->tail - map->head);
    }
    unlock(map);
    return err;
}


static u64 queue_pop(struct tcbpf_env *env, struct tcbpf_map *map, const struct tcbpf_shape *s, void *value)
{
    return queue_head(env, map, s, value, 1);
}

static u64 queue_peek(struct tcbpf_env *env, struct tcbpf_map *map, const struct tcbpf_shape *s, void *value)
{
    return queue_head(env, map, s, value, 0);
}

static s64 queue_check(const struct tcbpf_shape *s)
{
    s64 err = elements_check(s);

    if (err)
        return err;
    if (s->key_size)
        return -EINVAL;
    return s->value_size > KMALLOC_MAX ? -E2BIG : 0;
}

static s64 queue_plan(struct tcbpf_shape *s)
{
    s->n_slots = s->max_entries;
    return slots_plan(s);
}

#define queue_copy(env, map, s, key, value) queue_peek(env, map, s, value)
#define queue_update(env, map, s, key, value, flags, by) queue_push(env, map, s, value, flags)
#define queue_delete refuse_EINVAL
#define queue_next_key refuse_EINVAL
#define queue_take(env, map, s, key, value) queue_pop(env, map, s, value)

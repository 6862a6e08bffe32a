/* Elements one by one, for bpf_for_each_map_elem(). */
#include "../base.h"

/* The first element at or after place *at: its key and value; *at goes behind it. 0 when there is none left. An array's key is
 * written to *index.
 */
u32 tcbpf_each(struct tcbpf_env *env, struct tcbpf_map *map, u32 *at, u32 *index, void **key, void **value)
{
    const struct tcbpf_shape *s = &map->s;

    if (!is_hash(s->type)) {
        if ((s->type != MAP_ARRAY && s->type != MAP_PERCPU_ARRAY) || *at >= s->max_entries)
            return 0;
        *index = (*at)++;
        *key = index;
        *value = array_at(map, s, s->type == MAP_PERCPU_ARRAY ? this_cpu(env, s) : 0, *index);
        return 1;
    }
    while (*at < s->n_slots && *at < relaxed32(&map->fresh)) {
        u8 *slot = slot_at(map, s, (*at)++);

        if (!(relaxed32(state_of(slot)) & USED) || hash_find(map, s, slot + HASH_KEY) != slot)
            continue;
        *key = slot + HASH_KEY;
        *value = value_of(env, s, slot, is_percpu_hash(s->type));
        return 1;
    }
    return 0;
}

/* Call back with (map, key, value, context) until it returns other than 0; how often it was called. */
u64 tcbpf_for_each(struct tcbpf_env *env, u64 map, u64 callback, u64 context, u64 flags, void *ctx, struct tcbpf_map *const *maps)
{
    u32 at = 0, index;
    u64 called = 0;
    void *key, *value;

    if (flags)
        return ERR(EINVAL);
    while (tcbpf_each(env, (struct tcbpf_map *)map, &at, &index, &key, &value)) {
        called++;
        if (((tcbpf_callback)callback)(map, (u64)key, (u64)value, context, 0, ctx, env, maps))
            break;
    }
    return called;
}

/* Maps as programs use them, whatever the type; with a constant shape the choice costs nothing. */
#include "types.h"

INLINED void *tcbpf_map_lookup(struct tcbpf_env *env, struct tcbpf_map *map, const struct tcbpf_shape *s, const void *key)
{
    switch (elements_of(s)) {
#define LOOKUP(elements) case ELEMENTS_##elements: return elements##_lookup(env, map, s, key);
    MAP_ELEMENTS(LOOKUP)
#undef LOOKUP
    }
    return NULL;
}

INLINED u64 tcbpf_map_update(struct tcbpf_env *env, struct tcbpf_map *map, const struct tcbpf_shape *s, const void *key,
                             const void *value, u64 flags)
{
    switch (elements_of(s)) {
#define UPDATE(elements) case ELEMENTS_##elements: return (u64)elements##_update(env, map, s, key, value, flags, BY_PROGRAM);
    MAP_ELEMENTS(UPDATE)
#undef UPDATE
    }
    return ERR(EINVAL);
}

INLINED u64 tcbpf_map_delete(struct tcbpf_env *env, struct tcbpf_map *map, const struct tcbpf_shape *s, const void *key)
{
    switch (elements_of(s)) {
#define DELETE(elements) case ELEMENTS_##elements: return (u64)elements##_delete(env, map, s, key);
    MAP_ELEMENTS(DELETE)
#undef DELETE
    }
    return ERR(EINVAL);
}

#define MAP ((struct tcbpf_map *)r1)

HELPER(map_lookup_elem) { return (u64)tcbpf_map_lookup(env, MAP, &MAP->s, (void *)r2); }
HELPER(map_update_elem) { return tcbpf_map_update(env, MAP, &MAP->s, (void *)r2, (void *)r3, r4); }
HELPER(map_delete_elem) { return tcbpf_map_delete(env, MAP, &MAP->s, (void *)r2); }

/* (map, key, cpu): another CPU's value. */
HELPER(map_lookup_percpu_elem)
{
    if ((u32)r3 >= MAP->s.cpus)
        return 0;
    switch (MAP->s.type) {
#define AT_CPU(NAME, number, traits, kind, elements, values, walk, ...) \
    case MAP_##NAME: return (u64)walk##_at_cpu(MAP, &MAP->s, (void *)r2, (u32)r3);
    MAP_TYPES(AT_CPU)
#undef AT_CPU
    default: return 0;
    }
}

/* (map, value, flags) */
HELPER(map_push_elem)
{
    switch (MAP->s.type) {
#define PUSH(NAME, number, traits, kind, elements, values, ...) \
    case MAP_##NAME: return (u64)values##_push(env, MAP, &MAP->s, (void *)r2, r3);
    MAP_TYPES(PUSH)
#undef PUSH
    default: return ERR(EINVAL);
    }
}

/* (map, value) */
HELPER(map_pop_elem)
{
    switch (MAP->s.type) {
#define POP(NAME, number, traits, kind, elements, values, ...) case MAP_##NAME: return (u64)values##_pop(env, MAP, &MAP->s, (void *)r2);
    MAP_TYPES(POP)
#undef POP
    default: return ERR(EINVAL);
    }
}

HELPER(map_peek_elem)
{
    switch (MAP->s.type) {
#define PEEK(NAME, number, traits, kind, elements, values, ...) case MAP_##NAME: return (u64)values##_peek(env, MAP, &MAP->s, (void *)r2);
    MAP_TYPES(PEEK)
#undef PEEK
    default: return ERR(EINVAL);
    }
}

/* The first element at or after place *at: its key and value; *at goes behind it. 0 when there is none left. An array's key is
 * written to *index.
 */
u32 tcbpf_each(struct tcbpf_env *env, struct tcbpf_map *map, u32 *at, u32 *index, void **key, void **value)
{
    switch (map->s.type) {
#define EACH(NAME, number, traits, kind, elements, values, walk, ...) \
    case MAP_##NAME: return walk##_each(env, map, at, index, key, value);
    MAP_TYPES(EACH)
#undef EACH
    default: return 0;
    }
}

/* Call back with (map, key, value, context) until it returns other than 0; how often it was called. */
u64 tcbpf_for_each(struct tcbpf_env *env, u64 map, u64 callback, u64 context, u64 flags, void *ctx, struct tcbpf_map *const *maps)
{
    u32 at = 0, index;
    u64 called = 0;
    void *key, *value;

    if (flags)
        return ERR(EINVAL);
    while (!stopped(env) && tcbpf_each(env, (struct tcbpf_map *)map, &at, &index, &key, &value)) {
        called++;
        if (((tcbpf_callback)callback)(map, (u64)key, (u64)value, context, 0, ctx, env, maps))
            break;
    }
    return called;
}

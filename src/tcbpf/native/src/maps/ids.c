/* Arrays of programs, and of maps, and hashes of maps: a value is an id, 0 for none. */
#include "types.h"

static s64 ids_update(struct tcbpf_env *env, struct tcbpf_map *map, const struct tcbpf_shape *s, const void *key,
                      const void *value, u64 flags, enum by by)
{
    u32 index = load32(key);

    if (flags != BPF_ANY)
        return -EINVAL;
    if (index >= s->max_entries)
        return -E2BIG;
    publish32((u32 *)array_at(map, s, 0, index), load32(value));
    return 0;
}

static s64 ids_delete(struct tcbpf_env *env, struct tcbpf_map *map, const struct tcbpf_shape *s, const void *key)
{
    u32 index = load32(key);

    if (index >= s->max_entries)
        return -E2BIG;
    return __atomic_exchange_n((u32 *)array_at(map, s, 0, index), 0, __ATOMIC_ACQ_REL) ? 0 : -ENOENT;
}

static s64 ids_copy(struct tcbpf_env *env, struct tcbpf_map *map, const struct tcbpf_shape *s, const void *key, void *value)
{
    u32 index = load32(key), id;

    if (index >= s->max_entries)
        return -ENOENT;
    id = acquire32((u32 *)array_at(map, s, 0, index));
    store32(value, id);
    return id ? 0 : -ENOENT;
}

static s64 ids_check(const struct tcbpf_shape *s)
{
    s64 err = elements_check(s);

    if (err)
        return err;
    return s->key_size == 4 && s->value_size == 4 ? 0 : -EINVAL;
}

#define ids_plan array_plan
#define ids_next_key array_next_key
#define ids_take refuse_ENOTSUPP

/* --- programs ------------------------------------------------------------------------------------------------------------ */

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

/* --- maps ---------------------------------------------------------------------------------------------------------------- */

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

static ALWAYS void *inner_array_lookup(struct tcbpf_env *env, struct tcbpf_map *map, const struct tcbpf_shape *s, const void *key)
{
    return inner_map(env, array_lookup(env, map, s, key));
}

static ALWAYS void *inner_hash_lookup(struct tcbpf_env *env, struct tcbpf_map *map, const struct tcbpf_shape *s, const void *key)
{
    return inner_map(env, hash_lookup(env, map, s, key));
}

#define inner_array_update refuse_EINVAL
#define inner_array_delete refuse_EINVAL
#define inner_hash_update refuse_EINVAL
#define inner_hash_delete refuse_EINVAL

static s64 hash_maps_check(const struct tcbpf_shape *s)
{
    return s->value_size && s->value_size != 4 ? -EINVAL : hash_check(s);
}

#define hash_maps_plan hash_plan
#define hash_maps_copy hash_copy
#define hash_maps_update hash_update
#define hash_maps_delete hash_delete
#define hash_maps_next_key hash_next_key
#define hash_maps_take refuse_ENOTSUPP

/* Maps as bpf(2) gives them to user space: whole values, access flags respected. */
#include "types.h"

static s64 may_read(const struct tcbpf_map *map) { return map->s.flags & BPF_F_WRONLY ? -EPERM : 0; }

static s64 may_write(struct tcbpf_map *map)
{
    return map->s.flags & BPF_F_RDONLY || acquire32(&map->frozen) ? -EPERM : 0;
}

s64 tcbpf_user_lookup(struct tcbpf_env *env, struct tcbpf_map *map, const void *key, void *value)
{
    s64 err = may_read(map);

    if (err)
        return err;
    switch (kind_of(&map->s)) {
#define COPY(kind) case KIND_##kind: return (s64)kind##_copy(env, map, &map->s, key, value);
    MAP_KINDS(COPY)
#undef COPY
    case KIND_none: break;
    }
    return -EINVAL;
}

s64 tcbpf_user_update(struct tcbpf_env *env, struct tcbpf_map *map, const void *key, const void *value, u64 flags)
{
    s64 err = may_write(map);

    if (err)
        return err;
    switch (kind_of(&map->s)) {
#define UPDATE(kind) case KIND_##kind: return (s64)kind##_update(env, map, &map->s, key, value, flags, BY_USER);
    MAP_KINDS(UPDATE)
#undef UPDATE
    case KIND_none: break;
    }
    return -EINVAL;
}

s64 tcbpf_user_delete(struct tcbpf_env *env, struct tcbpf_map *map, const void *key)
{
    s64 err = may_write(map);

    if (err)
        return err;
    switch (kind_of(&map->s)) {
#define DELETE(kind) case KIND_##kind: return (s64)kind##_delete(env, map, &map->s, key);
    MAP_KINDS(DELETE)
#undef DELETE
    case KIND_none: break;
    }
    return -EINVAL;
}

s64 tcbpf_user_next_key(struct tcbpf_env *env, struct tcbpf_map *map, const void *key, void *next)
{
    s64 err = may_read(map);

    if (err)
        return err;
    switch (kind_of(&map->s)) {
#define NEXT_KEY(kind) case KIND_##kind: return kind##_next_key(env, map, &map->s, key, next);
    MAP_KINDS(NEXT_KEY)
#undef NEXT_KEY
    case KIND_none: break;
    }
    return -EINVAL;
}

s64 tcbpf_user_pop(struct tcbpf_env *env, struct tcbpf_map *map, const void *key, void *value)
{
    s64 err = may_read(map);

    err = err ? err : may_write(map);
    if (err)
        return err;
    switch (kind_of(&map->s)) {
#define TAKE(kind) case KIND_##kind: return (s64)kind##_take(env, map, &map->s, key, value);
    MAP_KINDS(TAKE)
#undef TAKE
    case KIND_none: break;
    }
    return -EINVAL;
}

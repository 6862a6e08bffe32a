/* Maps as bpf(2) gives them to user space: what of each type is allowed, and whole values. */
#include "../base.h"

enum { BPF_F_RDONLY = 1 << 3, BPF_F_WRONLY = 1 << 4 };

static s64 may_read(const struct tcbpf_map *map) { return map->s.flags & BPF_F_WRONLY ? -EPERM : 0; }

static s64 may_write(struct tcbpf_map *map)
{
    return map->s.flags & BPF_F_RDONLY || acquire32(&map->frozen) ? -EPERM : 0;
}

s64 tcbpf_user_lookup(struct tcbpf_env *env, struct tcbpf_map *map, const void *key, void *value)
{
    const struct tcbpf_shape *s = &map->s;
    s64 err = may_read(map);

    if (err)
        return err;
    switch (s->type) {
    case MAP_BLOOM_FILTER:
        return (s64)bloom_peek(map, s, value);
    case MAP_RINGBUF:
    case MAP_PERF_EVENT_ARRAY:
        return -ENOTSUPP;
    case MAP_SK_STORAGE:
        return -ENOENT;
    case MAP_ARRAY:
    case MAP_PERCPU_ARRAY:
        return array_copy(map, s, key, value);
    case MAP_PROG_ARRAY:
    case MAP_ARRAY_OF_MAPS:
        return ids_copy(map, s, key, value);
    case MAP_LPM_TRIE:
        return lpm_copy(map, s, key, value);
    case MAP_QUEUE:
    case MAP_STACK:
        return (s64)queue_take(env, map, s, value, 0);
    default:
        return hash_copy(map, s, key, value);
    }
}

s64 tcbpf_user_update(struct tcbpf_env *env, struct tcbpf_map *map, const void *key, const void *value, u64 flags)
{
    const struct tcbpf_shape *s = &map->s;
    s64 err = may_write(map);

    if (err)
        return err;
    switch (s->type) {
    case MAP_BLOOM_FILTER:
        return (s64)bloom_push(map, s, value, flags);
    case MAP_RINGBUF:
        return -ENOTSUPP;
    case MAP_PERF_EVENT_ARRAY:
        return -EINVAL;
    case MAP_SK_STORAGE:
        return -EOPNOTSUPP;
    case MAP_ARRAY:
    case MAP_PERCPU_ARRAY:
        return (s64)array_update(env, map, s, key, value, flags, BY_USER);
    case MAP_PROG_ARRAY:
    case MAP_ARRAY_OF_MAPS:
        return ids_update(map, s, key, value, flags);
    case MAP_LPM_TRIE:
        return (s64)lpm_update(env, map, s, key, value, flags);
    case MAP_QUEUE:
    case MAP_STACK:
        return (s64)queue_push(env, map, s, value, flags);
    default:
        return (s64)hash_update(env, map, s, key, value, flags, BY_USER);
    }
}

s64 tcbpf_user_delete(struct tcbpf_env *env, struct tcbpf_map *map, const void *key)
{
    const struct tcbpf_shape *s = &map->s;
    s64 err = may_write(map);

    if (err)
        return err;
    switch (s->type) {
    case MAP_PROG_ARRAY:
    case MAP_ARRAY_OF_MAPS:
        return ids_delete(map, s, key);
    case MAP_BLOOM_FILTER:
        return -EOPNOTSUPP;
    case MAP_RINGBUF:
        return -ENOTSUPP;
    case MAP_PERF_EVENT_ARRAY:
    case MAP_SK_STORAGE:
        return -ENOENT;
    case MAP_LPM_TRIE:
        return (s64)lpm_delete(env, map, s, key);
    case MAP_ARRAY:
    case MAP_PERCPU_ARRAY:
    case MAP_QUEUE:
    case MAP_STACK:
        return -EINVAL;
    default:
        return (s64)hash_delete(env, map, s, key);
    }
}

s64 tcbpf_user_next_key(struct tcbpf_env *env, struct tcbpf_map *map, const void *key, void *next)
{
    const struct tcbpf_shape *s = &map->s;
    s64 err = may_read(map);

    if (err)
        return err;
    switch (s->type) {
    case MAP_BLOOM_FILTER:
        return -EOPNOTSUPP;
    case MAP_RINGBUF:
    case MAP_SK_STORAGE:
        return -ENOTSUPP;
    case MAP_ARRAY:
    case MAP_PERCPU_ARRAY:
    case MAP_PROG_ARRAY:
    case MAP_PERF_EVENT_ARRAY:
    case MAP_ARRAY_OF_MAPS:
        return array_next_key(s, key, next);
    case MAP_LPM_TRIE:
        return lpm_next_key(env, map, s, key, next);
    case MAP_QUEUE:
    case MAP_STACK:
        return -EINVAL;
    default:
        return hash_next_key(map, s, key, next);
    }
}

s64 tcbpf_user_pop(struct tcbpf_env *env, struct tcbpf_map *map, const void *key, void *value)
{
    const struct tcbpf_shape *s = &map->s;
    s64 err = may_read(map);

    err = err ? err : may_write(map);
    if (err)
        return err;
    if (is_queue(s->type))
        return (s64)queue_take(env, map, s, value, 1);
    return is_hash(s->type) && s->type != MAP_HASH_OF_MAPS ? hash_pop(env, map, s, key, value) : -ENOTSUPP;
}

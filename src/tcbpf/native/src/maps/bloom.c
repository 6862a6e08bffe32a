/* Bloom filters: bits that say of a value "never put" or "perhaps put". n_slots is the mask of bit numbers, hashes how many
 * bits a value has.
 */
#include "types.h"

enum { BLOOM_MAX_HASHES = 15 };

static ALWAYS u64 *bloom_word(struct tcbpf_map *map, const struct tcbpf_shape *s, const void *value, u32 i, u64 *bit)
{
    u32 seed = map->seed + i * 0x9e3779b9u;                /* far apart: a seed is only mixed into the value */
    u32 at = hash_key(value, s->value_size, seed) & s->n_slots;

    *bit = 1ull << (at & 63);
    return (u64 *)((u8 *)map + s->slots) + at / 64;
}

static u64 bloom_push(struct tcbpf_env *env, struct tcbpf_map *map, const struct tcbpf_shape *s, const void *value, u64 flags)
{
    u64 bit;

    if (flags != BPF_ANY)
        return ERR(EINVAL);
    for (u32 i = 0; i < s->hashes; i++) {
        u64 *word = bloom_word(map, s, value, i, &bit);

        __atomic_fetch_or(word, bit, __ATOMIC_RELAXED);
    }
    return 0;
}

static u64 bloom_peek(struct tcbpf_env *env, struct tcbpf_map *map, const struct tcbpf_shape *s, const void *value)
{
    u64 bit;

    for (u32 i = 0; i < s->hashes; i++) {
        const u64 *word = bloom_word(map, s, value, i, &bit);

        if (!(__atomic_load_n(word, __ATOMIC_RELAXED) & bit))
            return ERR(ENOENT);
    }
    return 0;
}

/* The mask for max_entries values of `hashes` bits each: n * k / ln 2 bits, rounded up to a power of two. */
static u32 bloom_mask(u32 max_entries, u32 hashes)
{
    u64 bits = (u64)max_entries * hashes, size = 64;

    if (bits > 0xffffffffu || bits / 5 * 7 > 1u << 31)
        return 0xffffffffu;
    while (size < bits / 5 * 7)
        size *= 2;
    return (u32)(size - 1);
}

static s64 bloom_check(const struct tcbpf_shape *s)
{
    s64 err = elements_check(s);

    if (err)
        return err;
    if (s->hashes > BLOOM_MAX_HASHES || s->key_size)
        return -EINVAL;
    return s->value_size > KMALLOC_MAX ? -E2BIG : 0;
}

static s64 bloom_plan(struct tcbpf_shape *s)
{
    s->n_slots = bloom_mask(s->max_entries, s->hashes);
    return (s64)(s->slots + (u64)s->n_slots / 8 + 1);
}

#define bloom_pop refuse_EOPNOTSUPP
#define bloom_copy(env, map, s, key, value) bloom_peek(env, map, s, value)
#define bloom_update(env, map, s, key, value, flags, by) bloom_push(env, map, s, value, flags)
#define bloom_delete refuse_EOPNOTSUPP
#define bloom_next_key refuse_EOPNOTSUPP
#define bloom_take refuse_ENOTSUPP

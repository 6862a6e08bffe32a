/* Longest prefix match: a path-compressed binary trie.
 *
 * A slot is {child[0], state, child[1], prefixlen, data, value}; a child is slot + 1. A node with INTERMEDIATE holds no element.
 * Readers go through `seq` instead of a lock: a walk during which it moved is walked again, and no walk can go round, since
 * prefixes must grow.
 */
#include "types.h"

#define INTERMEDIATE 0x20000000u
enum { LPM_PREFIX = 12, LPM_DATA = 16, LPM_RETRIES = 64, LPM_MAX_DATA = 256, LPM_MAX_VALUE = (4 << 20) - 280 };

static ALWAYS u32 *child_of(u8 *slot, u32 bit) { return (u32 *)slot + (bit ? 2 : 0); }
static ALWAYS u32 prefix_of(const u8 *slot) { return *(const u32 *)(slot + LPM_PREFIX); }
static ALWAYS int is_element(u8 *slot) { return !(relaxed32(state_of(slot)) & INTERMEDIATE); }
static ALWAYS u32 data_size(const struct tcbpf_shape *s) { return s->key_size - 4; }
static ALWAYS u32 bit_at(const u8 *data, u32 bit) { return data[bit / 8] >> (7 - bit % 8) & 1; }
static ALWAYS u8 *node_at(struct tcbpf_map *map, const struct tcbpf_shape *s, u32 link)
{
    return link && link <= s->n_slots ? slot_at(map, s, link - 1) : NULL;
}

/* Leading bits that both share, at most the shorter prefix. */
static ALWAYS u32 shared_bits(const struct tcbpf_shape *s, const u8 *a, u32 a_bits, const u8 *b, u32 b_bits)
{
    u32 limit = min_u32(a_bits, b_bits), i = 0, size = data_size(s);

    for (; i + 8 <= size; i += 8) {
        u64 diff = swap64(load64(a + i) ^ load64(b + i));

        if (diff)
            return min_u32(limit, i * 8 + (u32)__builtin_clzll(diff));
    }
    if (i + 4 <= size) {
        u32 diff = swap32(load32(a + i) ^ load32(b + i));

        if (diff)
            return min_u32(limit, i * 8 + (u32)__builtin_clz(diff));
        i += 4;
    }
    for (; i < size; i++) {
        u32 diff = a[i] ^ b[i];

        if (diff)
            return min_u32(limit, i * 8 + (u32)__builtin_clz(diff) - 24);
    }
    return limit;
}

/* The longest element that covers `key`, or NULL; `exact` asks for the one of just this prefix. */
static ALWAYS u8 *lpm_walk(struct tcbpf_map *map, const struct tcbpf_shape *s, const u8 *key, int exact)
{
    u32 bits = load32(key), max = data_size(s) * 8;
    u8 *found = NULL;
    s64 before = -1;

    for (u8 *node = node_at(map, s, acquire32(&map->root)); node;) {
        u32 prefix = prefix_of(node), match;

        if ((s64)prefix <= before || prefix > max)
            break;
        before = prefix;
        match = shared_bits(s, node + LPM_DATA, prefix, key + 4, bits);
        if (match < prefix)
            break;
        if (is_element(node) && (!exact || prefix == bits))
            found = node;
        if (match == max || prefix >= max)
            break;
        if (prefix >= bits)
            break;
        node = node_at(map, s, acquire32(child_of(node, bit_at(key + 4, prefix))));
    }
    return found;
}

static ALWAYS u8 *lpm_find(struct tcbpf_map *map, const struct tcbpf_shape *s, const u8 *key, int exact)
{
    u8 *found = NULL;

    if (load32(key) > data_size(s) * 8)
        return NULL;
    for (u32 i = 0; i < LPM_RETRIES; i++) {
        u32 seq = acquire32(&map->seq);

        found = lpm_walk(map, s, key, exact);
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (likely(!(seq & 1) && relaxed32(&map->seq) == seq))
            break;
        relax();
    }
    return found;
}

static ALWAYS void *lpm_lookup(struct tcbpf_env *env, struct tcbpf_map *map, const struct tcbpf_shape *s, const void *key)
{
    u8 *slot = lpm_find(map, s, key, 0);

    return slot ? slot + s->value_off : NULL;
}

/* --- writers: the map's lock is held ------------------------------------------------------------------------------------ */

static ALWAYS void moving(struct tcbpf_map *map, int begin)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    publish32(&map->seq, begin ? map->seq | 1 : (map->seq | 1) + 1);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static u8 *lpm_new(struct tcbpf_map *map, const struct tcbpf_shape *s, const u8 *data, u32 prefix, u32 kind, u32 *link)
{
    s64 index = slot_take(map, s);
    u8 *slot;

    if (index < 0)
        return NULL;
    *link = (u32)index + 1;
    slot = slot_at(map, s, (u32)index);
    *state_of(slot) = USED | kind;
    *child_of(slot, 0) = *child_of(slot, 1) = 0;
    *(u32 *)(slot + LPM_PREFIX) = prefix;
    memcpy(slot + LPM_DATA, data, data_size(s));
    return slot;
}

static u64 lpm_place(struct tcbpf_map *map, const struct tcbpf_shape *s, const u8 *key, const void *value, u64 flags)
{
    u32 bits = load32(key), match = 0, made, between;
    u32 *link = &map->root;
    u8 *node, *slot, *middle;
    int replaces;

    while ((node = node_at(map, s, *link))) {
        match = shared_bits(s, node + LPM_DATA, prefix_of(node), key + 4, bits);
        if (match != prefix_of(node) || match == bits)
            break;
        link = child_of(node, bit_at(key + 4, match));
    }
    replaces = node && match == prefix_of(node);
    if (replaces && is_element(node)) {
        if (flags == BPF_NOEXIST)
            return ERR(EEXIST);
    } else {
        if (flags == BPF_EXIST)
            return ERR(ENOENT);
        if (map->count >= s->max_entries)
            return ERR(ENOSPC);
        map->count++;
    }
    slot = lpm_new(map, s, key + 4, bits, 0, &made);
    if (!slot)
        return ERR(ENOMEM);
    memcpy(slot + s->value_off, value, s->value_size);
    if (!node) {
        publish32(link, made);
    } else if (replaces) {
        u32 old = *link - 1;

        *child_of(slot, 0) = *child_of(node, 0);
        *child_of(slot, 1) = *child_of(node, 1);
        publish32(link, made);
        slot_give(map, s, old);
    } else if (match == bits) {
        *child_of(slot, bit_at(node + LPM_DATA, match)) = *link;
        publish32(link, made);
    } else {
        middle = lpm_new(map, s, node + LPM_DATA, match, INTERMEDIATE, &between);
        if (!middle) {
            slot_give(map, s, made - 1);
            map->count--;
            return ERR(ENOMEM);
        }
        *child_of(middle, bit_at(key + 4, match)) = made;
        *child_of(middle, !bit_at(key + 4, match)) = *link;
        publish32(link, between);
    }
    return 0;
}

static u64 lpm_update(struct tcbpf_env *env, struct tcbpf_map *map, const struct tcbpf_shape *s, const void *key,
                      const void *value, u64 flags, enum by by)
{
    u64 err;

    if (flags > BPF_EXIST || load32(key) > data_size(s) * 8)
        return ERR(EINVAL);
    err = lock(env, map);
    if (err)
        return err;
    moving(map, 1);
    err = lpm_place(map, s, key, value, flags);
    moving(map, 0);
    unlock(map);
    return err;
}

static u64 lpm_remove(struct tcbpf_map *map, const struct tcbpf_shape *s, const u8 *key)
{
    u32 bits = load32(key), index;
    u32 *link = &map->root, *above = NULL;
    u8 *node, *parent = NULL;

    while ((node = node_at(map, s, *link))) {
        u32 match = shared_bits(s, node + LPM_DATA, prefix_of(node), key + 4, bits);

        if (match != prefix_of(node))
            return ERR(ENOENT);
        if (match == bits)
            break;
        parent = node;
        above = link;
        link = child_of(node, bit_at(key + 4, match));
    }
    if (!node || !is_element(node))
        return ERR(ENOENT);
    map->count--;
    index = *link - 1;
    if (*child_of(node, 0) && *child_of(node, 1)) {
        *state_of(node) |= INTERMEDIATE;
        return 0;
    }
    if (parent && !is_element(parent) && !*child_of(node, 0) && !*child_of(node, 1)) {
        u32 parent_index = *above - 1;

        publish32(above, link == child_of(parent, 0) ? *child_of(parent, 1) : *child_of(parent, 0));
        slot_give(map, s, parent_index);
    } else {
        publish32(link, *child_of(node, 0) ? *child_of(node, 0) : *child_of(node, 1));
    }
    slot_give(map, s, index);
    return 0;
}

static u64 lpm_delete(struct tcbpf_env *env, struct tcbpf_map *map, const struct tcbpf_shape *s, const void *key)
{
    u64 err;

    if (load32(key) > data_size(s) * 8)
        return ERR(EINVAL);
    err = lock(env, map);
    if (err)
        return err;
    moving(map, 1);
    err = lpm_remove(map, s, key);
    moving(map, 0);
    unlock(map);
    return err;
}

/* --- user space ---------------------------------------------------------------------------------------------------------- */

static s64 lpm_copy(struct tcbpf_env *env, struct tcbpf_map *map, const struct tcbpf_shape *s, const void *key, void *value)
{
    for (u32 tries = 0; tries < LPM_RETRIES; tries++) {
        u32 seq = acquire32(&map->seq);
        u8 *slot = lpm_find(map, s, key, 0);

        if (!slot)
            return -ENOENT;
        memcpy(value, slot + s->value_off, s->value_size);
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (relaxed32(&map->seq) == seq)
            break;
    }
    return 0;
}

/* The first node of a subtree in post-order: down to a leaf, lower bit first. */
static u8 *lpm_deepest(struct tcbpf_map *map, const struct tcbpf_shape *s, u8 *node)
{
    for (u32 depth = 0; node && depth <= data_size(s) * 8; depth++) {
        u32 child = *child_of(node, 0) ? *child_of(node, 0) : *child_of(node, 1);

        if (!child)
            return node;
        node = node_at(map, s, child);
    }
    return node;
}

/* The node above `node`, or NULL for the root. */
static u8 *lpm_parent(struct tcbpf_map *map, const struct tcbpf_shape *s, u8 *node)
{
    u8 *parent = NULL, *at = node_at(map, s, map->root);

    while (at && at != node) {
        parent = at;
        if (prefix_of(at) >= prefix_of(node))
            return NULL;
        at = node_at(map, s, *child_of(at, bit_at(node + LPM_DATA, prefix_of(at))));
    }
    return at ? parent : NULL;
}

static u8 *lpm_after(struct tcbpf_map *map, const struct tcbpf_shape *s, u8 *node)
{
    u8 *parent = lpm_parent(map, s, node);

    if (!parent)
        return NULL;
    if (node_at(map, s, *child_of(parent, 0)) == node && *child_of(parent, 1))
        return lpm_deepest(map, s, node_at(map, s, *child_of(parent, 1)));
    return parent;
}

/* Post-order, so that longer prefixes come before those that cover them (as the kernel's). Under the lock. */
static s64 lpm_next_key(struct tcbpf_env *env, struct tcbpf_map *map, const struct tcbpf_shape *s, const void *key, void *next)
{
    s64 err = (s64)lock(env, map);
    u8 *node;

    if (err)
        return err;
    node = key && load32(key) <= data_size(s) * 8 ? lpm_walk(map, s, key, 1) : NULL;
    node = node ? lpm_after(map, s, node) : lpm_deepest(map, s, node_at(map, s, map->root));
    while (node && !is_element(node))
        node = lpm_after(map, s, node);
    if (node)
        memcpy(next, node + LPM_PREFIX, s->key_size);
    unlock(map);
    return node ? 0 : -ENOENT;
}

/* After a writer died: what the root reaches is used, the rest is free. */
static COLD void lpm_repair(struct tcbpf_map *map)
{
    const struct tcbpf_shape *s = &map->s;

    for (u32 i = 0; i < min_u32(map->fresh, s->n_slots); i++)
        *state_of(slot_at(map, s, i)) &= ~USED;
    map->count = 0;
    for (u8 *node = lpm_deepest(map, s, node_at(map, s, map->root)); node; node = lpm_after(map, s, node)) {
        if (*state_of(node) & USED)
            break;
        *state_of(node) = (*state_of(node) & INTERMEDIATE) | USED;
        map->count += is_element(node) ? 1 : 0;
    }
    slots_sweep(map, s);
    moving(map, 0);
}

/* --- the plan of its file ------------------------------------------------------------------------------------------------- */

static s64 lpm_check(const struct tcbpf_shape *s)
{
    s64 err = elements_check(s);

    if (err)
        return err;
    if (s->key_size < 5 || s->key_size > 4 + LPM_MAX_DATA || s->value_size > LPM_MAX_VALUE)
        return -EINVAL;
    return s->max_entries > MAX_SLOTS / 4 ? -ENOMEM : 0;
}

static s64 lpm_plan(struct tcbpf_shape *s)
{
    s->value_off = (u32)round_up(LPM_DATA + (u64)data_size(s), 8);
    s->n_slots = 2 * s->max_entries + 2;
    return slots_plan(s);
}

#define lpm_take refuse_ENOTSUPP

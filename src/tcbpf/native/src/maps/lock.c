/* One writer at a time for each map; readers never wait.
 *
 * The lock names its holder, so that a process which died while holding it cannot stop the others: the next writer takes the
 * lock over and puts the free list right. Every store of a writer leaves the map readable, so only free slots can be lost.
 */
#include "types.h"

enum { SPINS = 200, YIELDS = 1 << 18 };

static void hash_repair(struct tcbpf_map *map);
static void lpm_repair(struct tcbpf_map *map);

static COLD void repair(struct tcbpf_map *map)
{
    map->repaired++;
    switch (map->s.type) {
#define REPAIR(NAME, number, traits, kind, elements, values, walk, slots) case MAP_##NAME: slots##_repair(map); break;
    MAP_TYPES(REPAIR)
#undef REPAIR
    }
}

/* `holder` is a process of our pid namespace and gone. */
static COLD int dead(u64 holder, u64 self)
{
    return holder >> 32 == self >> 32 && (u32)holder != (u32)self && sys2(SYS_kill, (s32)(u32)holder, 0) == -ESRCH;
}

static COLD u64 lock_contended(struct tcbpf_map *map, u64 self)
{
    for (u32 i = 0; i < SPINS + YIELDS; i++) {
        u64 holder = __atomic_load_n(&map->lock, __ATOMIC_RELAXED);

        if (!holder) {
            if (__atomic_compare_exchange_n(&map->lock, &holder, self, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
                return 0;
        } else if (i % 1024 == SPINS && dead(holder, self)
                   && __atomic_compare_exchange_n(&map->lock, &holder, self, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
            repair(map);
            return 0;
        }
        if (i < SPINS)
            relax();
        else
            sys2(SYS_sched_yield, 0, 0);
    }
    return ERR(EBUSY);
}

/* 0, or -EBUSY when a holder that lives does not let go. */
static ALWAYS u64 lock(struct tcbpf_env *env, struct tcbpf_map *map)
{
    u64 none = 0, self = env->owner ? env->owner : 1;

    if (likely(__atomic_compare_exchange_n(&map->lock, &none, self, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)))
        return 0;
    return lock_contended(map, self);
}

static ALWAYS void unlock(struct tcbpf_map *map) { __atomic_store_n(&map->lock, 0, __ATOMIC_RELEASE); }

/* --- locks inside values -------------------------------------------------------------------------------------------- */

/* A bpf_spin_lock holds its holder's pid. One that died with it, in between two instructions, is relieved. */
static COLD void spin_wait(u32 *lock, u64 self)
{
    for (u32 i = 1;; i++) {
        u32 holder = relaxed32(lock);

        if (holder && i % 1024 == 0 && dead((self & ~0xffffffffull) | holder, self))
            __atomic_compare_exchange_n(lock, &holder, 0, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
        holder = 0;
        if (__atomic_compare_exchange_n(lock, &holder, (u32)self, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
            return;
        if (i < SPINS)
            relax();
        else
            sys2(SYS_sched_yield, 0, 0);
    }
}

static ALWAYS void spin_take(struct tcbpf_env *env, u32 *lock)
{
    u64 self = (u32)env->owner ? env->owner : 1;
    u32 none = 0;

    if (unlikely(!__atomic_compare_exchange_n(lock, &none, (u32)self, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)))
        spin_wait(lock, self);
}

static ALWAYS void spin_give(u32 *lock) { __atomic_store_n(lock, 0, __ATOMIC_RELEASE); }

static ALWAYS u32 *spin_of(const struct tcbpf_shape *s, u8 *value) { return (u32 *)(value + s->spin_lock - 1); }

/* Copy a value and leave the lock in it as it is; `locked`: while holding it. */
static ALWAYS void value_copy(struct tcbpf_env *env, const struct tcbpf_shape *s, u8 *to, const u8 *from, int locked)
{
    u32 before = s->spin_lock - 1, after = s->spin_lock + 3;

    if (likely(!s->spin_lock)) {
        memcpy(to, from, s->value_size);
        return;
    }
    if (locked)
        spin_take(env, spin_of(s, to));
    memcpy(to, from, before);
    memcpy(to + after, from + after, s->value_size - after);
    if (locked)
        spin_give(spin_of(s, to));
}

/* --- slots, shared by the types that allocate them ------------------------------------------------------------------
 * The state word (second of every slot) is USED with REF, or the free list's next link.
 */
#define USED 0x80000000u
#define REF 0x40000000u
#define MAX_SLOTS 0x3fffffffu

static ALWAYS u8 *slot_at(struct tcbpf_map *map, const struct tcbpf_shape *s, u32 index)
{
    return (u8 *)map + s->slots + (u64)index * s->slot_stride;
}

static ALWAYS u32 *state_of(u8 *slot) { return (u32 *)slot + 1; }

/* A free slot's index, or -1. */
static ALWAYS s64 slot_take(struct tcbpf_map *map, const struct tcbpf_shape *s)
{
    u32 index;

    if (map->free) {
        index = map->free - 1;
        map->free = *state_of(slot_at(map, s, index));
    } else if (map->fresh < s->n_slots) {
        index = map->fresh++;
    } else {
        return -1;
    }
    *state_of(slot_at(map, s, index)) = USED;
    return index;
}

static ALWAYS void slot_give(struct tcbpf_map *map, const struct tcbpf_shape *s, u32 index)
{
    *state_of(slot_at(map, s, index)) = map->free;
    map->free = index + 1;
}

/* Put on the free list every slot that repair did not mark USED. */
static void slots_sweep(struct tcbpf_map *map, const struct tcbpf_shape *s)
{
    u32 end = min_u32(map->fresh, s->n_slots);

    map->fresh = end;
    map->free = 0;
    for (u32 i = end; i-- > 0;)
        if (!(*state_of(slot_at(map, s, i)) & USED))
            slot_give(map, s, i);
}

static void slots_clear(struct tcbpf_map *map, const struct tcbpf_shape *s)
{
    for (u32 i = 0; i < min_u32(map->fresh, s->n_slots); i++)
        *state_of(slot_at(map, s, i)) = 0;
}

/* --- values ---------------------------------------------------------------------------------------------------------- */
static ALWAYS u32 this_cpu(struct tcbpf_env *env, const struct tcbpf_shape *s)
{
    return env->cpu < s->cpus ? env->cpu : 0;
}

static ALWAYS u8 *value_of(struct tcbpf_env *env, const struct tcbpf_shape *s, u8 *slot)
{
    return slot + s->value_off + (is_per_cpu(s) ? (u64)this_cpu(env, s) * s->value_stride : 0);
}

/* Write a value into a slot that is not visible yet. Of a per-CPU value a program writes this CPU's copy, zeroing the others of a
 * new element; user space writes all copies.
 */
static ALWAYS void value_put(struct tcbpf_env *env, const struct tcbpf_shape *s, u8 *slot, const void *value, enum by by,
                             int is_new)
{
    u8 *at = slot + s->value_off;

    if (!is_per_cpu(s)) {
        value_copy(env, s, at, value, 0);
        if (s->spin_lock)
            *spin_of(s, at) = 0;
    } else if (by == BY_USER) {
        memcpy(at, value, (u64)s->value_stride * s->cpus);
    } else {
        if (is_new)
            memset(at, 0, (u64)s->value_stride * s->cpus);
        memcpy(value_of(env, s, slot), value, s->value_size);
    }
}

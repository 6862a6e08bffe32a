/* Perf event arrays: one ring of records for each CPU, open while somebody reads it.
 *
 * Only the slot of the CPU that a program runs on takes its events, as an event bound to a CPU does. A record is its length in
 * eight bytes and its data, both whole multiples of eight; it may cross the end of the ring.
 */
#include "types.h"

enum { PERF_MAX = 0xff00 };
#define PERF_CURRENT_CPU 0xffffffffu
#define PERF_INDEX 0xffffffffull
#define PERF_CTXLEN 0xfffff00000000ull

static ALWAYS struct tcbpf_perf_ring *perf_ring(struct tcbpf_map *map, u32 index)
{
    return (struct tcbpf_perf_ring *)((u8 *)map + map->s.slots) + index;
}

static void perf_copy_in(struct tcbpf_perf_ring *ring, u64 at, const void *from, u32 len)
{
    u32 place = at % TCBPF_PERF_RING, first = min_u32(len, TCBPF_PERF_RING - place);

    memcpy(ring->data + place, from, first);
    memcpy(ring->data, (const u8 *)from + first, len - first);
}

static void perf_copy_out(const struct tcbpf_perf_ring *ring, u64 at, void *to, u32 len)
{
    u32 place = at % TCBPF_PERF_RING, first = min_u32(len, TCBPF_PERF_RING - place);

    memcpy(to, ring->data + place, first);
    memcpy((u8 *)to + first, ring->data, len - first);
}

/* (skb, map, flags: slot and bytes of the packet, data, size) */
HELPER(perf_event_output)
{
    const struct tcbpf_skb *skb = (void *)r1;
    struct tcbpf_map *map = (void *)r2;
    u32 index = (u32)r3, packet = (u32)((r3 & PERF_CTXLEN) >> 32);
    u64 size = (u32)r5 + (u64)packet, kept = round_up(size + 4, 8) - 4, err, zero = 0;

    if (r3 & ~(PERF_INDEX | PERF_CTXLEN))
        return ERR(EINVAL);
    if (packet > skb->u.len)
        return ERR(EFAULT);
    if (index == PERF_CURRENT_CPU)
        index = env->cpu;
    if (index >= map->s.max_entries)
        return ERR(E2BIG);
    if (index >= map->s.n_slots || !acquire32(&perf_ring(map, index)->open))
        return ERR(ENOENT);
    if (index != env->cpu)
        return ERR(EOPNOTSUPP);
    if (size > PERF_MAX)
        return ERR(E2BIG);
    err = lock(env, map);
    if (err)
        return err;
    struct tcbpf_perf_ring *ring = perf_ring(map, index);
    if (ring->tail - ring->head + kept + 12 > TCBPF_PERF_RING) {
        ring->lost++;
        err = ERR(ENOSPC);
    } else {
        u64 at = ring->tail;

        perf_copy_in(ring, at, &kept, 8);
        perf_copy_in(ring, at + 8, (void *)r4, (u32)r5);
        perf_copy_in(ring, at + 8 + (u32)r5, skb->data, packet);
        perf_copy_in(ring, at + 8 + size, &zero, (u32)(kept - size));
        __atomic_store_n(&ring->tail, at + 12 + kept, __ATOMIC_RELEASE);
    }
    unlock(map);
    return err;
}

/* Take the next record of a slot: its length, or -EAGAIN when there is none. With `room` too small it stays. */
s64 tcbpf_user_perf_take(struct tcbpf_env *env, struct tcbpf_map *map, u32 index, void *to, u64 room)
{
    struct tcbpf_perf_ring *ring;
    u64 size;

    if (map->s.type != MAP_PERF_EVENT_ARRAY || index >= map->s.n_slots)
        return -EINVAL;
    ring = perf_ring(map, index);
    if (lock(env, map))
        return -EBUSY;
    if (ring->head == ring->tail) {
        size = (u64)-EAGAIN;
    } else {
        perf_copy_out(ring, ring->head, &size, 8);
        if (size <= room) {
            perf_copy_out(ring, ring->head + 8, to, (u32)size);
            __atomic_store_n(&ring->head, ring->head + 12 + size, __ATOMIC_RELEASE);
        }
    }
    unlock(map);
    return (s64)size;
}

/* Start (open != 0) or end reading a slot. */
s64 tcbpf_user_perf_open(struct tcbpf_env *env, struct tcbpf_map *map, u32 index, u32 open)
{
    struct tcbpf_perf_ring *ring;

    if (map->s.type != MAP_PERF_EVENT_ARRAY || index >= map->s.n_slots)
        return -EINVAL;
    ring = perf_ring(map, index);
    if (lock(env, map))
        return -EBUSY;
    ring->lost = open ? 0 : ring->lost;
    ring->head = ring->tail;
    publish32(&ring->open, open);
    unlock(map);
    return 0;
}

#define perf_check ids_check

static s64 perf_plan(struct tcbpf_shape *s)
{
    s->n_slots = min_u32(s->max_entries, s->cpus);
    return (s64)(s->slots + s->n_slots * sizeof(struct tcbpf_perf_ring));
}

#define perf_copy refuse_ENOTSUPP
#define perf_update refuse_EINVAL
#define perf_delete refuse_ENOENT
#define perf_next_key array_next_key
#define perf_take refuse_ENOTSUPP

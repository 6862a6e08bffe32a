/* Ring buffers: records of any size, in the order of their reservation, from programs to whoever reads the map.
 *
 * map->head is what was read, tail what was reserved, pending what may still be unfinished: bytes since the start. A record is
 * {length and marks, place of the map, data}, whole in one piece: one that crosses the end of the ring goes on in a second
 * half of the file that nothing else uses. Wake-ups need no flags: readers look.
 */
#include "types.h"

enum { RING_HEADER = 8, RING_BUSY = 1u << 31, RING_DISCARD = 1u << 30, RING_WAKEUP_FLAGS = 3 };
enum { RING_AVAIL_DATA, RING_SIZE, RING_CONS_POS, RING_PROD_POS };
#define RING_MAX_RECORD (0xffffffffu / 4)

static ALWAYS u64 load_acquire(const u64 *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static ALWAYS u8 *ring_place(struct tcbpf_map *map, u64 at) { return (u8 *)map + map->s.slots + (at & (map->s.max_entries - 1)); }
static ALWAYS u64 ring_length(u32 marked) { return round_up((marked & ~(u32)(RING_BUSY | RING_DISCARD)) + RING_HEADER, 8); }

static void *ring_reserve(struct tcbpf_env *env, struct tcbpf_map *map, u64 size)
{
    u64 len = round_up(size + RING_HEADER, 8), end, ring = map->s.max_entries;
    u8 *record = NULL;

    if (size > RING_MAX_RECORD || len > ring || lock(env, map))
        return NULL;
    end = map->tail + len;
    while (map->pending < map->tail) {
        u32 head = acquire32((u32 *)ring_place(map, map->pending));

        if (head & RING_BUSY)
            break;
        map->pending += ring_length(head);
    }
    if (end - load_acquire(&map->head) < ring && end - map->pending < ring) {
        record = ring_place(map, map->tail);
        store32(record + 4, (u32)((u64)(record - (u8 *)map) / 8));
        publish32((u32 *)record, (u32)size | RING_BUSY);
        __atomic_store_n(&map->tail, end, __ATOMIC_RELEASE);
    }
    unlock(map);
    return record ? record + RING_HEADER : NULL;
}

static void ring_commit(u8 *data, int discard)
{
    u32 *head = (u32 *)(data - RING_HEADER);

    publish32(head, (*head & ~(u32)RING_BUSY) | (discard ? RING_DISCARD : 0));
}

/* (map, size, flags): the record's memory, or NULL. */
HELPER(ringbuf_reserve) { return r3 ? 0 : (u64)ring_reserve(env, (struct tcbpf_map *)r1, r2); }

/* (record, flags) */
HELPER(ringbuf_submit)
{
    ring_commit((u8 *)r1, 0);
    return 0;
}

HELPER(ringbuf_discard)
{
    ring_commit((u8 *)r1, 1);
    return 0;
}

/* (map, data, size, flags) */
HELPER(ringbuf_output)
{
    u8 *record;

    if (r4 & ~(u64)RING_WAKEUP_FLAGS)
        return ERR(EINVAL);
    record = ring_reserve(env, (struct tcbpf_map *)r1, r3);
    if (!record)
        return ERR(EAGAIN);
    memcpy(record, (void *)r2, r3);
    ring_commit(record, 0);
    return 0;
}

/* (map, what) */
HELPER(ringbuf_query)
{
    const struct tcbpf_map *map = (struct tcbpf_map *)r1;
    u64 head = load_acquire(&map->head), tail = load_acquire(&map->tail);

    switch (r2) {
    case RING_AVAIL_DATA: return tail - head;
    case RING_SIZE: return map->s.max_entries;
    case RING_CONS_POS: return head;
    case RING_PROD_POS: return tail;
    default: return 0;
    }
}

/* Take the next record: its length, or -EAGAIN when there is none that is finished. With `to` NULL, or too small, it stays. */
s64 tcbpf_user_ring_take(struct tcbpf_env *env, struct tcbpf_map *map, void *to, u64 room)
{
    s64 size = -EAGAIN;

    if (map->s.type != MAP_RINGBUF)
        return -EINVAL;
    if (lock(env, map))
        return -EBUSY;
    while (map->head < map->tail) {
        u8 *record = ring_place(map, map->head);
        u32 head = acquire32((u32 *)record);
        int whole = !(head & RING_DISCARD);

        if (head & RING_BUSY)
            break;
        if (whole && (!to || head > room)) {
            size = head;
            break;
        }
        if (whole)
            memcpy(to, record + RING_HEADER, head);
        __atomic_store_n(&map->head, map->head + ring_length(head), __ATOMIC_RELEASE);
        if (whole) {
            size = head;
            break;
        }
    }
    unlock(map);
    return size;
}

static s64 ring_check(const struct tcbpf_shape *s)
{
    u32 size = s->max_entries;

    return s->key_size || s->value_size || !size || size & (size - 1) || size % PAGE ? -EINVAL : 0;
}

static s64 ring_plan(struct tcbpf_shape *s) { return (s64)(s->slots + 2 * (u64)s->max_entries); }

#define ring_copy refuse_ENOTSUPP
#define ring_update refuse_ENOTSUPP
#define ring_delete refuse_ENOTSUPP
#define ring_next_key refuse_ENOTSUPP
#define ring_take refuse_ENOTSUPP

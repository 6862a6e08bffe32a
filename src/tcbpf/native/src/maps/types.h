/* The map types of the runtime, one row each; every switch over a map's type is expanded from them.
 *
 * To add a type: a row here, a row in tables/maps.py, and a file with the operations that the row names:
 *   kind      its file, and what user space may do: kind_check, kind_plan, kind_copy, kind_update, kind_delete, kind_next_key,
 *             kind_take
 *   elements  what a program does by key: elements_lookup, elements_update, elements_delete
 *   values    what a program does without a key: values_push, values_pop, values_peek
 *   walk      walk_each, one element after another, and walk_at_cpu, another CPU's value
 *   slots     slots_repair, after a writer died
 * `no` refuses everything in its column, and what is not a row is refused everywhere.
 */
#ifndef TCBPF_MAP_TYPES_H
#define TCBPF_MAP_TYPES_H

#include "../base.h"

enum { PER_CPU = 1, CPU_RINGS = 2, LRU = 4 };          /* a value for each CPU; a ring for each CPU; drops its oldest */

/*       name              number traits           kind       elements     values  walk   slots */
#define MAP_TYPES(TYPE) \
    TYPE(HASH,             1,     0,               hash,      hash,        no,     hash,  hash) \
    TYPE(ARRAY,            2,     0,               array,     array,       no,     array, no) \
    TYPE(PROG_ARRAY,       3,     0,               ids,       no,          no,     no,    no) \
    TYPE(PERF_EVENT_ARRAY, 4,     CPU_RINGS,       perf,      no,          no,     no,    no) \
    TYPE(PERCPU_HASH,      5,     PER_CPU,         hash,      hash,        no,     hash,  hash) \
    TYPE(PERCPU_ARRAY,     6,     PER_CPU,         array,     array,       no,     array, no) \
    TYPE(LRU_HASH,         9,     LRU,             hash,      hash,        no,     hash,  hash) \
    TYPE(LRU_PERCPU_HASH,  10,    LRU | PER_CPU,   hash,      hash,        no,     hash,  hash) \
    TYPE(LPM_TRIE,         11,    0,               lpm,       lpm,         no,     no,    lpm) \
    TYPE(ARRAY_OF_MAPS,    12,    0,               ids,       inner_array, no,     no,    no) \
    TYPE(HASH_OF_MAPS,     13,    0,               hash_maps, inner_hash,  no,     hash,  hash) \
    TYPE(QUEUE,            22,    0,               queue,     no,          queue,  no,    no) \
    TYPE(STACK,            23,    0,               queue,     no,          queue,  no,    no) \
    TYPE(SK_STORAGE,       24,    0,               storage,   no,          no,     no,    no) \
    TYPE(RINGBUF,          27,    0,               ring,      no,          no,     no,    no) \
    TYPE(BLOOM_FILTER,     30,    0,               bloom,     no,          bloom,  no,    no)

/* What the columns `kind` and `elements` may name: one case for all types that share a body, since it is inlined there. */
#define MAP_KINDS(KIND) \
    KIND(hash) KIND(array) KIND(ids) KIND(perf) KIND(lpm) KIND(hash_maps) KIND(queue) KIND(storage) KIND(ring) KIND(bloom)
#define MAP_ELEMENTS(ELEMENTS) ELEMENTS(no) ELEMENTS(hash) ELEMENTS(array) ELEMENTS(lpm) ELEMENTS(inner_array) ELEMENTS(inner_hash)

#define NUMBER(NAME, number, ...) MAP_##NAME = (number),
enum tcbpf_map_type { MAP_TYPES(NUMBER) };
#undef NUMBER

#define KIND(name) KIND_##name,
enum tcbpf_map_kind { MAP_KINDS(KIND) KIND_none };
#undef KIND

#define ELEMENTS(name) ELEMENTS_##name,
enum tcbpf_map_elements { MAP_ELEMENTS(ELEMENTS) };
#undef ELEMENTS

enum { BPF_ANY, BPF_NOEXIST, BPF_EXIST, BPF_F_LOCK = 4 };                  /* of an update */
enum { BPF_F_NO_PREALLOC = 1 << 0, BPF_F_RDONLY = 1 << 3, BPF_F_WRONLY = 1 << 4 };      /* of a map */
enum by { BY_PROGRAM, BY_USER };

static ALWAYS u32 traits_of(const struct tcbpf_shape *s)
{
    switch (s->type) {
#define TRAITS(NAME, number, traits, ...) case MAP_##NAME: return traits;
    MAP_TYPES(TRAITS)
#undef TRAITS
    default: return 0;
    }
}

static ALWAYS enum tcbpf_map_kind kind_of(const struct tcbpf_shape *s)
{
    switch (s->type) {
#define KIND(NAME, number, traits, kind, ...) case MAP_##NAME: return KIND_##kind;
    MAP_TYPES(KIND)
#undef KIND
    default: return KIND_none;
    }
}

static ALWAYS enum tcbpf_map_elements elements_of(const struct tcbpf_shape *s)
{
    switch (s->type) {
#define ELEMENTS(NAME, number, traits, kind, elements, ...) case MAP_##NAME: return ELEMENTS_##elements;
    MAP_TYPES(ELEMENTS)
#undef ELEMENTS
    default: return ELEMENTS_no;
    }
}

static ALWAYS int is_per_cpu(const struct tcbpf_shape *s) { return (traits_of(s) & PER_CPU) != 0; }
static ALWAYS int is_lru(const struct tcbpf_shape *s) { return (traits_of(s) & LRU) != 0; }

/* An operation that a type lacks: named where a function is named, whatever its arguments. */
#define refuse_EINVAL(...) (-EINVAL)
#define refuse_ENOENT(...) (-ENOENT)
#define refuse_EOPNOTSUPP(...) (-EOPNOTSUPP)
#define refuse_ENOTSUPP(...) (-ENOTSUPP)

#define no_lookup(...) NULL
#define no_update refuse_EINVAL
#define no_delete refuse_EINVAL
#define no_push refuse_EOPNOTSUPP
#define no_pop refuse_EOPNOTSUPP
#define no_peek refuse_EOPNOTSUPP
#define no_each(...) 0
#define no_at_cpu(...) NULL
#define no_repair(...) ((void)0)

#endif

/* Local storage of sockets: there are no sockets here, so that the map is created, found, and always empty. */
#include "types.h"

static s64 storage_check(const struct tcbpf_shape *s)
{
    return s->max_entries || s->key_size != 4 || !s->value_size ? -EINVAL : 0;
}

static s64 storage_plan(struct tcbpf_shape *s) { return (s64)s->slots; }

#define storage_copy refuse_ENOENT
#define storage_update refuse_EOPNOTSUPP
#define storage_delete refuse_ENOENT
#define storage_next_key refuse_ENOTSUPP
#define storage_take refuse_ENOTSUPP

/* Which helpers there are: the user datapath refuses a program that names another. */
#include "base.h"

#define HAVE(name, id) {#name, id, 0, tcbpf_helper_##name}

const struct tcbpf_helper tcbpf_helpers[] = {
    HAVE(map_lookup_elem, 1),
    HAVE(map_update_elem, 2),
    HAVE(map_delete_elem, 3),
    HAVE(ktime_get_ns, 5),
    HAVE(get_prandom_u32, 7),
    HAVE(get_smp_processor_id, 8),
    HAVE(get_numa_node_id, 42),
    HAVE(map_push_elem, 87),
    HAVE(map_pop_elem, 88),
    HAVE(map_peek_elem, 89),
    HAVE(jiffies64, 118),
    HAVE(ktime_get_boot_ns, 125),
    HAVE(ktime_get_coarse_ns, 160),
    HAVE(map_lookup_percpu_elem, 195),
    HAVE(ktime_get_tai_ns, 208),
    {NULL, 0, 0, NULL},
};

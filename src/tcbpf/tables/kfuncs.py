"""The kernel functions that programs may call by name (kfuncs): prototype, flags, callers, one row each.

Prototypes and flags come from the running kernel (uapi.kfuncs); this table adds the release that introduced each function.
Kfuncs are found by name, unlike helpers, and may differ between kernels. The suffix of an argument's name selects its check:
"__sz" is the size of the memory before it, "__k" a constant, "__uninit" is filled, "__nullable" may be NULL, "__ign" unread.

Source:  Documentation/bpf/kfuncs.rst; BTF_KFUNCS_START() sets in kernel/bpf/helpers.c and net/ (v6.18).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import count
from typing import Final

from tcbpf.tables.row import Release, Table
from tcbpf.uapi.kfuncs import KFUNCS as LIVE


@dataclass(frozen=True, slots=True)
class Param:
    """One parameter, or the result: the C type without qualifiers, and the name."""

    type: str                                  # "struct bpf_iter_num *", "u32"
    name: str = ""

    @property
    def pointer(self) -> bool:
        """Whether it is a pointer."""
        return self.type.endswith("*")

    @property
    def target(self) -> str:
        """What a pointer points to: "struct bpf_iter_num", "void", "callback"."""
        return self.type.removesuffix("*").rstrip()

    def ends(self, suffix: str) -> bool:
        """Tell whether the name has an ending that says how it is checked."""
        return self.name.endswith(suffix)


@dataclass(frozen=True, slots=True)
class Kfunc:
    """One kernel function. Defaults fail closed: a row that names no program type can be called by none.

    Units:   `flags` are the words of KF_*, without KF_.
    """

    name: str
    ret: Param
    params: tuple[Param, ...]
    number: int                                # its place in the table; the kernel's BTF id differs from kernel to kernel
    flags: frozenset[str] = frozenset()
    progs: frozenset[str] = frozenset()
    callback: str = ""                         # calls a function of the program: "sync" before it returns, "async" later
    since: Release = (99, 0)

    def has(self, flag: str) -> bool:
        """Tell whether it has a KF_ flag."""
        return flag in self.flags


_SINCE: Final[dict[Release, str]] = {
    (5, 18): "bpf_skb_ct_lookup bpf_xdp_ct_lookup bpf_ct_release",
    (6, 0): "bpf_kfunc_call_test_release bpf_kfunc_call_memb_release bpf_skb_ct_alloc bpf_xdp_ct_alloc bpf_ct_insert_entry "
            "bpf_ct_set_timeout bpf_ct_change_timeout bpf_ct_set_status bpf_ct_change_status",
    (6, 1): "bpf_ct_set_nat_info bpf_lookup_user_key bpf_lookup_system_key bpf_key_put",
    (6, 2): "bpf_cast_to_kern_ctx bpf_rdonly_cast bpf_rcu_read_lock bpf_rcu_read_unlock bpf_obj_new_impl bpf_obj_drop_impl "
            "bpf_list_push_front_impl bpf_list_push_back_impl bpf_list_pop_front bpf_list_pop_back bpf_task_acquire "
            "bpf_task_release bpf_task_from_pid bpf_cgroup_acquire bpf_cgroup_release bpf_cgroup_ancestor",
    (6, 3): "bpf_rbtree_add_impl bpf_rbtree_remove bpf_rbtree_first bpf_xdp_metadata_rx_hash bpf_xdp_metadata_rx_timestamp",
    (6, 4): "bpf_iter_num_new bpf_iter_num_next bpf_iter_num_destroy bpf_dynptr_from_skb bpf_dynptr_from_xdp bpf_dynptr_slice "
            "bpf_dynptr_slice_rdwr bpf_refcount_acquire_impl bpf_cgroup_from_id",
    (6, 5): "bpf_dynptr_adjust bpf_dynptr_is_null bpf_dynptr_is_rdonly bpf_dynptr_size bpf_dynptr_clone bpf_task_under_cgroup",
    (6, 6): "bpf_map_sum_elem_count",
    (6, 7): "bpf_sock_addr_set_sun_path bpf_throw bpf_percpu_obj_new_impl bpf_percpu_obj_drop_impl bpf_iter_task_vma_new "
            "bpf_iter_task_vma_next bpf_iter_task_vma_destroy bpf_iter_css_task_new bpf_iter_css_task_next "
            "bpf_iter_css_task_destroy bpf_iter_css_new bpf_iter_css_next bpf_iter_css_destroy bpf_iter_task_new "
            "bpf_iter_task_next bpf_iter_task_destroy",
    (6, 8): "bpf_task_get_cgroup1 bpf_xdp_metadata_rx_vlan_tag bpf_xdp_get_xfrm_state bpf_xdp_xfrm_state_release",
    (6, 9): "bpf_sk_assign_tcp_reqsk bpf_arena_alloc_pages bpf_arena_free_pages",
    (6, 10): "bpf_modify_return_test_tp bpf_preempt_disable bpf_preempt_enable bpf_wq_init bpf_wq_set_callback_impl "
             "bpf_wq_start bpf_crypto_encrypt bpf_crypto_decrypt",
    (6, 11): "bpf_iter_bits_new bpf_iter_bits_next bpf_iter_bits_destroy",
    (6, 12): "bpf_copy_from_user_str",
    (6, 13): "bpf_send_signal_task bpf_get_kmem_cache bpf_iter_kmem_cache_new bpf_iter_kmem_cache_next "
             "bpf_iter_kmem_cache_destroy",
    (6, 14): "bpf_sock_ops_enable_tx_tstamp bpf_local_irq_save bpf_local_irq_restore bpf_task_from_vpid",
    (6, 15): "bpf_dynptr_copy bpf_res_spin_lock bpf_res_spin_unlock bpf_res_spin_lock_irqsave bpf_res_spin_unlock_irqrestore "
             "bpf_copy_from_user_task_str",
    (6, 16): "bpf_rbtree_root bpf_rbtree_left bpf_rbtree_right bpf_list_front bpf_list_back bpf_probe_read_user_dynptr "
             "bpf_probe_read_kernel_dynptr bpf_probe_read_user_str_dynptr bpf_probe_read_kernel_str_dynptr "
             "bpf_copy_from_user_dynptr bpf_copy_from_user_str_dynptr bpf_copy_from_user_task_dynptr "
             "bpf_copy_from_user_task_str_dynptr bpf_iter_dmabuf_new bpf_iter_dmabuf_next bpf_iter_dmabuf_destroy __bpf_trap",
    (6, 17): "bpf_strcmp bpf_strchr bpf_strchrnul bpf_strnchr bpf_strrchr bpf_strlen bpf_strnlen bpf_strspn bpf_strcspn "
             "bpf_strstr bpf_strnstr bpf_dynptr_memset bpf_stream_vprintk_impl bpf_cgroup_read_xattr bpf_arena_reserve_pages",
    (6, 18): "bpf_dynptr_from_skb_meta bpf_xdp_pull_data bpf_strcasecmp bpf_task_work_schedule_signal_impl "
             "bpf_task_work_schedule_resume_impl",
}
_CALLBACKS: Final = {"bpf_rbtree_add_impl": "sync", "bpf_wq_set_callback_impl": "async"}
_RELEASES: Final = {name: release for release, names in _SINCE.items() for name in names.split()}
_PROTO: Final = re.compile(r"(.*\S) ?\((.*)\)")
_PARAM: Final = re.compile(r"(.*?)(\w+)")


def _param(text: str) -> Param:
    match = _PARAM.fullmatch(text)
    assert match is not None, text
    return Param(match[1].strip(), match[2])


def _row(number: int, name: str, proto: str, flags: str, progs: str) -> Kfunc:
    match = _PROTO.fullmatch(proto)
    assert match is not None, proto
    params = () if match[2] == "void" else tuple(map(_param, match[2].split(", ")))
    since = _RELEASES.get(name, (99, 0))
    return Kfunc(name, Param(match[1]), params, number, frozenset(flags.split()), frozenset(progs.split()),
                 _CALLBACKS.get(name, ""), since)


_numbers = count()
KFUNCS: Table[Kfunc] = Table(
    *(_row(next(_numbers), name, *rest) for name, rest in LIVE.items()),
    name=lambda row: row.name, number=lambda row: row.number,
)
"""All that the kernel tags as functions for programs, those that the five program types may not call included."""

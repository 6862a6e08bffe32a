"""Objects that programs allocate, in lists and trees and exchanged with maps; our verdict and the live kernel's."""

from __future__ import annotations

from pathlib import Path

import pytest

from tcbpf.datapath.kernel import Kernel
from tcbpf.lang.compiler import VARIABLE
from tcbpf.verifier import verify
from verifier.test_kfuncs import linked, refusal

HEAD = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#define __contains(name, node) __attribute__((btf_decl_tag("contains:" #name ":" #node)))
#define __kptr __attribute__((btf_type_tag("kptr")))
#define private(name) SEC(".data." #name) __attribute__((aligned(8)))
extern void *bpf_obj_new_impl(__u64 id, void *meta) __ksym;
extern void bpf_obj_drop_impl(void *p, void *meta) __ksym;
extern void *bpf_refcount_acquire_impl(void *p, void *meta) __ksym;
extern int bpf_list_push_front_impl(struct bpf_list_head *head, struct bpf_list_node *node, void *meta, __u64 off) __ksym;
extern struct bpf_list_node *bpf_list_pop_front(struct bpf_list_head *head) __ksym;
extern int bpf_rbtree_add_impl(struct bpf_rb_root *root, struct bpf_rb_node *node,
                               _Bool (less)(struct bpf_rb_node *a, const struct bpf_rb_node *b), void *meta, __u64 off) __ksym;
extern struct bpf_rb_node *bpf_rbtree_first(struct bpf_rb_root *root) __ksym;
extern struct bpf_rb_node *bpf_rbtree_remove(struct bpf_rb_root *root, struct bpf_rb_node *node) __ksym;
struct item { __u64 key; struct bpf_list_node list; struct bpf_rb_node tree; struct bpf_refcount count; };
#define NEW(type) ((struct type *)bpf_obj_new_impl(__builtin_btf_type_id(*(struct type *)0, 0), 0))
#define DROP(p) bpf_obj_drop_impl(p, 0)
#define ITEM(p, field) ((struct item *)((void *)(p) - __builtin_offsetof(struct item, field)))
private(A) struct bpf_spin_lock lock;
private(A) struct bpf_list_head list __contains(item, list);
private(A) struct bpf_rb_root tree __contains(item, tree);
private(B) struct bpf_spin_lock other;
struct slot { struct item __kptr *item; };
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, int); __type(value, struct slot); }
    stash SEC(".maps");
static _Bool less(struct bpf_rb_node *a, const struct bpf_rb_node *b) { return ITEM(a, tree)->key < ITEM(b, tree)->key; }
char _license[] SEC("license") = "GPL";
"""
CASES = {
    "an object that is freed": (
        """
        struct item *p = NEW(item); if (!p) return 0; p->key = 1; DROP(p); return 0;""",
        "",
    ),
    "an object that is lost": (
        """
        struct item *p = NEW(item); if (!p) return 0; return p->key & 1;""",
        "Unreleased reference",
    ),
    "an object that may be none": (
        """
        struct item *p = NEW(item); DROP(p); return 0;""",
        "Possibly NULL pointer passed to trusted arg0",
    ),
    "an object used after it was freed": (
        """
        struct item *p = NEW(item); if (!p) return 0; DROP(p); return p->key & 1;""",
        "invalid mem access 'scalar'",
    ),
    "a node touched as data": (
        """
        struct item *p = NEW(item); if (!p) return 0; *(long *)&p->list = 0; DROP(p); return 0;""",
        "direct access to bpf_list_node is disallowed",
    ),
    "beyond the object": (
        """
        struct item *p = NEW(item); if (!p) return 0; ((long *)p)[200] = 0; DROP(p); return 0;""",
        "access beyond struct item at off 1600 size 8",
    ),
    "into a list and out again": (
        """
        struct bpf_list_node *n; struct item *p = NEW(item); if (!p) return 0;
        bpf_spin_lock(&lock); bpf_list_push_front_impl(&list, &p->list, 0, 0); n = bpf_list_pop_front(&list);
        bpf_spin_unlock(&lock);
        if (n) DROP(ITEM(n, list));
        return 0;""",
        "",
    ),
    "into a list without the lock": (
        """
        struct item *p = NEW(item); if (!p) return 0;
        bpf_list_push_front_impl(&list, &p->list, 0, 0); return 0;""",
        "bpf_spin_lock at off=",
    ),
    "into a list under another lock": (
        """
        struct item *p = NEW(item); if (!p) return 0;
        bpf_spin_lock(&other); bpf_list_push_front_impl(&list, &p->list, 0, 0); bpf_spin_unlock(&other);
        return 0;""",
        "held lock and object are not in the same allocation",
    ),
    "a list's node at a wrong place": (
        """
        struct item *p = NEW(item); if (!p) return 0;
        bpf_spin_lock(&lock); bpf_list_push_front_impl(&list, (void *)&p->tree, 0, 0); bpf_spin_unlock(&lock);
        return 0;""",
        "bpf_list_node not found at offset=",
    ),
    "read while the lock is held": (
        """
        __u64 key; struct item *p = NEW(item); if (!p) return 0;
        bpf_spin_lock(&lock); bpf_list_push_front_impl(&list, &p->list, 0, 0); key = p->key; bpf_spin_unlock(&lock);
        return key & 1;""",
        "",
    ),
    "put in twice": (
        """
        struct item *p = NEW(item); if (!p) return 0;
        bpf_spin_lock(&lock);
        bpf_list_push_front_impl(&list, &p->list, 0, 0); bpf_list_push_front_impl(&list, &p->list, 0, 0);
        bpf_spin_unlock(&lock);
        return 0;""",
        "arg#1 expected pointer to allocated object",
    ),
    "into a tree, and the first out": (
        """
        struct bpf_rb_node *n; struct item *p = NEW(item); if (!p) return 0;
        bpf_spin_lock(&lock); bpf_rbtree_add_impl(&tree, &p->tree, less, 0, 0);
        n = bpf_rbtree_first(&tree); if (n) n = bpf_rbtree_remove(&tree, n);
        bpf_spin_unlock(&lock);
        if (n) DROP(ITEM(n, tree));
        return 0;""",
        "",
    ),
    "the first of a tree is only borrowed": (
        """
        struct bpf_rb_node *n; struct item *p = NEW(item); if (!p) return 0;
        DROP(p);
        bpf_spin_lock(&lock); n = bpf_rbtree_first(&tree); bpf_spin_unlock(&lock);
        return n ? ITEM(n, tree)->key & 1 : 0;""",
        "invalid mem access 'scalar'",
    ),
    "counted twice, freed twice": (
        """
        struct item *q, *p = NEW(item); if (!p) return 0;
        q = bpf_refcount_acquire_impl(p, 0); DROP(p); DROP(q); return 0;""",
        "",
    ),
    "counted twice, freed once": (
        """
        struct item *q, *p = NEW(item); if (!p) return 0;
        q = bpf_refcount_acquire_impl(p, 0); DROP(p); return q != 0;""",
        "Unreleased reference",
    ),
    "exchanged with a map": (
        """
        int key = 0; struct slot *s = bpf_map_lookup_elem(&stash, &key); struct item *old, *p = NEW(item);
        if (!s || !p) { if (p) DROP(p); return 0; }
        old = bpf_kptr_xchg(&s->item, p);
        if (old) DROP(old);
        return 0;""",
        "",
    ),
    "what the map gave is kept": (
        """
        int key = 0; struct slot *s = bpf_map_lookup_elem(&stash, &key);
        return s && bpf_kptr_xchg(&s->item, 0);""",
        "Unreleased reference",
    ),
}


@pytest.fixture(autouse=True)
def compiler_with_type_tags(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clang before 15 leaves no type tags in BTF, which say that a pointer is the kernel's to keep."""
    monkeypatch.setenv(VARIABLE, "zig")


@pytest.mark.parametrize("name", CASES)
def test_verdict_and_words(name: str, tmp_path: Path) -> None:
    body, message = CASES[name]
    ours = refusal(lambda: verify(linked(HEAD, body, tmp_path)))
    assert message in ours and bool(message) == bool(ours)  # registers and slots are the compiler's


@pytest.mark.kernel(since=(6, 18))
@pytest.mark.parametrize("name", CASES)
def test_the_kernel_says_the_same(name: str, tmp_path: Path) -> None:
    program = linked(HEAD, CASES[name][0], tmp_path)
    with Kernel() as kernel:
        assert refusal(lambda: kernel.prog_load(program).close()) == refusal(lambda: verify(program))

"""Programs that call kernel functions: iterators, dynptrs, critical sections, exceptions; our verdict and the live kernel's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tcbpf.datapath.kernel import Kernel
from tcbpf.errors import NotSupported, VerifierError
from tcbpf.lang import compile
from tcbpf.obj import Program, link
from tcbpf.verifier import verify

HEAD = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
extern int bpf_iter_num_new(struct bpf_iter_num *it, int start, int end) __ksym;
extern int *bpf_iter_num_next(struct bpf_iter_num *it) __ksym;
extern void bpf_iter_num_destroy(struct bpf_iter_num *it) __ksym;
extern void bpf_preempt_disable(void) __ksym;
extern void bpf_preempt_enable(void) __ksym;
extern void bpf_rcu_read_lock(void) __ksym;
extern void bpf_rcu_read_unlock(void) __ksym;
extern void bpf_local_irq_save(unsigned long *flags) __ksym;
extern void bpf_local_irq_restore(unsigned long *flags) __ksym;
extern void bpf_throw(__u64 cookie) __ksym;
extern int bpf_dynptr_from_skb(struct __sk_buff *skb, __u64 flags, struct bpf_dynptr *ptr) __ksym;
extern void *bpf_dynptr_slice(const struct bpf_dynptr *p, __u32 off, void *buffer, __u32 size) __ksym;
extern void *bpf_dynptr_slice_rdwr(const struct bpf_dynptr *p, __u32 off, void *buffer, __u32 size) __ksym;
extern struct task_struct *bpf_task_from_pid(int pid) __ksym;
extern void bpf_task_release(struct task_struct *p) __ksym;
extern void cubictcp_init(struct sock *sk) __ksym;
char _license[] SEC("license") = "GPL";
"""
CASES = {
    "a loop over an iterator": (
        """
        struct bpf_iter_num it; int *v; long sum = 0;
        bpf_iter_num_new(&it, 0, skb->len);
        while ((v = bpf_iter_num_next(&it))) sum += *v;
        bpf_iter_num_destroy(&it);
        return sum & 1;""",
        "",
    ),
    "an iterator that is not destroyed": (
        """
        struct bpf_iter_num it; bpf_iter_num_new(&it, 0, 9); return 0;""",
        "Unreleased reference",
    ),
    "an iterator that was not made": (
        """
        struct bpf_iter_num it = {}; bpf_iter_num_next(&it); return 0;""",
        "expected an initialized iter_num as arg #0",
    ),
    "an iterator made twice": (
        """
        struct bpf_iter_num it; bpf_iter_num_new(&it, 0, 9); bpf_iter_num_new(&it, 0, 9);
        bpf_iter_num_destroy(&it); return 0;""",
        "expected uninitialized iter_num as arg #0",
    ),
    "an element is at most four bytes": (
        """
        struct bpf_iter_num it; long *v; long sum = 0;
        bpf_iter_num_new(&it, 0, 9);
        while ((v = (long *)bpf_iter_num_next(&it))) sum += *v;
        bpf_iter_num_destroy(&it);
        return sum & 1;""",
        "invalid access to memory, mem_size=4 off=0 size=8",
    ),
    "a slice of the packet": (
        """
        struct bpf_dynptr p; char buf[14]; char *h;
        bpf_dynptr_from_skb(skb, 0, &p);
        h = bpf_dynptr_slice(&p, 0, buf, sizeof(buf));
        return h ? h[13] & 1 : 0;""",
        "",
    ),
    "a slice that may be none": (
        """
        struct bpf_dynptr p; char buf[14]; char *h;
        bpf_dynptr_from_skb(skb, 0, &p);
        h = bpf_dynptr_slice(&p, 0, buf, sizeof(buf));
        return h[13];""",
        "invalid mem access 'rdonly_mem_or_null'",
    ),
    "a slice that is only read": (
        """
        struct bpf_dynptr p; char buf[14]; char *h;
        bpf_dynptr_from_skb(skb, 0, &p);
        h = bpf_dynptr_slice(&p, 0, buf, sizeof(buf));
        if (h) h[0] = 1;
        return 0;""",
        "cannot write into rdonly_mem",
    ),
    "a slice that is written": (
        """
        struct bpf_dynptr p; char buf[14]; char *h;
        bpf_dynptr_from_skb(skb, 0, &p);
        h = bpf_dynptr_slice_rdwr(&p, 0, buf, sizeof(buf));
        if (h) h[0] = 1;
        return 0;""",
        "",
    ),
    "a slice after the packet moved": (
        """
        struct bpf_dynptr p; char buf[14]; char *h;
        bpf_dynptr_from_skb(skb, 0, &p);
        h = bpf_dynptr_slice(&p, 0, buf, sizeof(buf));
        bpf_skb_pull_data(skb, 0);
        return h ? h[13] : 0;""",
        "invalid mem access 'scalar'",
    ),
    "a slice whose buffer is too small": (
        """
        struct bpf_dynptr p; char buf[8]; char *h;
        bpf_dynptr_from_skb(skb, 0, &p);
        h = bpf_dynptr_slice(&p, 0, buf, 14);
        return h ? h[13] : 0;""",
        "invalid read from stack R3 off",
    ),
    "preemption that is not enabled again": (
        """
        bpf_preempt_disable(); return 0;""",
        "BPF_EXIT instruction in main prog cannot be used inside bpf_preempt_disable-ed region",
    ),
    "preemption that was not disabled": (
        """
        bpf_preempt_enable(); return 0;""",
        "unmatched attempt to enable preemption (kernel function bpf_preempt_enable)",
    ),
    "preemption disabled twice": (
        """
        bpf_preempt_disable(); bpf_preempt_disable(); bpf_preempt_enable(); bpf_preempt_enable(); return 0;""",
        "",
    ),
    "a read section in another": (
        """
        bpf_rcu_read_lock(); bpf_rcu_read_lock(); bpf_rcu_read_unlock(); bpf_rcu_read_unlock(); return 0;""",
        "nested rcu read lock (kernel function bpf_rcu_read_lock)",
    ),
    "interrupts restored in order": (
        """
        unsigned long a, b;
        bpf_local_irq_save(&a); bpf_local_irq_save(&b); bpf_local_irq_restore(&b); bpf_local_irq_restore(&a); return 0;""",
        "",
    ),
    "interrupts restored out of order": (
        """
        unsigned long a, b;
        bpf_local_irq_save(&a); bpf_local_irq_save(&b); bpf_local_irq_restore(&a); bpf_local_irq_restore(&b); return 0;""",
        "cannot restore irq state out of order, expected id=2 acquired at insn_idx=",
    ),
    "an exception": (
        """
        if (skb->len > 100) bpf_throw(2); return 0;""",
        "",
    ),
    "an exception with a reference held": (
        """
        struct bpf_iter_num it; bpf_iter_num_new(&it, 0, 9);
        if (skb->len > 100) bpf_throw(2);
        bpf_iter_num_destroy(&it); return 0;""",
        "Unreleased reference",
    ),
    "a task that is given back": (
        """
        struct task_struct *t = bpf_task_from_pid(1); if (t) bpf_task_release(t); return 0;""",
        "",
    ),
    "a task that is kept": (
        """
        struct task_struct *t = bpf_task_from_pid(1); return 0;""",
        "Unreleased reference",
    ),
    "a task that may be none": (
        """
        struct task_struct *t = bpf_task_from_pid(1); bpf_task_release(t); return 0;""",
        "Possibly NULL pointer passed to trusted arg0",
    ),
    "a function that this type may not call": (
        """
        cubictcp_init(0); return 0;""",
        "calling kernel function cubictcp_init is not allowed",
    ),
}


def linked(head: str, body: str, scratch: Path) -> Program:
    """Return a tc program of that body."""
    path = scratch / "prog.c"
    path.write_text(head + f'SEC("tc") int prog(struct __sk_buff *skb)\n{{{body}\n}}\n')
    return link(compile(str(path)))


def program_of(name: str, scratch: Path) -> Program:
    """Return a case as a linked program."""
    return linked(HEAD, CASES[name][0], scratch)


def refusal(load: Callable[[], object]) -> str:
    """Return the words of a refusal, "" when there is none."""
    try:
        load()
    except VerifierError as error:
        return error.message
    return ""


@pytest.mark.parametrize("name", CASES)
def test_verdict_and_words(name: str, tmp_path: Path) -> None:
    program, message = program_of(name, tmp_path), CASES[name][1]
    ours = refusal(lambda: verify(program))
    assert message in ours and bool(message) == bool(ours)  # registers and slots are the compiler's


@pytest.mark.kernel(since=(6, 18))
@pytest.mark.parametrize("name", CASES)
def test_the_kernel_says_the_same(name: str, tmp_path: Path) -> None:
    program = program_of(name, tmp_path)
    with Kernel() as kernel:
        assert refusal(lambda: kernel.prog_load(program).close()) == refusal(lambda: verify(program))


def test_a_function_that_nobody_has_is_named(tmp_path: Path) -> None:
    source = tmp_path / "prog.c"
    source.write_text(HEAD + 'extern int bpf_no_such(void) __ksym;\nSEC("tc") int prog(void *skb) { return bpf_no_such(); }\n')
    with pytest.raises(NotSupported, match="bpf_no_such is neither defined in the object nor a kernel function for programs"):
        link(compile(str(source)))


def test_an_older_kernel_has_fewer(tmp_path: Path) -> None:
    program = program_of("a loop over an iterator", tmp_path)
    assert verify(program, kernel=(6, 6))
    with pytest.raises(VerifierError, match="calling kernel function bpf_iter_num_new is not allowed"):
        verify(program, kernel=(6, 1))

"""Kernel functions that the user datapath has too: the same result on the JIT, the interpreter and the live kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from tcbpf.datapath.kernel import Kernel, probe
from tcbpf.datapath.user import User
from tcbpf.errors import NotSupported
from tcbpf.lang import compile
from tcbpf.obj import Object
from tcbpf.vm.executable import Options

SOURCE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
extern void bpf_preempt_disable(void) __ksym;
extern void bpf_preempt_enable(void) __ksym;
extern void bpf_throw(__u64 cookie) __ksym;
SEC("tc") int sum(struct __sk_buff *skb)
{
    struct bpf_iter_num it;
    int *v, sum = 0, failed = bpf_iter_num_new(&it, skb->mark, skb->priority);
    bpf_preempt_disable();
    bpf_preempt_enable();
    while ((v = bpf_iter_num_next(&it)))
        sum = sum * 3 + *v;
    bpf_iter_num_destroy(&it);
    return failed ? failed : sum;
}
static int table[16];
SEC("tc") int loops(struct __sk_buff *skb)
{
    int i, n = 0;
    bpf_for(i, 0, 16)
        table[i] = i;
    bpf_for(i, 0, 4) bpf_repeat(3)
        n++;
    return n + 100 * table[15] + (bpf_ksym_exists(bpf_iter_num_new) ? 10000 : 0);
}
SEC("tc") int throws(struct __sk_buff *skb) { if (skb->len > 9000) bpf_throw(2); return 0; }
char _license[] SEC("license") = "GPL";
"""


@pytest.fixture(scope="module")
def obj(tmp_path_factory: pytest.TempPathFactory) -> Object:
    source = tmp_path_factory.mktemp("kfuncs") / "sum.c"
    source.write_text(SOURCE)
    return compile(str(source))


def expected(start: int, end: int) -> int:
    if start > end:
        return -22
    if end - start > 8 << 20:
        return -7
    total = 0
    for value in range(start, end):
        total = (total * 3 + value + (1 << 31)) % (1 << 32) - (1 << 31)
    return total


@pytest.mark.parametrize("engine", ["jit", "interp", "kernel"])
def test_a_loop_over_numbers(obj: Object, tmp_path: Path, engine: str) -> None:
    if engine == "kernel" and probe.missing():
        pytest.skip(probe.missing())
    with Kernel() if engine == "kernel" else User(home=str(tmp_path), options=Options(engine=engine)) as dp:
        prog = dp.load(obj, program="sum")
        for start, end in ((0, 0), (0, 1), (3, 40), (5, 4), (0, (8 << 20) + 1), ((1 << 31) - 3, (1 << 31) - 1)):
            assert prog.run(bytes(64), ctx={"mark": start, "priority": end}).verdict == expected(start, end), (start, end)


@pytest.mark.parametrize("engine", ["jit", "interp", "kernel"])
def test_the_loop_macros(obj: Object, tmp_path: Path, engine: str) -> None:
    if engine == "kernel" and probe.missing():
        pytest.skip(probe.missing())
    with Kernel() if engine == "kernel" else User(home=str(tmp_path), options=Options(engine=engine)) as dp:
        assert dp.load(obj, program="loops").run(bytes(64)).verdict == 11512


@pytest.mark.parametrize("engine", ["jit", "interp"])
def test_a_function_that_only_the_kernel_has_is_named(obj: Object, tmp_path: Path, engine: str) -> None:
    with User(home=str(tmp_path), options=Options(engine=engine)) as dp, pytest.raises(NotSupported, match="bpf_throw"):
        dp.load(obj, program="throws").run(bytes(64))

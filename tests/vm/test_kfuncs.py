"""Kernel functions that the user datapath has too: the same result on the JIT, the interpreter and the live kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from tcbpf.datapath.kernel import Kernel
from tcbpf.datapath.user import User
from tcbpf.errors import NotSupported
from tcbpf.lang import compile
from tcbpf.obj import Object
from tcbpf.vm.executable import Options

ENGINES = ["jit", "interp", pytest.param("kernel", marks=pytest.mark.kernel)]
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
extern int bpf_dynptr_from_skb(struct __sk_buff *skb, __u64 flags, struct bpf_dynptr *ptr) __ksym;
extern void *bpf_dynptr_slice(const struct bpf_dynptr *p, __u32 off, void *buffer, __u32 size) __ksym;
extern void *bpf_dynptr_slice_rdwr(const struct bpf_dynptr *p, __u32 off, void *buffer, __u32 size) __ksym;
extern int bpf_dynptr_adjust(const struct bpf_dynptr *p, __u32 start, __u32 end) __ksym;
extern _Bool bpf_dynptr_is_null(const struct bpf_dynptr *p) __ksym;
extern _Bool bpf_dynptr_is_rdonly(const struct bpf_dynptr *p) __ksym;
extern __u32 bpf_dynptr_size(const struct bpf_dynptr *p) __ksym;
extern int bpf_dynptr_clone(const struct bpf_dynptr *p, struct bpf_dynptr *clone) __ksym;
extern int bpf_dynptr_memset(struct bpf_dynptr *p, __u32 off, __u32 size, __u8 val) __ksym;
extern int bpf_dynptr_copy(struct bpf_dynptr *to, __u32 to_off, struct bpf_dynptr *from, __u32 from_off, __u32 size) __ksym;
int log[12];
SEC("tc") int slices(struct __sk_buff *skb)
{
    struct bpf_dynptr whole, part;
    unsigned char room[8], *bytes;
    int *at = log;
    *at++ = bpf_dynptr_from_skb(skb, 0, &whole);
    *at++ = bpf_dynptr_size(&whole) | bpf_dynptr_is_null(&whole) << 16 | bpf_dynptr_is_rdonly(&whole) << 17;
    *at++ = bpf_dynptr_clone(&whole, &part);
    *at++ = bpf_dynptr_adjust(&part, 60, skb->mark);
    *at++ = bpf_dynptr_size(&part);
    bytes = bpf_dynptr_slice(&part, 1, room, 8);
    *at++ = bytes ? bytes[7] : -1;
    bytes = bpf_dynptr_slice_rdwr(&whole, 14, room, 8);
    if (bytes)
        bytes[0] = 0x45;
    *at++ = bpf_dynptr_write(&whole, 20, "abc", 3, 0);
    *at++ = bpf_dynptr_memset(&whole, 24, 2, 0xee);
    *at++ = bpf_dynptr_copy(&whole, 30, &part, 0, 4);
    *at++ = bpf_dynptr_read(room, 4, &whole, 20, 0);
    *at++ = room[1];
    return 0;
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


@pytest.mark.parametrize("engine", ENGINES)
def test_a_loop_over_numbers(obj: Object, tmp_path: Path, engine: str) -> None:
    with Kernel() if engine == "kernel" else User(home=str(tmp_path), options=Options(engine=engine)) as dp:
        prog = dp.load(obj, program="sum")
        for start, end in ((0, 0), (0, 1), (3, 40), (5, 4), (0, (8 << 20) + 1), ((1 << 31) - 3, (1 << 31) - 1)):
            assert prog.run(bytes(64), ctx={"mark": start, "priority": end}).verdict == expected(start, end), (start, end)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_loop_macros(obj: Object, tmp_path: Path, engine: str) -> None:
    with Kernel() if engine == "kernel" else User(home=str(tmp_path), options=Options(engine=engine)) as dp:
        assert dp.load(obj, program="loops").run(bytes(64)).verdict == 11512


@pytest.mark.parametrize("mark", [68, 100, 59, 90])
@pytest.mark.parametrize("engine", ENGINES[1:])
def test_dynamic_pointers_into_a_packet(obj: Object, tmp_path: Path, mark: int, engine: str) -> None:
    results = {}
    for name in ("jit", engine):
        with Kernel() if name == "kernel" else User(home=str(tmp_path), options=Options(engine=name)) as dp:
            run = dp.load(obj, program="slices").run(bytes(range(90)), ctx={"mark": mark})
            results[name] = run.verdict, run.packet, list(dp.maps[".bss"].items())
    first = results["jit"]
    assert first[0] == 0 and first[1][14] == 0x45 and first[1][20:23] == b"abc"
    assert results[engine] == first


@pytest.mark.parametrize("engine", ["jit", "interp"])
def test_a_function_that_only_the_kernel_has_is_named(obj: Object, tmp_path: Path, engine: str) -> None:
    with User(home=str(tmp_path), options=Options(engine=engine)) as dp, pytest.raises(NotSupported, match="bpf_throw"):
        dp.load(obj, program="throws").run(bytes(64))

"""A global function is verified on its own when BTF tells its arguments; without BTF, as part of its caller."""

from __future__ import annotations

from tcbpf.isa import assemble
from tcbpf.obj.program import Func, Program
from tcbpf.verifier import verify


def test_a_global_function_without_btf_is_static() -> None:
    insns = assemble("""
        call sub
        exit
        sub: r0 = *(u32 *)(r1 +0)
        exit
    """)
    funcs = (Func(0, "main", 0, True), Func(2, "sub", 0, True))
    verified = verify(Program("main", "sched_cls", insns, funcs=funcs))
    assert [sub.name for sub in verified.subprogs] == ["main", "sub"]

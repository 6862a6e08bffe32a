"""Exceptions: which function handles what bpf_throw() throws, and from where it may be called.

Source:  bpf_find_exception_callback_insn_off(), check_max_stack_depth_subprog(), kernel/bpf/verifier.c (v6.18).
"""

from __future__ import annotations

from typing import Final

from tcbpf.obj.btf import GLOBAL, Kind
from tcbpf.verifier.state.env import Env
from tcbpf.verifier.state.insns import Ins

THROW: Final = "bpf_throw"
TAG: Final = "exception_callback:"


def callback_start(env: Env) -> int:
    """Return the pc of the function that the main function's tag names as its exception callback, 0 for none.

    Raises:  Refused.
    """
    btf, funcs = env.program.btf, env.program.funcs
    if btf is None or not env.has_func_info or not funcs or not funcs[0].type_id:
        return 0
    tags = (tag for component, tag in btf.decl_tags(funcs[0].type_id) if component < 0)
    named = [tag.removeprefix(TAG) for tag in tags if tag.startswith(TAG)]
    if not named:
        return 0
    if len(named) > 1:
        env.refuse("exception_many")
    row = btf.find(named[0], Kind.FUNC)
    if row is None:
        env.refuse("exception_missing", name=named[0])
    if row.linkage != GLOBAL:
        env.refuse("exception_static", name=named[0])
    start = next((func.pc for func in funcs if func.type_id == row.id), 0)
    if not start:
        env.refuse("exception_nowhere")
    return start


def check_thrower(env: Env, ins: Ins, number: int, callers: tuple[int, ...]) -> None:
    """A callback must return to whom it was handed to, so it may not throw, nor may what it calls.

    Raises:  Refused.
    """
    if ins.row.name == THROW and any(env.subprogs[n].is_callback for n in (number, *callers)):
        env.refuse("throw_in_callback", pc=ins.pc, number=number)

"""The last lines of a log: time, stack, and the counts.

Source:  print_verification_stats(), kernel/bpf/verifier.c (v6.18).
"""

from __future__ import annotations

import time
from typing import Final

from tcbpf.tables.insns import Kind
from tcbpf.verifier.state.env import Env
from tcbpf.verifier.state.log import STATS

_LOOP_SAVES: Final = 24  # bytes of stack that an inlined bpf_loop() adds
_MAY_GOTO_COUNTS: Final = 16  # and a may_goto


def _depths(env: Env, *, accepted: bool) -> str:
    """Return the stack of each function: of an accepted program as the kernel rewrites it, without the dead functions."""
    if not accepted:
        return "+".join(str(sub.stack_depth) for sub in env.subprogs)
    depths = []
    for sub in env.subprogs:
        here = [ins for ins in env.ins[sub.start : sub.end] if env.aux[ins.pc].seen]
        if not here and env.capable:
            continue
        depth = sub.stack_depth
        if any(env.loops.get(ins.pc) for ins in here):
            depth += _LOOP_SAVES
        if any(
            ins.kind is Kind.MAY_GOTO and (ins.off or not env.capable) for ins in here
        ):  # one that goes nowhere is taken out
            depth += _MAY_GOTO_COUNTS
        depths.append(str(depth))
    throws = any(kfunc.name == "bpf_throw" and env.aux[pc].seen for pc, kfunc in env.kfunc_at.items())
    if throws and not any(sub.is_exception for sub in env.subprogs):
        depths.append("0")  # the function that the kernel adds to catch what is thrown
    return "+".join(depths)


def write_summary(env: Env, began: int, *, accepted: bool) -> None:
    """Write the last lines of a log: time and stack when the level asks for them, and what was counted.

    Units:   began in nanoseconds of time.perf_counter_ns().
    """
    stats, log = env.stats, env.log
    if log.level & STATS:
        log.line(f"verification time {(time.perf_counter_ns() - began) // 1000} usec")
        log.line(f"stack depth {_depths(env, accepted=accepted)}")
    log.line(
        f"processed {env.processed} insns (limit {env.max_insns}) max_states_per_insn {stats.max_states_per_insn} "
        f"total_states {stats.total_states} peak_states {stats.peak_states} mark_read 0"
    )

"""Registers that may still be read: one data flow pass over the program before any path is followed.

Source:  compute_live_registers(), kernel/bpf/verifier.c (v6.18).
"""

from __future__ import annotations

from tcbpf.tables.helpers import helper_at
from tcbpf.tables.insns import Kind
from tcbpf.verifier.rules.call import is_offered
from tcbpf.verifier.state.env import Env


def compute_live_registers(env: Env) -> None:
    """Fill env.live_regs with the mask of registers that are read at or after each pc before being written."""
    count = len(env.insns)
    live = [0] * count
    predecessors: list[list[int]] = [[] for _ in range(count)]
    for pc, ins in enumerate(env.ins):
        if ins.pc != pc:
            continue
        if ins.kind is Kind.CALL and not ins.src:
            row = helper_at(ins.imm)
            if row is not None and is_offered(env, row):
                ins.uses = ((1 << len(row.args_for(env.type.name))) - 1) << 1
        elif ins.kind is Kind.CALL_KFUNC and env.type.name in ins.row.progs and ins.row.since <= env.kernel:
            ins.uses = ((1 << len(ins.row.params)) - 1) << 1
        for to in ins.successors:
            if 0 <= to < count:
                predecessors[to].append(pc)
    work = list(range(count))
    queued = bytearray(b"\1" * count)
    while work:
        pc = work.pop()
        queued[pc] = 0
        ins = env.ins[pc]
        after = 0
        for to in ins.successors:
            if 0 <= to < count:
                after |= live[to]
        before = (after & ~ins.defs) | ins.uses
        if before != live[pc]:
            live[pc] = before
            for back in predecessors[pc]:
                if not queued[back]:
                    queued[back] = 1
                    work.append(back)
    env.live_regs = live

"""Packet loads of classic BPF: LD_ABS and LD_IND.

Source:  check_ld_abs(), kernel/bpf/verifier.c (v6.18).
"""

from __future__ import annotations

from tcbpf.tables.insns import Kind
from tcbpf.verifier.memory.memory import check_unmoved
from tcbpf.verifier.paths.paths import push_path
from tcbpf.verifier.rules.exit import check_nothing_held
from tcbpf.verifier.rules.subprog import return_to_caller
from tcbpf.verifier.state.env import Env
from tcbpf.verifier.state.insns import Ins
from tcbpf.verifier.state.state import NO_REG, REG_FP, UNKNOWN_REG, ZERO_REG
from tcbpf.verifier.values.types import CTX, NOT_INIT


def load_packet(env: Env, ins: Ins) -> int:
    """r0 = packet[imm] or packet[src + imm]; a packet too short ends the program with 0."""
    regs = env.frame.regs
    if not env.type.ld_abs:
        env.refuse("ld_abs_type")
    if ins.form is not None:
        env.refuse("reserved_ld_abs")
    if regs[6].type == NOT_INIT:
        env.refuse("uninitialized_register", reg=6)
    check_nothing_held(env, "BPF_LD_[ABS|IND]")
    if regs[6].type != CTX:
        env.refuse("ld_abs_ctx")
    if ins.kind is Kind.LD_IND and ins.src > REG_FP:
        env.refuse("register_number", reg=ins.src)
    if ins.kind is Kind.LD_IND and regs[ins.src].type == NOT_INIT:
        env.refuse("uninitialized_register", reg=ins.src)
    check_unmoved(env, 6, regs[6])
    for i in range(1, 6):
        regs[i] = NO_REG
    regs[0] = UNKNOWN_REG
    if len(env.cur.frames) > 1:
        push_path(env, env.cur.copy(), ins.next)
        regs[0] = ZERO_REG
        return return_to_caller(env)
    return ins.next

"""Pointers whose memory is gone: every register and spilled slot that holds one is changed.

Source:  bpf_for_each_reg_in_vstate(), clear_all_pkt_pointers(), invalidate_non_owning_refs(), kernel/bpf/verifier.c (v6.18).
"""

from __future__ import annotations

from collections.abc import Callable

from tcbpf.verifier.state.env import Env
from tcbpf.verifier.state.state import NO_REG, UNKNOWN_REG, Reg, Slot, State
from tcbpf.verifier.values.types import BASE, DYNPTR_PACKETS, MEM, NON_OWN_REF, is_packet_any


def replace_registers(state: State, change: Callable[[Reg], Reg]) -> None:
    """Apply `change` to every register and every spilled one."""
    for frame in state.frames:
        regs = frame.regs
        for i in range(11):
            old = regs[i]
            new = change(old)
            if new is not old:
                regs[i] = new
        stack = frame.stack
        for i, slot in enumerate(stack):
            if slot.reg is not None and slot.spilled:
                new = change(slot.reg)
                if new is not slot.reg:
                    stack[i] = Slot(slot.kinds, new)


def invalid(env: Env) -> Reg:
    """Return what a pointer becomes whose memory is gone: a number to those who may see addresses, nothing to others."""
    return UNKNOWN_REG if env.allow_leaks else NO_REG


def forget_packet(env: Env) -> None:
    """Invalidate every packet pointer: the data may have moved."""
    gone = invalid(env)

    def change(reg: Reg) -> Reg:
        type = reg.type
        if is_packet_any(type) or (type & BASE == MEM and type & DYNPTR_PACKETS):
            return gone
        return reg

    replace_registers(env.cur, change)


def forget_non_owning(env: Env) -> None:
    """Invalidate the pointers that were valid only under the lock that was released."""
    gone = invalid(env)
    replace_registers(env.cur, lambda reg: gone if reg.type & NON_OWN_REF else reg)

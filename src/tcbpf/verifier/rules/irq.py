"""Interrupt flags saved on the stack: restored once, in the reverse order of saving, by the same family of functions.

Source:  process_irq_flag(), acquire_irq_state(), release_irq_state(), kernel/bpf/verifier.c (v6.18).
"""

from __future__ import annotations

from typing import Final

from tcbpf.verifier.memory import stack
from tcbpf.verifier.memory.dynptr import destroy_dynptr, object_slot
from tcbpf.verifier.memory.references import acquire
from tcbpf.verifier.state.env import Env
from tcbpf.verifier.state.state import NO_SLOT, ZERO, Reg, Slot
from tcbpf.verifier.values.types import STACK
from tcbpf.verifier.words.reasons import kernel_words

_SAVES: Final = frozenset(("bpf_local_irq_save", "bpf_res_spin_lock_irqsave"))


def check_irq_flag(env: Env, regno: int, reg: Reg, name: str) -> None:
    """Check the place that a function saves the interrupt flag to, or restores it from.

    Raises:  Refused.
    """
    if reg.type != STACK:
        env.refuse("irq_stack", arg=regno - 1)
    family = "lock" if "spin" in name else "native"
    if name in _SAVES:
        _save(env, regno, reg, family)
    else:
        _restore(env, regno, reg, family)


def _save(env: Env, regno: int, reg: Reg, family: str) -> None:
    spi = object_slot(env, reg, 1, "irq_flag", kernel_words("irq_initialized", arg=regno - 1))
    frame = env.cur.frames[reg.frame]
    if spi < len(frame.stack) and "f" in frame.stack[spi].kinds:
        env.refuse("irq_initialized", arg=regno - 1)
    stack.check_within(env, regno, reg, reg.off, 8, stack.WRITE)
    destroy_dynptr(env, frame, spi)
    env.cur.irq_id = acquire(env, "irq")
    frame.stack[spi] = Slot("ffffffff", Reg(STACK, ZERO, ref=env.cur.irq_id, extra=family))
    env.liveness.write(reg.frame, 1 << spi)
    if env.trace:
        env.trace.slots |= 1 << spi


def _restore(env: Env, regno: int, reg: Reg, family: str) -> None:
    missing = kernel_words("irq_uninitialized", arg=regno - 1)
    spi = object_slot(env, reg, 1, "irq_flag", missing)
    slots = env.cur.frames[reg.frame].stack
    saved = slots[spi].reg if spi < len(slots) and slots[spi].kinds == "ffffffff" else None
    if saved is None:
        env.refuse("irq_uninitialized", arg=regno - 1)
    env.liveness.read(reg.frame, 1 << spi)
    if env.trace:
        env.trace.slots |= 1 << spi
    if saved.irq_class != family:
        env.refuse("irq_family", saved=saved.irq_class, restored=family)
    state = env.cur
    held = [ref for ref in state.refs if ref.kind == "irq"]
    if saved.ref != state.irq_id:
        last = next(ref for ref in held if ref.id == state.irq_id)
        env.refuse("irq_order", id=last.id, pc=last.pc)
    state.refs = tuple(ref for ref in state.refs if ref.kind != "irq" or ref.id != saved.ref)
    state.irq_id = held[-2].id if len(held) > 1 else 0
    slots[spi] = NO_SLOT
    env.liveness.write(reg.frame, 1 << spi)

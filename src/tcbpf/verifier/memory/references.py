"""References: resources that a path holds and must give back.

Source:  acquire_reference(), release_reference(), kernel/bpf/verifier.c (v6.18).
"""

from __future__ import annotations

from typing import Any

from tcbpf.verifier.memory.invalidate import invalid, replace_registers
from tcbpf.verifier.state.env import Env
from tcbpf.verifier.state.state import Ref, State


def acquire(env: Env, kind: str = "ptr", owner: Any = None, id: int | None = None) -> int:
    """Note that the current instruction acquired something, and return its id."""
    if id is None:
        id = env.new_id()
    env.cur.refs = (*env.cur.refs, Ref(id, env.pc, kind, owner))
    return id


def drop_reference(state: State, id: int) -> bool:
    """Forget a reference without touching registers; return whether it was held."""
    kept = tuple(ref for ref in state.refs if not (ref.kind == "ptr" and ref.id == id))
    if len(kept) == len(state.refs):
        return False
    state.refs = kept
    return True


def release(env: Env, id: int) -> bool:
    """Release a reference: no register that stands for it is valid any more. Return whether it was held."""
    if not drop_reference(env.cur, id):
        return False
    gone = invalid(env)
    replace_registers(env.cur, lambda reg: gone if reg.ref == id else reg)
    return True

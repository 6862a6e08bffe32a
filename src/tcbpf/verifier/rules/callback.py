"""Functions that helpers call back: bpf_loop, bpf_for_each_map_elem, timers.

A callback is followed like a call that returns to the helper, which may then call it once more; a round that changes nothing
that matters ends it.

Source:  push_callback_call(), push_async_cb(), set_*_callback_state(), kernel/bpf/verifier.c (v6.18).
"""

from __future__ import annotations

from tcbpf.tables.maps import WALKED
from tcbpf.verifier.memory.graph import borrowed, element
from tcbpf.verifier.paths.paths import push_path
from tcbpf.verifier.rules.subprog import enter
from tcbpf.verifier.state.btf_record import BtfField
from tcbpf.verifier.state.env import Env
from tcbpf.verifier.state.map_info import MapInfo
from tcbpf.verifier.state.state import MAIN_CALLSITE, NO_REG, UNKNOWN_REG, ZERO, Dynptr, Frame, Reg, State
from tcbpf.verifier.values.types import DYNPTR, MAP_KEY, MAP_PTR, MAP_VALUE


def push_callback(env: Env, subprog: int, name: str, *, map: MapInfo | None = None, root: BtfField | None = None) -> None:
    """Follow the callback of a helper on a path of its own; the current path goes on after the helper.

    `map` is what it walks, `root` the tree whose nodes it orders.

    Raises:  Refused.
    """
    env.subprogs[subprog].is_callback = True
    caller = env.frame
    state = env.cur.copy()
    push_path(env, state, env.subprogs[subprog].start)
    callee = enter(env, state, subprog, env.pc)
    args = callee.regs
    if name == "loop":
        args[1], args[2] = UNKNOWN_REG, caller.regs[3]
    elif name == "for_each_map_elem":
        assert map is not None
        if map.type not in WALKED:
            env.refuse("callback_map")
        args[1] = caller.regs[1]
        args[2] = Reg(MAP_KEY, ZERO, extra=map, uid=caller.regs[1].uid)
        args[3] = Reg(MAP_VALUE, ZERO, extra=map, uid=caller.regs[1].uid)
        args[4] = caller.regs[3]
    elif name == "bpf_rbtree_add_impl":
        assert root is not None
        args[1] = args[2] = borrowed(element(env, root))
    elif name == "user_ringbuf_drain":
        args[1] = Reg(DYNPTR, ZERO, id=env.new_id(), extra=Dynptr("local", True))
        args[2] = caller.regs[3]
    else:
        env.refuse("not_supported", what=f"bpf_{name}'s callback")
    callee.in_callback = True
    callee.ret_range = (0, 1)
    state.callback_unroll += 1
    state.frames[-2].callback_depth += 1
    caller.callback_depth = 0


def push_async_callback(env: Env, subprog: int, *, sleepable: bool = False) -> None:
    """Follow a timer's or a work queue's callback as a program of its own, which runs some time later.

    Raises:  Refused.
    """
    env.subprogs[subprog].is_callback = env.subprogs[subprog].is_async = True
    state = State()
    frame = Frame(0, subprog, MAIN_CALLSITE)
    state.frames = [frame]
    if env.trace:
        env.trace.entered()
    timer = env.frame.regs[1]
    map = timer.map
    frame.regs[1] = Reg(MAP_PTR, ZERO, extra=map, uid=timer.uid)
    frame.regs[2] = Reg(MAP_KEY, ZERO, extra=map, uid=timer.uid)
    frame.regs[3] = Reg(MAP_VALUE, ZERO, extra=map, uid=timer.uid)
    frame.regs[4] = frame.regs[5] = NO_REG
    frame.in_async_callback = True
    state.sleepable = sleepable
    frame.async_entry = env.frame.async_entry + 1
    push_path(env, state, env.subprogs[subprog].start)

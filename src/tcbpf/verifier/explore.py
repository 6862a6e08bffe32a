"""The main loop: follow every path of a function, instruction by instruction.

Source:  do_check(), do_check_common(), do_check_main(), do_check_subprogs(), kernel/bpf/verifier.c (v6.18).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from tcbpf.tables.insns import Kind
from tcbpf.tables.opcodes import ARSH, DIV, END, LSH, MOD, MOV, NEG, OPERATION, PSEUDO_FUNC, PSEUDO_MAP_FD, PSEUDO_MAP_IDX, RSH
from tcbpf.verifier.paths.liveness import StackLiveness
from tcbpf.verifier.paths.liveness_log import LoggedLiveness
from tcbpf.verifier.paths.paths import PATH_END, end_path, next_path
from tcbpf.verifier.paths.prune import is_visited, push_step
from tcbpf.verifier.rules import access, alu, call, exit, jump, ld_abs, subprog
from tcbpf.verifier.rules.globals import say_of_main, set_arguments
from tcbpf.verifier.state.env import Env
from tcbpf.verifier.state.insns import Ins
from tcbpf.verifier.state.map_info import MapInfo
from tcbpf.verifier.state.state import MAIN_CALLSITE, REG_FP, ZERO, Frame, Reg, State
from tcbpf.verifier.values.scalar import const
from tcbpf.verifier.values.types import CTX, FUNC, MAP_PTR, MAP_VALUE, NOT_INIT, SCALAR

Run = Callable[[Env, Ins], int]
"""Checks an instruction on the current path; returns the next pc, or PATH_END."""


def check_functions(env: Env) -> None:
    """Follow the main function, then each global function that something called.

    Raises:  Refused.
    """
    runs = [_handler(ins) for ins in env.ins]
    for ins in env.ins:
        ins.k = alu.constant(ins) if ins.kind in (Kind.ALU, Kind.JUMP, Kind.STORE) and not ins.use_reg else None
    env.liveness = LoggedLiveness(env) if env.trace and env.trace.deep else StackLiveness(env)
    check_function(env, 0, runs)
    while True:
        number = next((i for i, s in enumerate(env.subprogs) if s.is_global and s.called and not s.checked), None)
        if number is None:
            return
        check_function(env, number, runs)


def check_function(env: Env, number: int, runs: Sequence[Run]) -> None:
    """Follow every path of one function, from its widest arguments; `runs` holds the check of each instruction.

    Raises:  Refused.
    """
    sub = env.subprogs[number]
    sub.checked = True
    env.reset_paths()
    if env.trace:
        env.trace.start(number)
    state = State()
    frame = Frame(0, number, MAIN_CALLSITE)
    state.frames = [frame]
    state.first_pc = sub.start
    env.cur, env.frame, env.pc, env.prev_pc = state, frame, sub.start, -1
    env.liveness.forget_chain()
    if number and sub.is_global:
        set_arguments(env, sub, frame)
    else:
        frame.regs[1] = Reg(CTX)
        if env.trace:
            say_of_main(env)
    _follow(env, runs)
    if env.trace:
        env.trace.finish(number)


def _follow(env: Env, runs: Sequence[Run]) -> None:
    ins_of, prune, jumps_to = env.ins, env.prune_point, env.jmp_point
    liveness, aux, limit, counts = env.liveness, env.aux, env.max_insns, env.counts
    trace = env.trace
    while True:
        pc = env.pc
        env.step = None
        env.processed += 1
        counts[pc] += 1
        if env.processed > limit:
            env.refuse("too_large", count=env.processed)
        state = env.cur
        state.last_pc = env.prev_pc
        following = PATH_END
        if prune[pc] and is_visited(env, pc):
            if trace:
                trace.safe()
        else:
            if jumps_to[pc]:
                push_step(env, state, 0)
            ins = ins_of[pc]
            if trace:
                trace.before(ins)
            aux[pc].seen = True
            env.jumps += ins.jumps
            frame = env.frame
            following = runs[pc](env, ins)
            if ins.writes_stack and env.frame is frame:
                liveness.commit(pc)
            if trace and ins.kind is Kind.JUMP:
                trace.decided()
        if following >= 0:
            env.prev_pc = pc
            env.pc = following
            continue
        end_path(env)
        if trace:
            trace.leaving()
        if not next_path(env):
            return
        if trace:
            trace.switched()


# --- instructions ------------------------------------------------------------------------------------------------------


def _call_kfunc(env: Env, ins: Ins) -> int:
    from tcbpf.verifier.rules.kfunc import call_kfunc  # and the table behind it: few programs need them

    return call_kfunc(env, ins)


def _handler(ins: Ins) -> Run:
    """Return what checks an instruction on a path."""
    if ins.form is not None and ins.kind not in (Kind.LD_ABS, Kind.LD_IND):
        return _wrong_form
    if ins.kind is Kind.ALU:
        return _alu_handler(ins)
    return _HANDLERS[ins.kind]


def _alu_handler(ins: Ins) -> Run:
    op = ins.code & OPERATION
    if op in (NEG, END):
        return alu.unary
    if op == MOV:
        if not ins.use_reg:
            return alu.mov_imm
        if ins.off:
            return alu.mov_sext
        return alu.mov_reg if ins.width == 64 else alu.mov32_reg
    if ins.use_reg:
        return alu.binary_reg
    if (op in (DIV, MOD) and not ins.imm) or (op in (LSH, RSH, ARSH) and not 0 <= ins.imm < ins.width):
        return alu.binary_amount
    return alu.binary_imm


def _wrong_form(env: Env, ins: Ins) -> int:
    assert ins.form is not None
    reason, facts, before = ins.form
    for reg in before:
        if env.frame.regs[reg].type == NOT_INIT:
            env.refuse("uninitialized_register", reg=reg)
    if reason == "addr_space_cast_arena" and any(map.type == "arena" for map in env.maps):
        env.refuse("not_supported", what="a cast between an arena's address space and the kernel's")
    env.refuse(reason, **facts)


def _goto(env: Env, ins: Ins) -> int:
    return ins.target


def _ld_imm64(env: Env, ins: Ins) -> int:
    """dst = a 64-bit number, a map, a place in a map's value, or a function."""
    if ins.dst == REG_FP:
        env.refuse("frame_pointer_write")
    env.aux[ins.pc + 1].seen = True
    env.frame.regs[ins.dst] = _loaded(env, ins)
    return ins.next


def _loaded(env: Env, ins: Ins) -> Reg:
    high = env.insns[ins.pc + 1].imm
    if ins.src == 0:
        return Reg(SCALAR, const((high & 0xFFFFFFFF) << 32 | ins.imm & 0xFFFFFFFF))
    if ins.src == PSEUDO_FUNC:
        number = env.subprog_at[ins.pc + 1 + ins.imm]
        if not env.has_func_info:
            env.refuse("missing_func_info")
        if env.subprogs[number].is_global:
            env.refuse("callback_not_static")
        return Reg(FUNC, ZERO, extra=number)
    map: MapInfo = env.maps[ins.imm]
    if ins.src in (PSEUDO_MAP_FD, PSEUDO_MAP_IDX):
        return Reg(MAP_PTR, ZERO, extra=map)
    return Reg(MAP_VALUE, ZERO, high & 0xFFFFFFFF, extra=map)


_HANDLERS: Final[dict[Kind, Run]] = {
    Kind.JUMP: jump.jump,
    Kind.JA: _goto,
    Kind.MAY_GOTO: jump.may_goto,
    Kind.CALL: call.helper,
    Kind.CALL_LOCAL: subprog.call_local,
    Kind.CALL_KFUNC: _call_kfunc,
    Kind.EXIT: exit.exit,
    Kind.LD_IMM64: _ld_imm64,
    Kind.LD_ABS: ld_abs.load_packet,
    Kind.LD_IND: ld_abs.load_packet,
    Kind.LOAD: access.load,
    Kind.STORE: access.store,
    Kind.ATOMIC: access.atomic,
}

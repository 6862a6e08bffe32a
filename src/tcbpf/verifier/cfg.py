"""The shape of the program: functions, jumps inside them, reachability, loops, and where paths are worth comparing.

Source:  add_subprog_and_kfunc(), check_subprogs(), resolve_pseudo_ldimm64(), check_cfg(), compute_scc(),
         kernel/bpf/verifier.c (v6.18).
"""

from __future__ import annotations

from itertools import accumulate
from typing import Final

from tcbpf.obj.btf import Kind as BtfKind
from tcbpf.tables.helpers import HELPERS
from tcbpf.tables.insns import Kind
from tcbpf.tables.opcodes import (
    ABS,
    CALL,
    CLASS,
    EXIT,
    IND,
    JMP,
    JMP32,
    LD,
    LD_IMM64,
    LDX,
    MEM,
    MEMSX,
    MODE,
    OPERATION,
    PSEUDO_BTF_ID,
    PSEUDO_CALL,
    PSEUDO_FUNC,
    PSEUDO_KFUNC_CALL,
    PSEUDO_MAP_FD,
    PSEUDO_MAP_IDX,
    PSEUDO_MAP_IDX_VALUE,
    PSEUDO_MAP_VALUE,
)
from tcbpf.verifier.rules.exception import THROW, callback_start
from tcbpf.verifier.state.env import MAX_VAR_OFF, Env, SubInfo
from tcbpf.verifier.state.insns import CODES, Ins, decode_slot

MAX_SUBPROGRAMS: Final = 256
MAX_MAPS: Final = 64
EXIT_CODE: Final = JMP | EXIT


def check_shape(env: Env) -> None:
    """Check all that can be checked without following paths, and fill env with functions, instructions and prune points.

    Raises:  Refused.
    """
    _find_subprograms(env)
    if env.trace:
        env.trace.functions()
    _check_jumps(env)
    _check_without_btf(env)
    _check_opcodes(env)
    _check_reachable(env)
    _find_loops(env)


# --- functions ---------------------------------------------------------------------------------------------------------


def _find_subprograms(env: Env) -> None:
    starts = {0}
    try:
        handler = _find_starts(env, starts)
    finally:
        _make_subprograms(env, sorted(starts))  # of a refused program those found so far, for the log's last lines
    if handler:
        sub = env.subprogs[env.subprog_at[handler]]
        sub.is_exception = sub.is_callback = sub.is_async = sub.called = True


def _find_starts(env: Env, starts: set[int]) -> int:
    """Fill `starts`, and return where the exception handler begins, 0 for none."""
    count = len(env.insns)
    at = 0
    while at < count:
        insn = env.insns[at]
        call = insn.code == JMP | CALL and insn.src in (PSEUDO_CALL, PSEUDO_KFUNC_CALL)
        func = insn.code == LD_IMM64 and insn.src == PSEUDO_FUNC
        if call or func:
            if not env.capable:
                env.refuse("calls_privilege")
            if call and insn.src == PSEUDO_KFUNC_CALL:
                from tcbpf.verifier.rules.kfunc import find  # and the table behind it: few programs need them

                env.kfunc_at[at] = find(env, insn)
            else:
                target = at + 1 + insn.imm
                if not 0 <= target < count:
                    env.refuse("call_destination")
                starts.add(target)
                if len(starts) > MAX_SUBPROGRAMS:
                    env.refuse("too_many_subprograms")
        at += 1
    handler = callback_start(env)
    if handler:
        starts.add(handler)
    return handler


def _make_subprograms(env: Env, ordered: list[int]) -> None:
    count = len(env.insns)
    named = {func.pc: func for func in env.program.funcs}
    for number, (start, end) in enumerate(zip(ordered, [*ordered[1:], count], strict=True)):
        func_row = named.get(start)
        name = func_row.name if func_row else (env.program.name if not start else f"func{number}")
        env.subprogs.append(
            SubInfo(
                start,
                end,
                name,
                func_row.type_id if func_row else 0,
                bool(func_row and func_row.is_global and func_row.type_id),
            )
        )  # no BTF: as static
        env.subprog_at[start] = number


def _check_jumps(env: Env) -> None:
    """Jumps stay in their function, and each function ends with exit or a jump."""
    for sub in env.subprogs:
        for pc in range(sub.start, sub.end):
            insn = env.insns[pc]
            cls, op = insn.code & CLASS, insn.code & OPERATION
            if insn.code == JMP | CALL:
                if insn.src == 0:
                    row = HELPERS.at(insn.imm)
                    if row is not None and row.name == "tail_call":
                        sub.has_tail_call = True
            elif cls in (JMP, JMP32) and op not in (CALL, EXIT):
                to = pc + 1 + (insn.imm if insn.code == JMP32 else insn.off)
                if not sub.start <= to < sub.end:
                    env.refuse("jump_range", pc=pc, to=to)
            elif cls == LD and insn.code & MODE in (ABS, IND):
                sub.has_ld_abs = True
        if env.insns[sub.end - 1].code not in (EXIT_CODE, JMP, JMP32):
            env.refuse("no_exit")


def _check_without_btf(env: Env) -> None:
    btf = env.program.btf
    for sub in env.subprogs[1:]:
        if not sub.has_ld_abs and not sub.has_tail_call:
            continue
        if not env.has_func_info or btf is None or not sub.type_id:
            env.refuse("ld_abs_subprogram" if sub.has_ld_abs else "tail_call_subprogram")
        result = btf[btf[sub.type_id].type].type
        if not result or btf.resolve(result).kind not in (BtfKind.INT, BtfKind.ENUM, BtfKind.ENUM64):
            env.refuse("ld_abs_return" if sub.has_ld_abs else "tail_call_return")


# --- single slots ------------------------------------------------------------------------------------------------------


def _check_opcodes(env: Env) -> None:
    """Every slot is an instruction, 16-byte loads are whole, and the maps they name exist."""
    insns, count = env.insns, len(env.insns)
    used: set[int] = set()
    env.ins = []
    pc = 0
    while pc < count:
        env.pc = pc
        insn = insns[pc]
        if insn.code & CLASS == LDX and (insn.code & MODE not in (MEM, MEMSX) or insn.imm):
            env.refuse("reserved_ldx")
        if insn.code == LD_IMM64:
            if pc + 1 >= count or insns[pc + 1][:4] != (0, 0, 0, 0):
                env.refuse("invalid_ld_imm64")
            _check_map_load(env, pc, used)
            ins = decode_slot(pc, insn)
            env.ins += [ins, ins]
            pc += 2
            continue
        if insn.code not in CODES:
            env.refuse("unknown_opcode", code=insn.code)
        ins = decode_slot(pc, insn)
        ins.row = env.kfunc_at.get(pc, ins.row)
        _check_release(env, ins)
        env.ins.append(ins)
        pc += 1


def _check_map_load(env: Env, pc: int, used: set[int]) -> None:
    insn, high = env.insns[pc], env.insns[pc + 1].imm
    if insn.src in (0, PSEUDO_FUNC):
        return
    if insn.src == PSEUDO_BTF_ID:
        env.refuse("not_supported", what="a kernel symbol's address (BPF_PSEUDO_BTF_ID)")
    value = insn.src in (PSEUDO_MAP_VALUE, PSEUDO_MAP_IDX_VALUE)
    if insn.src not in (PSEUDO_MAP_FD, PSEUDO_MAP_IDX, PSEUDO_MAP_VALUE, PSEUDO_MAP_IDX_VALUE) or (high and not value):
        env.refuse("unrecognized_ld_imm64")
    if not 0 <= insn.imm < len(env.maps):
        env.refuse("map_index", fd=insn.imm)
    map = env.maps[insn.imm]
    if insn.imm not in used:
        used.add(insn.imm)
        if len(used) > MAX_MAPS:
            env.refuse("too_many_maps", limit=MAX_MAPS)
        if map.record and map.record.has("bpf_spin_lock") and env.type.name == "socket_filter":
            env.refuse("lock_socket_filter")
    if value:
        off = high & 0xFFFFFFFF
        if off >= MAX_VAR_OFF:
            env.refuse("direct_value_offset", off=off)
        if map.type not in ("array", "arena"):
            env.refuse("direct_value_type")
        if map.entries != 1:
            env.refuse("direct_value_entries", size=map.value_size, off=off, entries=map.entries)
        if off >= map.value_size:
            env.refuse("direct_value_range", size=map.value_size, off=off)


def _check_release(env: Env, ins: Ins) -> None:
    """Refuse an instruction that the kernel release does not have yet."""
    since = getattr(ins.row, "since", (0, 0))
    if since > env.kernel and ins.kind is not Kind.CALL_KFUNC:
        env.refuse("unknown_opcode", code=ins.code)


# --- reachability and prune points -------------------------------------------------------------------------------------

_DISCOVERED, _EXPLORED = 1, 2


def _check_reachable(env: Env) -> None:
    """Follow every edge once, calls included: all slots are reached, and loops need CAP_BPF."""
    count = len(env.insns)
    edges = [_edges(env, pc) for pc in range(count)]
    state = bytearray(count)
    roots = (0, *(sub.start for sub in env.subprogs if sub.is_exception))
    stack = [(root, 0) for root in reversed(roots)]
    for root in roots:
        state[root] = _DISCOVERED
    while stack:
        pc, done = stack.pop()
        if done == len(edges[pc]):
            state[pc] = _EXPLORED
            continue
        stack.append((pc, done + 1))
        to = edges[pc][done]
        if not 0 <= to < count:
            env.refuse("jump_range", pc=pc, to=to)
        if state[to] == 0:
            state[to] = _DISCOVERED
            stack.append((to, 0))
        elif state[to] == _DISCOVERED and not env.capable:
            env.refuse("back_edge", pc=pc, to=to)
    pc = 0
    while pc < count:
        if state[pc] != _EXPLORED:
            env.refuse("unreachable", pc=pc)
        if env.ins[pc].kind is Kind.LD_IMM64:
            if state[pc + 1]:
                env.refuse("jump_into_ld_imm64", pc=pc)
            pc += 1
        pc += 1


def _edges(env: Env, pc: int) -> tuple[int, ...]:
    """Return where control may go from `pc`, calls included, and mark the points where paths are compared."""
    ins = env.ins[pc]
    kind = ins.kind
    if ins.pc != pc:
        return (ins.next,)  # the second half of a 16-byte load, which no good jump reaches
    if kind is Kind.LD_IMM64:
        if ins.src == PSEUDO_FUNC:
            env.prune_point[ins.next] = env.jmp_point[ins.next] = 1
            callee = pc + 1 + ins.imm
            env.prune_point[pc] = 1
            env.prune_point[callee] = env.jmp_point[callee] = 1
            ins.successors = (ins.next,)
            return ins.next, callee
        ins.successors = (ins.next,)
        return ins.successors
    if kind is Kind.EXIT:
        return ()
    if kind in (Kind.CALL, Kind.CALL_LOCAL, Kind.CALL_KFUNC):
        return _call_edges(env, ins)
    if kind is Kind.JA:
        if 0 <= ins.target < len(env.insns):
            env.prune_point[ins.target] = env.jmp_point[ins.target] = 1
        ins.successors = (ins.target,)
        return ins.successors
    if kind in (Kind.JUMP, Kind.MAY_GOTO):
        env.prune_point[pc] = 1
        if kind is Kind.MAY_GOTO and not ins.src:
            env.force_checkpoint[pc] = 1
        env.prune_point[ins.target] = env.jmp_point[ins.target] = 1
        ins.successors = (pc + 1, ins.target)
        return ins.successors
    ins.successors = (pc + 1,)
    return ins.successors


def _call_edges(env: Env, ins: Ins) -> tuple[int, ...]:
    pc, after = ins.pc, ins.pc + 1
    ins.successors = (after,)
    if after < len(env.insns):
        env.prune_point[after] = env.jmp_point[after] = 1
    if ins.kind is Kind.CALL_LOCAL:
        env.prune_point[pc] = 1
        env.prune_point[ins.target] = env.jmp_point[ins.target] = 1
        return after, ins.target
    if ins.kind is Kind.CALL_KFUNC and ins.row.has("ITER_NEXT"):
        env.prune_point[pc] = env.force_checkpoint[pc] = 1
    row = ins.row if ins.kind is Kind.CALL_KFUNC else HELPERS.at(ins.imm)
    callback = row.callback if row is not None else ""
    if callback == "async":
        env.prune_point[pc] = 1
    elif callback == "sync":
        env.calls_callback[pc] = env.force_checkpoint[pc] = env.prune_point[pc] = env.jmp_point[pc] = 1
    return (after,)


def mark_effects(env: Env) -> None:
    """Find which functions may move packet data or sleep, themselves or through a callee."""
    calls: dict[int, set[int]] = {}
    for number, sub in enumerate(env.subprogs):
        calls[number] = set()
        for pc in range(sub.start, sub.end):
            ins = env.ins[pc]
            if ins.kind is Kind.CALL:
                row = HELPERS.at(ins.imm)
                if row is not None:
                    sub.changes_packet |= row.changes_data or row.callee_changes_data
                    sub.might_sleep |= row.might_sleep and env.type.name in row.progs
            elif ins.kind is Kind.CALL_LOCAL:
                calls[number].add(env.subprog_at[ins.target])
            elif ins.kind is Kind.LD_IMM64 and ins.src == PSEUDO_FUNC and ins.pc == pc:
                calls[number].add(env.subprog_at[pc + 1 + ins.imm])
            elif ins.kind is Kind.CALL_KFUNC:
                sub.changes_packet |= ins.row.name == "bpf_xdp_pull_data"
                sub.might_sleep |= ins.row.has("SLEEPABLE") and env.type.name in ins.row.progs
    changed = True
    while changed:
        changed = False
        for number, callees in calls.items():
            sub = env.subprogs[number]
            before = sub.changes_packet, sub.might_sleep
            for callee in callees:
                sub.changes_packet |= env.subprogs[callee].changes_packet
                sub.might_sleep |= env.subprogs[callee].might_sleep
            changed |= before != (sub.changes_packet, sub.might_sleep)


def check_addresses(env: Env) -> None:
    """Every function whose address a path loads is still found once the kernel has taken out what no path reaches.

    A function that no path enters goes, and with it the run of unreached slots that it lies in. The address of what a run
    began with becomes the place behind the run; one from inside the run keeps its distance, and must by luck begin a function.

    Raises:  Refused.
    Differs: the message names the function's place in the program as given, the kernel's in the program as it rewrote it.
    """
    seen = [env.aux[ins.pc].seen for ins in env.ins]
    alive = [sub.start for sub in env.subprogs if any(seen[sub.start : sub.end])]
    throws = any(kfunc.name == THROW and seen[pc] for pc, kfunc in env.kfunc_at.items())
    if len(alive) <= 1 and not throws:  # for a throw the kernel adds a function of its own
        return  # a single function is compiled as it is
    left = list(accumulate(seen, initial=0))  # slots that are left before each
    starts = {left[start] for start in alive}
    for ins in env.ins:
        if ins.kind is Kind.LD_IMM64 and ins.src == PSEUDO_FUNC and seen[ins.pc]:
            to = ins.pc + 1 + ins.imm
            run = to
            while run and not seen[to] and not seen[run - 1]:
                run -= 1
            if left[to] + to - run not in starts:
                env.refuse("address_of_dead", pc=ins.pc, to=to)


# --- loops -------------------------------------------------------------------------------------------------------------


def _find_loops(env: Env) -> None:
    """Number the strongly connected parts of each function, 0 for straight code: Tarjan's algorithm without recursion."""
    count = len(env.insns)
    env.scc = [0] * count
    index = [0] * count
    low = [0] * count
    on_stack = bytearray(count)
    component: list[int] = []
    counter, number = 0, 0
    for root in range(count):
        if index[root] or (env.ins[root].pc != root):
            continue
        work = [(root, 0)]
        while work:
            pc, done = work.pop()
            if not done:
                counter += 1
                index[pc] = low[pc] = counter
                component.append(pc)
                on_stack[pc] = 1
            successors = env.ins[pc].successors
            if done:
                low[pc] = min(low[pc], low[successors[done - 1]]) if on_stack[successors[done - 1]] else low[pc]
            descend = -1
            while done < len(successors):
                to = successors[done]
                done += 1
                if not index[to]:
                    descend = to
                    break
                if on_stack[to]:
                    low[pc] = min(low[pc], index[to])
            if descend >= 0:
                work.append((pc, done))
                work.append((descend, 0))
                continue
            if low[pc] == index[pc]:
                members = []
                while True:
                    member = component.pop()
                    on_stack[member] = 0
                    members.append(member)
                    if member == pc:
                        break
                if len(members) > 1 or pc in successors:
                    number += 1
                    for member in members:
                        env.scc[member] = number

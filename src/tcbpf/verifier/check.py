"""verify(): the whole verification of a program, from its shape to the depth of its stack.

Source:  bpf_check(), kernel/bpf/verifier.c (v6.18).
"""

from __future__ import annotations

import time
from typing import Final

from tcbpf.errors import VerifierError
from tcbpf.obj.program import HasSpec, Program
from tcbpf.tables.insns import Kind
from tcbpf.tables.maps import MAP_TYPES
from tcbpf.tables.opcodes import MAX_INSNS, MAX_INSNS_UNPRIVILEGED
from tcbpf.tables.progs import PROG_TYPES
from tcbpf.tables.row import Release
from tcbpf.uapi.bpf import BPF_F_STRICT_ALIGNMENT
from tcbpf.verifier.cfg import check_addresses, check_shape, mark_effects
from tcbpf.verifier.explore import check_functions
from tcbpf.verifier.live_registers import compute_live_registers
from tcbpf.verifier.stack_depth import check_stack_depth
from tcbpf.verifier.state.btf_record import record_of
from tcbpf.verifier.state.env import Env, Refused
from tcbpf.verifier.state.insns import TAIL_CALL
from tcbpf.verifier.state.log import PATHS, Log
from tcbpf.verifier.state.map_info import MapInfo
from tcbpf.verifier.verified import Subprog, Verified
from tcbpf.verifier.words.blame import Blame, blame
from tcbpf.verifier.words.reasons import REASONS, kernel_words
from tcbpf.verifier.words.report import account, source_line
from tcbpf.verifier.words.summary import write_summary
from tcbpf.verifier.words.trace import Trace

KERNEL: Final[Release] = (6, 18)


def verify(
    program: Program,
    *,
    log_level: int = 0,
    privileged: bool = True,
    perfmon: bool | None = None,
    kernel: Release = KERNEL,
    max_insns: int = MAX_INSNS,
    strict_alignment: bool = False,
) -> Verified:
    """Prove that a program is safe to run, as the kernel of that release does, and return it with what the proof learned.

    `privileged` stands for CAP_BPF and CAP_PERFMON; `perfmon` False takes the second away. `log_level` is bpf(2)'s: 1 the
    last path, 2 all paths, 4 the summary only. `strict_alignment` asks that every access is aligned to its size, as
    BPF_F_STRICT_ALIGNMENT among the program's flags does.

    Units:   max_insns counts instructions processed.
    Raises:  VerifierError, in the kernel's words.
    """
    began = time.perf_counter_ns()
    log = Log(log_level)
    env = Env(
        program,
        log=log,
        capable=privileged,
        perfmon=privileged if perfmon is None else perfmon and privileged,
        kernel=kernel,
        max_insns=max_insns,
        strict_alignment=strict_alignment or bool(program.flags & BPF_F_STRICT_ALIGNMENT),
    )
    if log.level & PATHS:
        env.trace = Trace(env)
    try:
        _check(env, privileged)
    except Refused as refused:
        raise _error(env, refused, began) from None
    if log_level:
        write_summary(env, began, accepted=True)
    return Verified(
        program=program,
        aux=tuple(env.aux),
        subprogs=tuple(
            Subprog(sub.start, sub.end, sub.name, sub.stack_depth, callback=sub.is_callback) for sub in env.subprogs
        ),
        insns_processed=env.processed,
        visits=tuple(env.counts),
        states=env.stats.total_states,
        peak_states=env.stats.peak_states,
        writes_packet=env.writes_packet,
        helpers=frozenset(env.helpers),
        kernel_only=tuple(sorted(env.kernel_only)),
        log=log.text(),
        time_ns=time.perf_counter_ns() - began,
    )


def _check(env: Env, privileged: bool) -> None:
    count = len(env.insns)
    limit = MAX_INSNS if privileged else MAX_INSNS_UNPRIVILEGED
    if not 0 < count <= limit:
        env.refuse("program_size", count=count, limit=limit)
    if not (privileged or env.type.unprivileged):
        env.refuse(
            "type_privilege", type=env.type.name, allowed=" and ".join(row.name for row in PROG_TYPES if row.unprivileged)
        )
    env.maps = [_map_info(handle, i) for i, handle in enumerate(env.program.maps)]
    check_shape(env)
    mark_effects(env)
    compute_live_registers(env)
    if env.trace:
        env.trace.live_registers()
    check_functions(env)
    env.pc = -1  # what follows is about the program, not about a path
    check_stack_depth(env)
    _check_tail_calls(env)
    check_addresses(env)


def _check_tail_calls(env: Env) -> None:
    """Without CAP_PERFMON a tail call is of one map only, whose size its index is masked with."""
    if env.bypass_spec:
        return
    for ins in env.ins:
        if ins.kind is Kind.CALL and ins.imm == TAIL_CALL and env.map_poisoned[ins.pc]:
            env.refuse("tail_call_maps")


def _map_info(handle: HasSpec, index: int) -> MapInfo:
    spec = handle.spec
    row = MAP_TYPES.get(spec.type)
    inner = None
    if spec.inner is not None:
        inner = MapInfo(spec.inner, -1, 0, record_of(spec.inner), None)
        inner.name = ""  # the kernel keeps no name of the map that describes the inner ones
    return MapInfo(spec, index, row.number if row is not None else 0, record_of(spec), inner)


def _error(env: Env, refused: Refused, began: int) -> VerifierError:
    lines = (*kernel_words(refused.reason, **refused.facts), *refused.more)
    for line in lines:
        env.log.line(line)
    write_summary(env, began, accepted=False)
    on_path = env.processed > 0 and env.pc >= 0
    if not on_path:
        env.pc = refused.facts.get("pc", env.pc)
    found = blame(env, refused.facts) if on_path else Blame()
    told = account(env, refused.reason, refused.facts, found, on_path=on_path)
    return VerifierError(
        message=lines[0],
        pc=env.pc,
        reason=refused.reason,
        errno=REASONS[refused.reason].errno,
        source=source_line(env.program, env.pc),
        slice=found.slice,
        hint=told.hint,
        log=env.log.text(),
        variable=told.variable,
        state=told.state,
        section=env.program.section,
        path=env.program.path,
    )

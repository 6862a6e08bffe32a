"""Random programs that are mostly valid: a grammar over the rows of the tables.

A program is written from statements; each asks for registers that hold what it needs and leaves others. A part of the programs
is written with some noise: now and then a register, an offset or a check is wrong, so that programs are refused for reasons
near the limits.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from generator import calls, control, kfuncs, memory, objects, scalars
from generator.btf import GLOBALS, types
from generator.maps import MAPS
from generator.writer import CTX, Function, Shared, Val, Writer
from tcbpf.isa.insn import Insn
from tcbpf.obj.program import Func, Program

_PLAIN: tuple[tuple[int, Callable[[Writer], None]], ...] = (
    (24, scalars.alu),
    (6, scalars.constant),
    (5, scalars.copy),
    (4, scalars.bound),
    (3, scalars.sign),
    (5, scalars.linked),
    (4, scalars.choice),
    (12, memory.spill),
    (12, memory.fill),
    (16, memory.access),
    (4, memory.atomic),
    (10, memory.pointer),
    (8, memory.context),
    (9, memory.packet),
    (2, memory.compare),
    (3, memory.direct),
    (3, memory.null_check),
    (2, memory.packet_load),
    (7, calls.lookup),
    (14, calls.helper),
    (2, objects.socket_field),
    (2, kfuncs.plain),
)
_NESTED: tuple[tuple[int, Callable[[Writer, objects.Body], None]], ...] = (
    (16, control.branch),
    (4, control.loop),
    (3, control.call_static),
    (2, control.call_global),
    (3, control.callback),
    (1, control.tail_call),
    (2, objects.socket),
    (2, objects.context_socket),
    (3, objects.ring),
    (2, objects.dynptr),
    (2, objects.lock),
    (1, objects.timer),
    (1, objects.kernel_pointer),
    *kfuncs.STATEMENTS,
)
_STATEMENTS = [row[1] for row in _PLAIN] + [row[1] for row in _NESTED]
_WEIGHTS = [row[0] for row in _PLAIN] + [row[0] for row in _NESTED]
_FLAT = [row[1] for row in _PLAIN], [row[0] for row in _PLAIN]
_IS_PLAIN = {row[1] for row in _PLAIN}
MAX_DEPTH = 4


def body(w: Writer, count: int) -> None:
    """Write some statements."""
    w.depth += 1
    for _ in range(count):
        if w.shared.budget <= 0:
            break
        w.shared.budget -= 1
        statements, weights = (_STATEMENTS, _WEIGHTS) if w.depth <= MAX_DEPTH else _FLAT
        statement = w.rng.choices(statements, weights)[0]
        if statement in _IS_PLAIN:
            statement(w)  # type: ignore[call-arg]
        else:
            statement(w, body)  # type: ignore[call-arg]
    w.depth -= 1


def generate(seed: int) -> Program:
    """Return the program of a seed; the same one for ever."""
    shared = Shared(seed)
    main = Function("main", True)
    w = Writer(shared, main, (Val("ctx"),))
    w.ret = 1 if shared.type.returns else -1  # an egress program may return more
    w.move(CTX, 1)
    if w.chance(0.5):
        memory.packet(w)
    while shared.budget > 0:
        body(w, 8)
    w.leave()
    return _laid_out(shared, main)


def _laid_out(shared: Shared, main: Function) -> Program:
    """Return the program of all functions, their calls resolved."""
    starts: dict[int, int] = {}
    insns: list[Insn] = []
    functions = [main, *(f for f in shared.functions if f.insns)]
    for function in functions:
        starts[id(function)] = len(insns)
        insns += function.insns
    for function in functions:
        for at, callee in function.calls:
            pc = starts[id(function)] + at
            insns[pc] = insns[pc]._replace(imm=starts.get(id(callee), 0) - pc - 1)
    btf, ids = types()
    xdp = shared.type.context == "xdp"
    funcs: tuple[Func, ...] = ()
    if shared.has_btf and len(functions) > 1:
        funcs = tuple(
            Func(starts[id(f)], f.name, ids["xdp " * (xdp and "ctx" in GLOBALS.get(f.name, ())) + f.name], f.is_global)
            for f in functions
        )
    return Program(
        "generated",
        shared.type.name,
        tuple(insns),
        tuple(MAPS[name] for name in shared.maps),
        license=shared.license,
        attach_type=shared.attach,
        kfuncs=tuple(shared.kfuncs),
        funcs=funcs,
        btf=btf if funcs else None,
        raw_func_info=b"".join(struct.pack("<II", f.pc, f.type_id) for f in funcs),
    )

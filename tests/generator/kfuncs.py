"""Statements that call kernel functions: iterators, critical sections, packet dynptrs, tasks, exceptions, and plain ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from generator import calls, objects
from generator.writer import ADD64, CALL, CTX, FP, JA, MOV64, Val, Writer
from tcbpf.tables import opcodes as bpf
from tcbpf.tables.insns import JUMP
from tcbpf.tables.kfuncs import KFUNCS, Kfunc

Body = objects.Body


@cache
def _plain(type: str) -> tuple[Kfunc, ...]:
    """Return the functions that programs of a type may call and that take no object: numbers, and memory not looked at."""
    return tuple(
        row
        for row in KFUNCS
        if type in row.progs
        and not row.flags & {"SLEEPABLE", "ACQUIRE", "RELEASE"}
        and row.params
        and not row.ret.pointer
        and all((not p.pointer and p.type != "void") or p.ends("__ign") for p in row.params)
    )


def call(w: Writer, name: str) -> None:
    """Call a kernel function whose arguments are in place."""
    kfuncs = w.shared.kfuncs
    if name not in kfuncs:
        kfuncs.append(name)
    w.emit(CALL, 0, bpf.PSEUDO_KFUNC_CALL, 0, kfuncs.index(name))
    w.clobber()


def _at(w: Writer, reg: int, off: int) -> None:
    """Let a register point into the stack."""
    w.emit(0xBF, reg, FP)
    w.emit(ADD64, reg, imm=off if not w.noisy() else off + 8)


def plain(w: Writer) -> None:
    """Call a function on numbers."""
    rows = _plain(w.shared.type.name) if not w.noisy() else tuple(KFUNCS)
    if w.locked or not rows:
        return
    row = w.rng.choice(rows)
    for reg, param in enumerate(row.params[:5], 1):
        if param.pointer and w.chance(0.6):
            _at(w, reg, -64)
            w.emit(0x7A, FP, 0, -64)
            w.model.slots[-64] = None
        else:
            calls.anything(w, reg)
    call(w, row.name)
    w.set(0, Val("num"))


def iterate(w: Writer, body: Body) -> None:
    """Loop over an iterator of numbers, or of bits."""
    if w.locked or w.loops > 1:
        return
    at = -8 * w.rng.randrange(24, 28)
    kind = w.rng.choice(("num", "num", "num", "bits"))
    _at(w, 1, at)
    if kind == "num":
        w.emit(MOV64, 2, imm=w.rng.choice((0, 0, 1, -5)))
        w.emit(MOV64, 3, imm=w.rng.choice((1, 4, 10, 100, 1 << 23)))
    else:
        _at(w, 2, at - 32)
        w.emit(MOV64, 3, imm=w.rng.choice((0, 1, 2)))
    call(w, f"bpf_iter_{kind}_new")
    for off in (at, at + 8):
        w.model.slots.pop(off, None)
    entry = w.model.copy()
    w.held, w.loops = w.held + 1, w.loops + 1
    start = w.here
    _at(w, 1, at)
    call(w, f"bpf_iter_{kind}_next")
    out = w.emit(0x15, 0)
    w.set(0, Val("mem", 4))
    if w.chance(0.7):
        reg = w.free()
        w.emit(0x61, reg, 0, 0 if not w.noisy() else 4)
        w.set(reg, Val("num"))
    if kind == "bits":
        w.set(0, None)
    body(w, w.rng.choice((1, 1, 2, 3)))
    if w.noisy():
        w.skip_out(w.emit(0x15, w.number(), imm=7))  # leaves with the iterator alive
    w.patch(w.emit(JA), start)
    w.patch(out)
    w.held, w.loops = w.held - 1, w.loops - 1
    w.model.join(entry)
    if not w.noisy():
        _at(w, 1, at)
        call(w, f"bpf_iter_{kind}_destroy")


def section(w: Writer, body: Body) -> None:
    """Do statements where nothing may preempt, interrupt, or free what RCU guards."""
    if w.locked:
        return
    slot = -8 * w.rng.randrange(28, 30)
    kind = w.rng.choice(("preempt", "rcu", "irq"))
    if kind == "rcu" and w.in_rcu and not w.noisy():
        return
    before = w.in_rcu
    enter: dict[str, str] = {"preempt": "bpf_preempt_disable", "rcu": "bpf_rcu_read_lock", "irq": "bpf_local_irq_save"}
    leave = {"preempt": "bpf_preempt_enable", "rcu": "bpf_rcu_read_unlock", "irq": "bpf_local_irq_restore"}
    if kind == "irq":
        _at(w, 1, slot)
        w.model.slots.pop(slot, None)
    call(w, enter[kind])
    w.held += 1
    w.in_rcu = w.in_rcu or kind == "rcu"
    body(w, w.rng.choice((1, 1, 2)))
    w.held -= 1
    w.in_rcu = before
    if w.noisy():
        return
    if kind == "irq":
        _at(w, 1, slot)
    call(w, leave[kind])


def packet_dynptr(w: Writer, body: Body) -> None:
    """Take slices of the packet through a dynptr."""
    if w.locked or not w.has_context:
        return
    at, copy = -8 * w.rng.randrange(30, 33), -8 * w.rng.randrange(34, 36)
    xdp = w.shared.type.context == "xdp"
    w.emit(0xBF, 1, CTX)
    w.emit(MOV64, 2)
    _at(w, 3, at)
    call(w, "bpf_dynptr_from_xdp" if xdp else "bpf_dynptr_from_skb")
    for off in (at, at + 8):
        w.model.slots.pop(off, None)
    for _ in range(w.rng.choice((1, 1, 2, 3))):
        _use(w, at, copy)
        if w.chance(0.2):
            body(w, 1)


def _use(w: Writer, at: int, copy: int) -> None:
    name = w.rng.choice(("slice", "slice", "slice_rdwr", "size", "is_null", "is_rdonly", "adjust", "clone", "memset"))
    _at(w, 1, at)
    if name.startswith("slice"):
        size = w.rng.choice((1, 4, 8, 16))
        w.emit(MOV64, 2, imm=w.rng.choice((0, 8, 14)))
        if w.chance(0.8):
            _at(w, 3, -64)
            w.emit(0x7A, FP, 0, -64)
            w.emit(0x7A, FP, 0, -56)
            w.model.slots[-64] = w.model.slots[-56] = None
        else:
            w.emit(MOV64, 3)
        w.emit(MOV64, 4, imm=size if not w.noisy() else 17)
    elif name == "adjust":
        calls.anything(w, 2)
        calls.anything(w, 3)
    elif name == "clone":
        _at(w, 2, copy)
        for off in (copy, copy + 8):
            w.model.slots.pop(off, None)
    elif name == "memset":
        w.emit(MOV64, 2)
        w.emit(MOV64, 3, imm=4)
        calls.anything(w, 4)
    call(w, f"bpf_dynptr_{name}")
    if not name.startswith("slice"):
        return w.set(0, Val("num") if name != "clone" else None)
    out = w.emit(0x15, 0)
    reg = w.saved()
    if reg is not None and w.chance(0.3):
        w.emit(0xBF, reg, 0)
        w.set(reg, None)
    if name == "slice_rdwr" and w.shared.type.direct_write and w.chance(0.5):
        w.emit(0x72, 0, 0, w.rng.randrange(size), 1)
    else:
        w.emit(0x71, 0, 0, w.rng.randrange(size) if not w.noisy() else size)
    w.patch(out)
    return w.set(0, None)


def task(w: Writer, body: Body) -> None:
    """Take a reference to a task or a control group and release it."""
    if w.locked or "bpf_task_from_pid" not in KFUNCS or w.shared.type.name not in KFUNCS["bpf_task_from_pid"].progs:
        return None
    name, release = w.rng.choice(
        (
            ("bpf_task_from_pid", "bpf_task_release"),
            ("bpf_task_from_vpid", "bpf_task_release"),
            ("bpf_cgroup_from_id", "bpf_cgroup_release"),
            ("bpf_lookup_system_key", "bpf_key_put"),
        )
    )
    w.emit(MOV64, 1, imm=1)
    call(w, name)
    reg = w.saved()
    if reg is None:
        w.emit(0xBF, 1, 0)
        out = w.emit(0x15, 0)
        call(w, release)
        return w.patch(out)
    w.emit(0xBF, reg, 0)
    w.set(reg, None)
    before = w.model.copy()
    out = w.emit(0x15, 0 if w.chance(0.7) else reg)
    w.set(reg, Val("task" if "task" in name else "other", id=w.new_id()))
    w.held += 1
    with w.pin(reg):
        body(w, w.rng.choice((0, 1)))
    w.held -= 1
    if not w.noisy():
        w.emit(0xBF, 1, reg)
        call(w, release)
    w.set(reg, None)
    w.model.join(before)
    w.patch(out)
    return None


def throw(w: Writer, body: Body) -> None:
    """Throw, when a number says so."""
    if w.held or w.shared.type.name not in KFUNCS["bpf_throw"].progs:
        return
    number = w.number()
    row = w.rng.choice(JUMP.rows)
    at = w.emit(bpf.JMP | row.code << 4, number, imm=w.limit())
    before = w.model.copy()
    w.emit(MOV64, 1, imm=w.rng.choice((0, 1)))
    call(w, "bpf_throw")
    w.leave()
    w.model = before
    w.patch(at)


STATEMENTS: tuple[tuple[int, Callable[[Writer, Body], None]], ...] = (
    (3, iterate),
    (2, section),
    (2, packet_dynptr),
    (1, task),
    (1, throw),
)
"""With their weights."""

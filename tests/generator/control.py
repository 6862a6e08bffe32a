"""Statements on control: branches, loops, functions, callbacks, tail calls."""

from __future__ import annotations

from generator import objects
from generator.btf import GLOBALS, STATICS
from generator.calls import keep
from generator.maps import MAPS
from generator.writer import ADD64, CALL, CTX, FP, JA, MAY_GOTO, MOV64, Function, Val, Writer
from tcbpf.tables import opcodes as bpf
from tcbpf.tables.helpers import HELPERS
from tcbpf.tables.insns import JUMP

Body = objects.Body
MAX_LEVEL = 3
_CALLBACKS = (*["loop"] * 3, *["for_each_map_elem"] * 2, "timer_set_callback", "user_ringbuf_drain")
MAX_FUNCTIONS = 6


def _condition(w: Writer) -> int:
    """Append a conditional jump to be patched."""
    row, dst = w.rng.choice(JUMP.rows), w.number()
    code = w.rng.choice((bpf.JMP, bpf.JMP32)) | row.code << 4
    if w.chance(0.35):
        return w.emit(code | bpf.X, dst, w.number())
    return w.emit(code, dst, imm=w.limit())


def branch(w: Writer, body: Body) -> None:
    """Do statements on one side of a condition, and perhaps others on the other."""
    maybe = [r for r, v in enumerate(w.model.regs) if v and v.maybe]
    tested = None
    if maybe and w.chance(0.5):
        reg = w.rng.choice(maybe)
        tested = w.model.regs[reg]
        at = w.emit(w.rng.choice((0x15, 0x55)), reg)
    else:
        at = _condition(w)
    null_side = w.function.insns[at].code != 0x15
    before = w.model.copy()
    if tested and not null_side:
        w.checked(tested.id)
    body(w, w.rng.choice((1, 1, 2, 3)))
    if w.chance(0.35):
        over = w.emit(JA) if w.chance(0.9) else w.emit(bpf.JMP32)  # goto or gotol
        w.patch(at)
        after, w.model = w.model, before
        if tested and null_side:
            w.checked(tested.id)
        body(w, w.rng.choice((1, 1, 2)))
        w.patch(over)
        w.model.join(after)
    else:
        w.patch(at)
        w.model.join(before)


def loop(w: Writer, body: Body) -> None:
    """Repeat statements a bounded number of times: by a register, by a counter on the stack, or while the kernel lets it."""
    if w.loops > 1:
        return
    kind = w.rng.choice(("register", "register", "slot", "may_goto", "down"))
    count = w.rng.choice((1, 2, 3, 4, 8, 8, 20, 100 if w.loops == 0 and w.chance(0.1) else 5))
    reg = w.saved() if kind in ("register", "down") else None
    if kind in ("register", "down") and reg is None:
        return
    w.loops += 1
    if w.chance(0.9):
        w.clobber()  # the body may, and then begins anew
    slot = -8 * w.rng.randrange(14, 18)
    entry = w.model.copy()
    if kind == "slot":
        w.emit(0x7A, FP, 0, slot)
        start, out = w.here, -1
        top = w.rng.choice((1, 2, 3))
        w.emit(0x79, top, FP, slot)
        out = w.emit(w.rng.choice((0x35, 0x25, 0x75)), top, imm=count)
        w.set(top, Val("num", count))
        body(w, w.rng.choice((1, 2)))
        w.model.slots[slot] = None
        w.emit(0x79, top, FP, slot)
        w.emit(ADD64, top, imm=1)
        w.emit(0x7B, FP, top, slot)
        w.patch(w.emit(JA), start)
        w.patch(out)
        w.set(top, None)
    elif kind == "may_goto":
        start = w.here
        out = w.emit(MAY_GOTO)
        body(w, w.rng.choice((1, 2)))
        w.patch(w.emit(JA), start)
        w.patch(out)
    else:
        assert reg is not None
        w.emit(MOV64, reg, imm=0 if kind == "register" else count)
        w.set(reg, Val("num", count))
        start = w.here
        with w.pin(reg):
            body(w, w.rng.choice((1, 1, 2)))
        w.emit(ADD64, reg, imm=1 if kind == "register" else -1)
        code = w.rng.choice((0xA5, 0xA5, 0x55, 0xC5, 0xA6)) if kind == "register" else w.rng.choice((0x55, 0x25, 0x65))
        w.patch(w.emit(code, reg, imm=count if kind == "register" else 0), start)
    w.loops -= 1
    w.model.join(entry)
    if reg is not None:
        w.set(reg, Val("num", count))


# --- functions -----------------------------------------------------------------------------------------------------------


def _new_function(w: Writer, *, is_global: bool = False) -> Function | None:
    """Return an empty function of a type that no other has, None when there are enough."""
    shared = w.shared
    used = {f.name for f in shared.functions}
    names = [n for n in (GLOBALS if is_global else STATICS) if n not in used]
    if not names or len(shared.functions) >= MAX_FUNCTIONS or w.level >= MAX_LEVEL:
        return None
    if not is_global and not shared.has_btf:
        names = [f"nameless_{len(shared.functions)}"]
    function = Function(w.rng.choice(names), is_global)
    shared.functions.append(function)
    return function


def _write(w: Writer, function: Function, args: tuple[Val | None, ...], body: Body, most: int = -1) -> None:
    """Write a function's body."""
    inner = Writer(w.shared, function, args, w.level + 1)
    inner.ret = most
    inner.locked = w.locked
    inner.held, inner.in_rcu = w.held, w.in_rcu
    context = next((i + 1 for i, val in enumerate(args) if val and val.kind == "ctx"), 0)
    if context:
        inner.move(CTX, context)
    else:
        inner.pinned.discard(CTX)
    body(inner, w.rng.choice((1, 1, 2, 3, 5)))
    if inner.chance(0.2) and not w.locked:
        inner.emit(0x72, FP, 0, -w.rng.choice((8, 64, 128, 256, 400)))
    inner.held = 0
    inner.leave()


def _args(w: Writer, kinds: tuple[str, ...]) -> tuple[Val | None, ...] | None:
    """Put arguments of these kinds into r1 to r5 and return what the function may think of them; None when one is missing."""
    plan: list[int] = []
    for kind in kinds:
        found = [r for r in (10, 6, 7, 8, 9, 0) if (v := w.model.regs[r]) and v.kind == kind and not v.maybe]
        if not found and kind != "num":
            return None
        plan.append(w.rng.choice(found) if found else -1)
    for reg, source in enumerate(plan, 1):
        if source < 0:
            w.emit(MOV64, reg, imm=w.limit())
            w.set(reg, Val("num"))
        else:
            w.emit(0xBF, reg, source)
            w.set(reg, w.model.regs[source])
            if source == FP:
                w.emit(ADD64, reg, imm=-64)
                w.emit(0x7A, FP, 0, -64, 1)
                w.model.slots[-64] = None
                w.set(reg, Val("fp", off=-64))
    return tuple(w.model.regs[1 : len(kinds) + 1])


def call_static(w: Writer, body: Body) -> None:
    """Call a function of the program, a new one or one that is there."""
    if w.locked and not w.noisy():
        return
    kinds = w.rng.choice(((), ("num",), ("ctx",), ("ctx", "num"), ("fp",), ("value",), ("pkt",), ("num", "fp"), ("mem",)))
    args = _args(w, kinds)
    if args is None:
        return
    others = [f for f in w.shared.functions if not f.is_global and f.insns]
    function = w.rng.choice(others) if others and w.noisy() else _new_function(w)
    if function is None:
        return
    if not function.insns:
        _write(w, function, args, body)
    w.call(function)
    w.forget_packet()
    w.set(0, Val("num", 1 if w.chance(0.2) else -1))


def call_global(w: Writer, body: Body) -> None:
    """Call a global function, which is verified on its own by its type."""
    if w.locked or not w.shared.has_btf:
        return
    function = _new_function(w, is_global=True)
    if function is None:
        return
    kinds = {"int": "num", "long": "num", "char": "num", "ctx": "ctx", "bpf_dynptr *": "num"}
    wanted = tuple(kinds.get(p, "fp") for p in GLOBALS[function.name])
    args = _args(w, wanted)
    if args is None or (function.name == "dynptr" and not w.noisy()):
        w.shared.functions.remove(function)
        return
    sizes = {"int *": 4, "pair *": 16, "wide *": 40}
    inside = tuple(
        Val("mem", sizes[p], maybe=True, id=w.new_id())
        if p in sizes
        else Val("ctx")
        if p == "ctx"
        else Val("dynptr")
        if p.startswith("bpf")
        else Val("num")
        for p in GLOBALS[function.name]
    )
    held, w.held = w.held, 0
    _write(w, function, inside, body)
    w.held = held
    w.call(function)
    w.forget_packet()
    w.set(0, Val("num"))


def callback(w: Writer, body: Body) -> None:
    """Let a helper call a function back: bpf_loop, bpf_for_each_map_elem, a timer, a user ring buffer."""
    if w.locked or not (w.shared.has_btf or w.noisy()):
        return
    name = w.rng.choice(_CALLBACKS)
    if name == "timer_set_callback" and (w.held or w.shared.type.name == "socket_filter"):
        return
    function = _new_function(w)
    if function is None:
        return
    shared = w.chance(0.7)
    outer = Val("fp", off=-64) if shared else Val("num", 0)
    walked = w.rng.choice(("array", "hash", "percpu", "lru"))
    args: tuple[Val | None, ...]
    match name:
        case "loop":
            args = (Val("num"), outer)
        case "for_each_map_elem":
            spec = MAPS[walked]
            args = (Val("map", name=walked), Val("key", spec.key_size), Val("value", spec.value_size, name=walked), outer)
        case "user_ringbuf_drain":
            args = (Val("dynptr"), outer)
        case _:
            args = (Val("map", name="timed"), Val("key", 4), Val("value", 8, name="timed"))
    held, w.held = w.held, 0
    loops, w.loops = w.loops, 2
    _write(w, function, args, body, most=0 if name == "timer_set_callback" else 1)
    w.held, w.loops = held, loops
    if name == "timer_set_callback":
        _start_timer(w, function)
        return
    if name == "loop":
        count = w.rng.choice((0, 1, 2, 10, 100, 1 << 23))
        number = next((r for r in (7, 8, 9, 0) if (v := w.model.regs[r]) and v.kind == "num"), None)
        w.emit(0xBF, 1, number) if number is not None and w.chance(0.4) else w.emit(MOV64, 1, imm=count)
    else:
        w.load_map(1, walked if name == "for_each_map_elem" else "user_ring")
    w.address_of(2, function)
    if shared:
        w.emit(0x7A, FP, 0, -64, 1)
        w.model.slots = {off: None for off in w.model.slots if off < -64} | {o: v for o, v in w.model.slots.items() if o > -8}
        w.emit(0xBF, 3, FP)
        w.emit(ADD64, 3, imm=-64)
    else:
        w.emit(MOV64, 3)
    w.emit(MOV64, 4, imm=0 if not w.noisy() else 1)
    w.emit(CALL, imm=HELPERS[name].id)
    w.clobber()
    w.forget_packet()
    w.set(0, Val("num"))


def _start_timer(w: Writer, function: Function) -> None:
    reg = w.saved()
    if reg is None:
        w.shared.functions.remove(function)
        return
    w.emit(0x7A, FP, 0, -8)
    w.load_map(1, "timed")
    w.emit(0xBF, 2, FP)
    w.emit(ADD64, 2, imm=-8)
    w.emit(CALL, imm=1)
    w.clobber()
    w.skip_out(w.emit(0x15, 0))
    w.emit(0xBF, 1, 0)
    w.emit(ADD64, 1, imm=8)
    w.address_of(2, function)
    w.emit(CALL, imm=HELPERS["timer_set_callback"].id)
    w.clobber()
    w.model.slots[-8] = None
    w.set(0, Val("num"))


def tail_call(w: Writer, body: Body) -> None:
    """Call another program, by a known index or an unknown one."""
    if w.locked or w.held or not w.has_context:
        return
    number = next((r for r in (7, 8, 9, 0) if (v := w.model.regs[r]) and v.kind == "num"), None)
    w.emit(0xBF, 1, CTX)
    w.load_map(2, "progs")
    w.emit(0xBF, 3, number) if number is not None and w.chance(0.5) else w.emit(MOV64, 3, imm=w.rng.choice((0, 1, 3, 4, -1)))
    w.emit(CALL, imm=HELPERS["tail_call"].id)
    w.clobber()
    w.forget_packet()
    keep(w)

"""Calls of helpers from their prototypes: any helper that the program type may call, each argument by its type."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from generator.maps import MAPS
from generator.writer import ADD64, AND64, CALL, CTX, FP, MOV64, Val, Writer, room
from tcbpf.tables import opcodes as bpf
from tcbpf.tables.helpers import HELPERS, Arg, ArgType, Helper, Mod, RetType
from tcbpf.tables.maps import MAP_TYPES
from tcbpf.tables.skb import SKB

BUFFERS = ((-448, 64), (-224, 32))
"""Where buffers for arguments begin on the stack, and how far they are apart: in the main function, and in others."""

SCOPED = frozenset(
    (
        "sk_lookup_tcp",
        "sk_lookup_udp",
        "skc_lookup_tcp",
        "sk_release",
        "ringbuf_reserve",
        "ringbuf_submit",
        "ringbuf_discard",
        "ringbuf_reserve_dynptr",
        "ringbuf_submit_dynptr",
        "ringbuf_discard_dynptr",
        "spin_lock",
        "spin_unlock",
        "loop",
        "for_each_map_elem",
        "timer_set_callback",
        "user_ringbuf_drain",
        "find_vma",
        "tail_call",
        "dynptr_from_mem",
        "kptr_xchg",
    )
)
"""Helpers that other statements call, which give what they take back."""

_SIZES = frozenset((ArgType.CONST_SIZE, ArgType.CONST_SIZE_OR_ZERO, ArgType.CONST_ALLOC_SIZE_OR_ZERO))
_UNLISTED = {"timer_init": "timed", "timer_start": "timed", "timer_cancel": "timed"}


@cache
def callable_by(type: str) -> tuple[Helper, ...]:
    """Return the helpers that programs of a type may call, without those of SCOPED."""
    return tuple(
        row
        for row in HELPERS
        if type in row.progs and row.name not in SCOPED and not any(arg.type is ArgType.PERCPU_BTF_ID for arg in row.args)
    )


@cache
def maps_for(helper: str) -> tuple[str, ...]:
    """Return the maps that a helper takes."""
    return tuple(name for name, spec in MAPS.items() if helper in MAP_TYPES[spec.type].helpers)


def helper(w: Writer) -> None:
    """Call some helper."""
    if w.locked and not w.noisy():
        return
    rows = callable_by(w.shared.type.name) if not w.noisy() else tuple(HELPERS)
    call_row(w, w.rng.choice(rows))


def call_row(w: Writer, row: Helper, map: str = "", ready: dict[int, Callable[[Writer, int], None]] | None = None) -> bool:
    """Call a helper, its arguments made by their types, or by `ready` for some; return False when one cannot be made."""
    if not map and any(arg.type is ArgType.CONST_MAP_PTR for arg in row.args):
        names = maps_for(row.name)
        if not names:
            return False
        map = w.rng.choice(names) if not w.noisy() else w.rng.choice(list(MAPS))
    map = map or _UNLISTED.get(row.name, "array")
    sources = [0 if ready and reg in ready else _source(w, arg) for reg, arg in enumerate(row.args, 1)]
    if any(found is None for found in sources):
        return False
    size = -1
    with w.pin(*range(1, len(row.args) + 1)):
        for i, arg in enumerate(row.args):
            reg = i + 1
            if ready and reg in ready:
                ready[reg](w, reg)
            elif arg.type in _SIZES:
                size = max(size, 0)
                _size(w, reg, size)
            else:
                if i + 1 < len(row.args) and row.args[i + 1].type in _SIZES:
                    size = w.rng.choice((1, 4, 8, 12, 16, 32, 64)) if not w.noisy() else w.rng.choice((0, 65, 400))
                _argument(w, row, arg, reg, map, size, sources[i] or 0)
        w.emit(CALL, imm=row.id)
    w.clobber()
    if row.changes_data:
        w.forget_packet()
    _result(w, row, map)
    return True


def _source(w: Writer, arg: Arg) -> int | None:
    """Return a register that already holds what an argument needs (0 for nothing needed), None when there is none."""
    kinds = {
        ArgType.SOCK_COMMON: ("sockc", "sock", "tcp"),
        ArgType.BTF_ID_SOCK_COMMON: ("sockc", "sock", "tcp"),
        ArgType.SOCKET: ("sock",),
        ArgType.DYNPTR: ("dynptr",),
    }.get(arg.type)
    if arg.type is ArgType.BTF_ID:
        kinds = ("task",) if arg.btf == "task_struct" else (arg.btf,)
    if kinds is None:
        return 0
    found = [r for r in (7, 8, 9) if (v := w.model.regs[r]) and v.kind in kinds and not v.maybe]
    if found:
        return w.rng.choice(found)
    return 0 if arg.mod & Mod.MAYBE_NULL and w.chance(0.5) else _provide(w, kinds[0])


def _provide(w: Writer, kind: str) -> int | None:
    """Let a register that calls leave alone hold the current task, or the context's socket; None when it cannot be."""
    reg = w.saved()
    if reg is None or w.locked:
        return None
    if kind == "task":
        w.emit(CALL, imm=HELPERS["get_current_task_btf"].id)
        w.clobber()
        w.emit(0xBF, reg, 0)
    elif kind == "sockc" and w.shared.type.context == "skb" and not w.held and w.has_context:
        w.emit(0x79, reg, CTX, SKB["sk"].off)
        w.skip_out(w.emit(0x15, reg))
    else:
        return None
    w.set(reg, Val(kind, id=w.new_id()))
    return reg


def _argument(w: Writer, row: Helper, arg: Arg, reg: int, map: str, size: int, source: int) -> None:
    """Put an argument into its register."""
    spec, null = MAPS[map], arg.mod & Mod.MAYBE_NULL and w.chance(0.3)
    if null:
        w.emit(MOV64, reg)
        return w.set(reg, Val("num", 0))
    match arg.type:
        case ArgType.CTX:
            w.emit(0xBF, reg, CTX)
        case ArgType.CONST_MAP_PTR:
            w.load_map(reg, map)
        case ArgType.MAP_KEY:
            memory(w, reg, spec.key_size, write=False, packet=row.pkt_access)
        case ArgType.MAP_VALUE:
            memory(w, reg, spec.value_size, write=bool(arg.mod & Mod.WRITE), packet=row.pkt_access)
        case ArgType.MEM:
            need = arg.size or max(size, 1)
            memory(w, reg, need, write=bool(arg.mod & Mod.WRITE), packet=row.pkt_access, uninit=bool(arg.mod & Mod.UNINIT))
        case ArgType.STACK:
            stack(w, reg, 16)
        case ArgType.CONST_STR:
            w.emit(0x18, reg, bpf.PSEUDO_MAP_IDX_VALUE, 0, w.map_index("rodata"))
            w.emit(0, imm=w.rng.choice((0, 16, 9)))
        case ArgType.TIMER | ArgType.SPIN_LOCK | ArgType.KPTR:
            source = w.find("value") or FP
            w.emit(0xBF, reg, source)
            w.emit(ADD64, reg, imm=4 if arg.type is ArgType.SPIN_LOCK else 8)
        case ArgType.ANYTHING:
            anything(w, reg)
        case _:
            if source:
                w.emit(0xBF, reg, source)
            else:
                w.emit(MOV64, reg)
    w.set(reg, None)
    return None


def anything(w: Writer, reg: int) -> None:
    """Put some number into a register."""
    found = [r for r in (7, 8, 9, 0) if (v := w.model.regs[r]) and v.kind == "num"]
    if found and w.chance(0.4):
        w.emit(0xBF, reg, w.rng.choice(found))
    else:
        w.emit(MOV64, reg, imm=w.rng.choice((0, 0, 0, 1, 2, 8, 14, w.limit())))


def stack(w: Writer, reg: int, size: int, *, uninit: bool = False) -> None:
    """Let a register point to `size` bytes of the stack, written unless `uninit`."""
    start, apart = BUFFERS[w.level > 0]
    off = start + apart * (reg - 1)
    if size > apart or w.chance(0.1):
        off = -(size + 7) // 8 * 8
    if not uninit or w.chance(0.2):
        for at in range(off, min(off + size, 0), 8):
            if w.chance(0.97):
                w.emit(0x7A, FP, 0, at, w.rng.choice((0, 0, 1, 3)))
    for at in range(off // 8 * 8, min(off + size, 0), 8):
        w.model.slots[at] = None
    w.emit(0xBF, reg, FP)
    w.emit(ADD64, reg, imm=off)


def memory(w: Writer, reg: int, size: int, *, write: bool, packet: bool, uninit: bool = False) -> None:
    """Let a register point to `size` bytes of memory of some kind."""
    kinds = ["value", "mem"] + (["pkt"] if packet or w.noisy() else []) + ([] if write else ["key"])
    if write and not w.shared.type.direct_write and "pkt" in kinds:
        kinds.remove("pkt")
    if w.chance(0.3):
        for other in (7, 8, 9, 0):
            val = w.model.regs[other]
            if not val or val.maybe or val.kind not in kinds:
                continue
            if val.kind == "value" and val.name in MAPS and MAPS[val.name].flags & (0x80 if write else 0x100):
                continue
            first, end = room(val, w.model)
            if end - first >= size:
                w.emit(0xBF, reg, other)
                off = w.rng.choice((first, end - size, max(first, 0))) if not w.noisy() else end - size + 1
                if off and end - off >= size:
                    w.emit(ADD64, reg, imm=off)
                return
    stack(w, reg, size, uninit=uninit)


def _size(w: Writer, reg: int, size: int) -> None:
    """Put a size into a register: a constant, or a number that is at most that."""
    found = [r for r in (7, 8, 9, 0) if (v := w.model.regs[r]) and v.kind == "num"]
    if not found or size < 1 or w.chance(0.7):
        w.emit(MOV64, reg, imm=size if not w.noisy() else w.limit())
        return
    w.emit(0xBF, reg, w.rng.choice(found))
    w.emit(AND64, reg, imm=(1 << (size.bit_length() - 1)) - 1)
    if w.chance(0.6):
        w.emit(ADD64, reg, imm=1)  # for a size that may not be zero


def _result(w: Writer, row: Helper, map: str) -> None:
    """Note what r0 holds."""
    ret, maybe = row.ret, bool(row.ret.mod & Mod.MAYBE_NULL)
    kinds = {RetType.SOCKET: "sock", RetType.SOCK_COMMON: "sockc", RetType.TCP_SOCK: "tcp"}
    match ret.type:
        case RetType.VOID:
            w.set(0, None)
        case RetType.INTEGER:
            w.set(0, Val("num"))
        case RetType.MAP_VALUE if MAPS[map].inner is not None:
            w.set(0, Val("inner", name=map, maybe=maybe, id=w.new_id()))
        case RetType.MAP_VALUE if map in ("sockets", "socket_hash"):
            w.set(0, Val("sock", maybe=maybe, id=w.new_id()))
        case RetType.MAP_VALUE:
            w.set(0, Val("value", MAPS[map].value_size, maybe=maybe, name=map, id=w.new_id()))
        case RetType.MEM | RetType.DYNPTR_MEM:
            w.set(0, Val("mem", 16, maybe=maybe, id=w.new_id()))
        case RetType.BTF_ID:
            w.set(0, Val("task" if ret.btf == "task_struct" else "btf", maybe=maybe, id=w.new_id()))
        case kind:
            w.set(0, Val(kinds.get(kind, "other"), maybe=maybe, id=w.new_id()))


def keep(w: Writer) -> None:
    """Keep what r0 holds in a register that calls leave alone, or on the stack."""
    val = w.model.regs[0]
    if val is None:
        return None
    reg = w.saved()
    if reg is not None and w.chance(0.8):
        return w.move(reg, 0)
    slot = -8 * w.rng.randrange(1, 9)
    w.emit(0x7B, FP, 0, slot)
    w.model.slots[slot] = val
    return None


def lookup(w: Writer) -> None:
    """Look a map up, and mostly check the result."""
    if w.locked:
        return
    names = (
        "array",
        "array",
        "hash",
        "hash",
        "bss",
        "percpu",
        "lru",
        "trie",
        "locked",
        "timed",
        "kept",
        "rodata",
        "readable",
        "percpu_hash",
        "outer",
        "outer_hash",
    )
    name = w.rng.choice(names)
    if w.shared.type.name == "socket_filter" and name == "locked" and not w.noisy():
        name = "hash"
    if not call_row(w, HELPERS["map_lookup_elem"], name):
        return
    if w.chance(0.85) and not w.held:
        w.skip_out(w.emit(0x15, 0)) if w.chance(0.5) else _leave_on_null(w)
        w.checked((w.model.regs[0] or Val("")).id)
    val = w.model.regs[0]
    if val and val.kind == "inner" and not val.maybe and w.chance(0.95):
        inner = MAPS[name].inner
        assert inner is not None
        w.move(7, 0)
        w.emit(0x7A, FP, 0, -8, w.rng.choice((0, 1, 5)))
        w.model.slots[-8] = Val("num", 5)
        w.emit(0xBF, 1, 7)
        w.emit(0xBF, 2, FP)
        w.emit(ADD64, 2, imm=-8)
        w.emit(CALL, imm=1)
        w.clobber()
        w.set(0, Val("value", inner.value_size, maybe=True, name=inner.name, id=w.new_id()))
        if w.chance(0.9) and not w.held:
            _leave_on_null(w)
            w.checked((w.model.regs[0] or Val("")).id)
    keep(w)


def _leave_on_null(w: Writer) -> None:
    at = w.emit(0x55, 0)
    w.leave()
    w.patch(at)

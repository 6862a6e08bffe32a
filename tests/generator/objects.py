"""Statements on what must be given back: socket references, ring buffer reservations, dynptrs, locks; and timers, kptrs."""

from __future__ import annotations

from collections.abc import Callable

from generator import calls
from generator.writer import ADD64, CALL, CTX, FP, JNE, MOV64, Val, Writer
from tcbpf.tables.helpers import HELPERS
from tcbpf.tables.skb import SKB

Body = Callable[[Writer, int], None]
"""Writes some statements."""

_SOCKET_FIELDS = ((0, 4), (4, 4), (8, 4), (12, 4), (16, 4), (20, 4), (24, 4), (28, 4), (44, 4), (48, 2), (52, 4), (72, 4))


def _place(w: Writer, kind: str, size: int = -1) -> tuple[int, int]:
    """Put what r0 holds out of the way of calls; return (register, 0) or (0, slot)."""
    reg = w.saved()
    if reg is not None and w.chance(0.75):
        w.emit(0xBF, reg, 0)
        w.set(reg, Val(kind, size, maybe=True, id=(w.model.regs[0] or Val("")).id))
        return reg, 0
    slot = -8 * w.rng.randrange(10, 14)
    w.emit(0x7B, FP, 0, slot)
    w.model.slots[slot] = None
    return 0, slot


def _give_back(w: Writer, place: tuple[int, int], name: str) -> None:
    if w.noisy():
        return
    reg, slot = place
    w.emit(0xBF, 1, reg) if reg else w.emit(0x79, 1, FP, slot)
    if name.startswith("ringbuf"):
        w.emit(MOV64, 2)
    w.emit(CALL, imm=HELPERS[name].id)
    if w.noisy():
        w.emit(CALL, imm=HELPERS[name].id)
    w.clobber()


def _scope(w: Writer, body: Body, kind: str, release: str, size: int = -1) -> None:
    """Check what r0 holds for NULL, use it, and give it back."""
    place = _place(w, kind, size)
    tested = 0 if w.chance(0.7) or not place[0] else place[0]
    out = w.emit(0x15, tested) if w.chance(0.8) else -1
    if out < 0:
        over = w.emit(JNE, tested)
        out = w.emit(0x05)
        w.patch(over)
    before = w.model.copy()
    before.regs[:1] = [None]
    reg = place[0]
    if reg:
        w.set(reg, Val(kind, size, id=w.new_id()))
        before.regs[reg] = None
    if kind in ("sock", "sockc"):
        w.set(0, Val(kind))
    elif kind == "mem":
        w.set(0, Val("mem", size))
    w.held += 1
    with w.pin(*([reg] if reg else [])):
        body(w, w.rng.choice((0, 1, 1, 2, 3)))
    w.held -= 1
    # the slot that holds the reference may have been written over: then the program leaks it, and is refused
    _give_back(w, place, release)
    if reg:
        w.set(reg, None)
    w.model.join(before)
    w.patch(out)


def socket(w: Writer, body: Body) -> None:
    """Look a socket up and release it."""
    name = w.rng.choice(("sk_lookup_tcp", "sk_lookup_udp", "skc_lookup_tcp"))
    if w.locked or (w.shared.type.name not in HELPERS[name].progs and not w.noisy()):
        return
    if not calls.call_row(w, HELPERS[name]):
        return
    _scope(w, body, "sockc" if name.startswith("skc") else "sock", "sk_release")


def context_socket(w: Writer, body: Body) -> None:
    """Take the context's socket, check it, read it, and ask for more."""
    if w.shared.type.context != "skb" or w.locked or w.held or not w.has_context:
        return
    reg = w.saved()
    if reg is None:
        return
    w.emit(0x79, reg, CTX, SKB["sk"].off)
    w.skip_out(w.emit(0x15, reg))
    w.set(reg, Val("sockc", id=w.new_id()))
    if w.chance(0.4):
        name = w.rng.choice(("sk_fullsock", "tcp_sock", "get_listener_sock"))
        w.emit(0xBF, 1, reg)
        w.emit(CALL, imm=HELPERS[name].id)
        w.clobber()
        w.skip_out(w.emit(0x15, 0))
        w.emit(0xBF, reg, 0)
        w.set(reg, Val("tcp" if name == "tcp_sock" else "sock", id=w.new_id()))
    with w.pin(reg):
        socket_field(w)
        body(w, 1)


def socket_field(w: Writer) -> None:
    """Read a field of a socket."""
    reg = w.find("sock", "sockc", "tcp")
    if reg is None:
        return
    off, size = w.rng.choice(_SOCKET_FIELDS)
    if w.noisy():
        off, size = w.rng.randrange(120), w.rng.choice((1, 2, 4, 8))
    if (w.model.regs[reg] or Val("")).kind == "sockc" and not w.noisy():
        off, size = w.rng.choice(_SOCKET_FIELDS[:2])
    dst = w.free()
    w.emit(0x61 if size == 4 else 0x69 if size == 2 else 0x71 if size == 1 else 0x79, dst, reg, off)
    w.set(dst, Val("num"))


def ring(w: Writer, body: Body) -> None:
    """Reserve part of the ring buffer, write it, and submit or discard it."""
    if w.locked:
        return
    size = w.rng.choice((1, 8, 16, 24, 64, 4096))
    w.load_map(1, "ring")
    w.emit(MOV64, 2, imm=size)
    w.emit(MOV64, 3)
    w.emit(CALL, imm=HELPERS["ringbuf_reserve"].id)
    w.clobber()
    _scope(w, body, "mem", w.rng.choice(("ringbuf_submit", "ringbuf_discard")), size)


def dynptr(w: Writer, body: Body) -> None:
    """Make a dynptr on the stack, read, write and slice it, and give it back when it is a reservation."""
    if w.locked:
        return
    at = -8 * w.rng.randrange(20, 24)
    reserved = w.chance(0.6)
    if reserved:
        w.load_map(1, "ring")
        w.emit(MOV64, 2, imm=w.rng.choice((8, 16, 64)))
        w.emit(MOV64, 3)
    else:
        w.emit(0x18, 1, 6, 0, w.map_index("bss"))
        w.emit(0)
        w.emit(MOV64, 2, imm=w.rng.choice((8, 64, 256)))
        w.emit(MOV64, 3)
    _stack_pointer(w, 4, at)
    w.emit(CALL, imm=HELPERS["ringbuf_reserve_dynptr" if reserved else "dynptr_from_mem"].id)
    w.clobber()
    for off in (at, at + 8):
        w.model.slots.pop(off, None)
    w.held += reserved
    for _ in range(w.rng.choice((0, 1, 2))):
        _use_dynptr(w, at)
    body(w, w.rng.choice((0, 1, 2)))
    w.held -= reserved
    if reserved and not w.noisy():
        _stack_pointer(w, 1, at)
        w.emit(MOV64, 2)
        w.emit(CALL, imm=HELPERS[w.rng.choice(("ringbuf_submit_dynptr", "ringbuf_discard_dynptr"))].id)
        w.clobber()


def _stack_pointer(w: Writer, reg: int, off: int) -> None:
    w.emit(0xBF, reg, FP)
    w.emit(ADD64, reg, imm=off if not w.noisy() else off + w.rng.choice((8, 4, -8)))


def _use_dynptr(w: Writer, at: int) -> None:
    def pointer(w: Writer, reg: int) -> None:
        _stack_pointer(w, reg, at)

    def size(w: Writer, reg: int) -> None:
        w.emit(MOV64, reg, imm=16)

    name = w.rng.choice(("dynptr_read", "dynptr_write", "dynptr_data"))
    ready: dict[int, Body] = {"dynptr_read": {3: pointer}, "dynptr_write": {1: pointer}, "dynptr_data": {1: pointer, 3: size}}[
        name
    ]
    if not calls.call_row(w, HELPERS[name], ready=ready) or name != "dynptr_data":
        return
    if w.chance(0.7):
        out = w.emit(0x15, 0)
        w.emit(0x7A if w.chance(0.5) else 0x72, 0, 0, w.rng.choice((0, 0, 8, 15 if w.noisy() else 8)), 7)
        w.patch(out)
    w.set(0, None)


def lock(w: Writer, body: Body) -> None:
    """Take a map value's lock, change the value, and leave the lock."""
    if w.locked or w.held or (w.shared.type.name == "socket_filter" and not w.noisy()):
        return
    reg = w.saved()
    if reg is None or not calls.call_row(w, HELPERS["map_lookup_elem"], w.rng.choice(("locked", "locked_hash"))):
        return
    w.skip_out(w.emit(0x15, 0))
    w.emit(0xBF, reg, 0)
    w.set(reg, Val("value", 32, name="locked", id=w.new_id()))
    w.set(0, None)
    for name in ("spin_lock", "spin_unlock"):
        if w.noisy():
            continue
        w.emit(0xBF, 1, reg)
        w.emit(ADD64, 1, imm=4 if not w.noisy() else 0)
        w.emit(CALL, imm=HELPERS[name].id)
        w.clobber()
        if name == "spin_lock":
            w.held, w.locked = w.held + 1, True
            with w.pin(reg):
                for _ in range(w.rng.choice((1, 1, 2))):
                    w.emit(w.rng.choice((0x7A, 0x62)), reg, 0, w.rng.choice((8, 16, 24)), w.limit())
                body(w, w.rng.choice((0, 1)))
            w.held, w.locked = w.held - 1, False


def timer(w: Writer, body: Body) -> None:
    """Use the timer in a map value."""
    if w.locked:
        return
    reg = w.saved()
    if reg is None or w.held or not calls.call_row(w, HELPERS["map_lookup_elem"], "timed"):
        return
    w.skip_out(w.emit(0x15, 0))
    w.emit(0xBF, reg, 0)
    w.set(reg, Val("value", 32, name="timed", id=w.new_id()))

    def place(w: Writer, r: int) -> None:
        w.emit(0xBF, r, reg)
        w.emit(ADD64, r, imm=8 if not w.noisy() else 0)

    for name in w.rng.sample(("timer_init", "timer_start", "timer_cancel"), w.rng.choice((1, 2))):
        calls.call_row(w, HELPERS[name], "timed", {1: place})


def kernel_pointer(w: Writer, body: Body) -> None:
    """Exchange a kernel pointer in a map value for nothing, or read it."""
    if w.locked or w.held:
        return
    reg = w.saved()
    if reg is None or not calls.call_row(w, HELPERS["map_lookup_elem"], "kept"):
        return
    w.skip_out(w.emit(0x15, 0))
    w.emit(0xBF, reg, 0)
    w.set(reg, Val("value", 8, name="kept", id=w.new_id()))
    if w.chance(0.85):
        dst = w.free()
        if dst != reg:
            w.emit(0x79, dst, reg, w.rng.choice((8, 16)))
            w.set(dst, None)
        return
    w.emit(0xBF, 1, reg)
    w.emit(ADD64, 1, imm=w.rng.choice((8, 8, 16)))
    w.emit(MOV64, 2)
    w.emit(CALL, imm=HELPERS["kptr_xchg"].id)
    w.clobber()

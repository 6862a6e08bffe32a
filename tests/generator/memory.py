"""Statements on memory: the stack, the packet, map values, the context, and arithmetic on pointers to them."""

from __future__ import annotations

from dataclasses import replace

from generator.maps import MAPS
from generator.writer import ADD64, ADD64X, CTX, FP, JNE, MOV64X, SIZES, SUB64, Val, Writer, room
from tcbpf.tables import opcodes as bpf
from tcbpf.tables.insns import ATOMICS, JUMP
from tcbpf.tables.skb import SKB, XDP, Field

POINTERS = ("fp", "pkt", "meta", "value", "mem")
_ATOMICS = [row for row in ATOMICS if len(row.sizes) == 2]
_ORDERED = [row for row in ATOMICS if len(row.sizes) == 4]
_FIELDS = {"pkt": "pkt", "pkt_meta": "meta", "pkt_end": "end", "sock_common_or_null": "sockc"}
_DIRECT = ("bss", "rodata", "readable", "writable")


def _code(cls: int, mode: int, size: int) -> int:
    return cls | mode | bpf.SIZE_CODE[size]


def spill(w: Writer) -> None:
    """Store on the stack: whole slots and parts of them, numbers and pointers."""
    rng, size = w.rng, w.rng.choice((8, 8, 8, 8, *SIZES))
    slot = -8 * rng.choice((1, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9, 10, 16, 64 if w.level == 0 else 11))
    off = slot + (rng.randrange(8 // size) * size if rng.random() < 0.5 else 0)
    if w.noisy():
        off = rng.choice((slot + 1, 0, -516, 8, slot - 4))
    src = w.find("num", "num", "ctx", *POINTERS, "sock", "map") if rng.random() < 0.8 else None
    if src is None:
        w.emit(_code(bpf.ST, bpf.MEM, size), FP, 0, off, w.limit())
        w.model.slots[slot] = Val("num") if size == 8 else None
        return
    val = w.model.regs[src]
    if val and val.kind != "num" and not w.noisy():
        size, off = 8, slot
    w.emit(_code(bpf.STX, bpf.MEM, size), FP, src, off)
    w.model.slots[slot] = val if size == 8 and off == slot else None


def fill(w: Writer) -> None:
    """Load from the stack: what was spilled, parts of it, what was never written."""
    rng, dst, slots = w.rng, w.free(), w.model.slots
    if not slots:
        return spill(w)
    slot = rng.choice(list(slots))
    val = slots[slot]
    if val and val.kind != "num" and not w.noisy():
        w.emit(_code(bpf.LDX, bpf.MEM, 8), dst, FP, slot)
        return w.set(dst, val)
    size = rng.choice((8, 8, *SIZES))
    off = slot + (rng.randrange(8 // size) * size if rng.random() < 0.5 else 0)
    if rng.random() < 0.04:
        off = rng.choice((-8, -24, -128, slot - 8, slot - 4))
    mode = bpf.MEMSX if size < 8 and rng.random() < 0.2 else bpf.MEM
    w.emit(_code(bpf.LDX, mode, size), dst, FP, off)
    w.set(dst, Val("num", 255 if size == 1 and mode == bpf.MEM else -1))
    return None


def access(w: Writer) -> None:
    """Load from or store to the packet, a map value or the stack, near the limit."""
    rng, reg = w.rng, w.find(*POINTERS)
    if reg is None:
        return
    val = w.model.regs[reg] or Val("value", 8)
    first, end = room(val, w.model)
    size = rng.choice(SIZES)
    if end - first < size and not w.noisy():
        return
    last = max(first, end - size)
    off = rng.choice((first, last, rng.randint(first, last), rng.randint(first, last)))
    if val.kind == "fp" and not w.noisy():
        off = max(first, (off + val.off) // size * size - val.off)
    elif w.noisy() or rng.random() < 0.01:
        off = rng.choice((last + 1, first - 1, last + size))
    writes = rng.random() < 0.4
    if val.kind == "value" and not w.noisy():
        flags = MAPS[val.name].flags if val.name in MAPS else 0
        writes = False if flags & 0x80 else True if flags & 0x100 else writes
    if val.kind in ("pkt", "meta") and not w.shared.type.direct_write and not w.noisy():
        writes = False
    if not writes:
        dst = w.free()
        w.emit(_code(bpf.LDX, bpf.MEMSX if size < 8 and rng.random() < 0.1 else bpf.MEM, size), dst, reg, off)
        w.set(dst, Val("num", 255 if size == 1 else -1))
    elif rng.random() < 0.3:
        w.emit(_code(bpf.ST, bpf.MEM, size), reg, 0, off, w.limit())
    else:
        src = w.number()
        w.emit(_code(bpf.STX, bpf.MEM, size), reg, src, off)
    if writes and val.kind == "fp" and not val.var:
        w.model.slots[(val.off + off) // 8 * 8] = None


def atomic(w: Writer) -> None:
    """Do an atomic on the stack or in a map value, or an ordered load or store of any size."""
    rng = w.rng
    reg = w.find("fp", "value", "mem")
    if reg is None:
        return None
    val = w.model.regs[reg] or Val("fp")
    first, end = room(val, w.model)
    ordered = rng.random() < 0.3
    row = rng.choice(_ORDERED if ordered else _ATOMICS)
    size = rng.choice(row.sizes)
    if end - first < size:
        return None
    if reg == FP:
        slots = w.model.slots
        off = rng.choice(list(slots)) if slots and not w.noisy() else -8
        if not slots or (slots.get(off) and slots[off].kind != "num"):  # type: ignore[union-attr]
            w.emit(_code(bpf.ST, bpf.MEM, 8), FP, 0, off, 5)
        w.model.slots[off] = None
    else:
        off = (rng.randint(first, end - size) + val.off) // size * size - val.off
        off = off if off >= first else off + size
    if row.name == "LOAD_ACQ":
        dst = w.free()
        w.emit(_code(bpf.STX, bpf.ATOMIC, size), dst, reg, off, row.imm)
        return w.set(dst, Val("num"))
    src = w.scratch() if row.fetch else w.number()
    if row.name == "CMPXCHG":
        w.constant(0)
    w.emit(_code(bpf.STX, bpf.ATOMIC, size), reg, src, off, row.imm)
    if row.fetch:
        w.set(0 if row.name == "CMPXCHG" else src, Val("num"))
    return None


def pointer(w: Writer) -> None:
    """Move a pointer by a constant or by a bounded number."""
    rng, src = w.rng, w.find(*POINTERS)
    if src is None:
        src = FP
    dst = w.free()
    if dst in (src, FP):
        return
    w.move(dst, src)
    val = w.model.regs[dst]
    if val is None:
        return
    if val.kind == "fp" and src == FP:
        step = -8 * rng.choice((1, 2, 3, 4, 8, 64)) if not w.noisy() else rng.choice((-13, 8, -520))
    else:
        step = rng.choice((0, 1, 4, 8, 14, -4, -1))
    if step:
        code, imm = (ADD64, step) if rng.random() < 0.8 or val.kind == "fp" else (SUB64, -step)
        w.emit(code, dst, imm=imm)
        val = replace(val, off=val.off + step)
    if rng.random() < 0.4:
        most = rng.choice((1, 3, 7, 8, 15, 16, 31))
        with w.pin(dst):
            index = w.small(most, avoid=(dst,))
        if index is not None and index != dst:
            w.set(dst, val)
            w.emit(ADD64X if not w.noisy() else 0x1F, dst, index)
            known = w.model.regs[index]
            most = known.size if known and known.size >= 0 else most
            val = Val(val.kind, id=w.new_id()) if val.kind in ("pkt", "meta") else replace(val, var=val.var + most)
    w.set(dst, val)


def context(w: Writer) -> None:
    """Load a context field, whole or in part, or store to one."""
    rng, kind = w.rng, w.shared.type.name
    table = XDP if w.shared.type.context == "xdp" else SKB
    base = CTX if w.has_context else w.find("ctx")
    if base is None:
        return
    rows: list[Field] = [row for row in table if w.noisy() or (kind in row.read and not row.attach_type)]
    if rng.random() < 0.25:
        written = [row for row in table if kind in row.write]
        if written:
            row = rng.choice(written)
            size = row.size if not w.noisy() else rng.choice(SIZES)
            if row.narrow_write and rng.random() < 0.4:
                size = rng.choice((1, 2, 4))
            if row.wide and rng.random() < 0.2:
                size = 8
            if rng.random() < 0.2:
                w.emit(_code(bpf.ST, bpf.MEM, size), base, 0, row.off, w.limit())
            else:
                w.emit(_code(bpf.STX, bpf.MEM, size), base, w.number(), row.off)
            return
    row, dst = rng.choice(rows), w.free()
    size, off = row.size, row.off
    if row.narrow and rng.random() < 0.3:
        size = rng.choice((1, 2))
        off += rng.randrange(4 // size) * size
    elif row.wide and rng.random() < 0.2:
        size = 8
    elif w.noisy() or rng.random() < 0.01:
        size, off = rng.choice(SIZES), rng.randrange(0, 196)
    w.emit(_code(bpf.LDX, bpf.MEMSX if rng.random() < 0.03 and size < 8 else bpf.MEM, size), dst, base, off)
    if row.pointer and size == row.size and off == row.off:
        w.set(dst, Val(_FIELDS.get(row.pointer, "other"), maybe=row.pointer == "sock_common_or_null", id=w.new_id()))
    else:
        w.set(dst, Val("num", 255 if size == 1 else -1))


def packet(w: Writer) -> None:
    """Prove some bytes of the packet, by one of the ways that programs compare data with data_end."""
    rng, type = w.rng, w.shared.type
    if w.held or not w.has_context or (not type.direct_read and not w.noisy()):
        return
    data_off, end_off, meta_off = (0, 4, 8) if type.context == "xdp" else (76, 80, 140)
    regs = [r for r in (1, 2, 3, 4, 5, 7, 8, 9, 0) if r not in w.pinned]
    data, end, edge = rng.sample(regs, 3)
    size = rng.choice((1, 2, 4, 8, 14, 20, 34, 40, 64, 200))
    meta = type.name in ("sched_cls", "sched_act", "xdp") and rng.random() < 0.15
    first, last = (meta_off, data_off) if meta else (data_off, end_off)
    known = w.find("pkt")
    if known is not None and not meta and known in regs and rng.random() < 0.5:
        data = known
        end, edge = rng.sample([r for r in regs if r != data], 2)
    else:
        w.emit(_code(bpf.LDX, bpf.MEM, 4), data, CTX, first)
        w.set(data, Val("meta" if meta else "pkt", id=w.new_id()))
    w.emit(_code(bpf.LDX, bpf.MEM, 4), end, CTX, last)
    w.set(end, Val("pkt", id=w.new_id()) if meta else Val("end"))
    val = w.model.regs[data] or Val("pkt")
    w.emit(MOV64X, edge, data)
    w.emit(ADD64, edge, imm=size)
    w.set(edge, replace(val, off=val.off + size))
    proved = val.off + size
    shape = rng.randrange(8)
    # out: which way leaves when too short.  edge > end, edge >= end, end < edge, end <= edge; and the four that go on.
    if shape < 4:
        code, one, two = ((0x2D, edge, end), (0x3D, edge, end), (0xAD, end, edge), (0xBD, end, edge))[shape]
        w.skip_out(w.emit(code, one, two))
        proved += shape & 1
    else:
        code, one, two = ((0xBD, edge, end), (0xAD, edge, end), (0x3D, end, edge), (0x2D, end, edge))[shape - 4]
        at = w.emit(code, one, two)
        w.leave()
        w.patch(at)
        proved += shape & 1
    if val.id:
        w.model.proved[val.id] = max(w.model.proved.get(val.id, 0), proved if not w.noisy() else proved + 1)


def compare(w: Writer) -> None:
    """Compare pointers, or subtract them."""
    one, two = w.find("pkt", "meta", "value"), w.find("end", "pkt", "value", "fp")
    if one is None or two is None:
        return None
    if w.chance(0.4):
        dst = w.free()
        if dst in (one, two):
            return None
        w.emit(MOV64X, dst, one)
        w.emit(0x1F, dst, two)  # a number for those who may see addresses
        return w.set(dst, Val("num"))
    row = w.rng.choice(JUMP.rows)
    w.emit(bpf.JMP | row.code << 4 | bpf.X, one, two, 0)
    return None


def direct(w: Writer) -> None:
    """Point straight into a map's only value."""
    dst, name = w.free(), w.rng.choice(_DIRECT)
    size = MAPS[name].value_size
    off = w.rng.choice((0, 0, 8, 16, size - 8, size - 1)) if not w.noisy() else w.rng.choice((size, 1 << 29))
    w.emit(0x18, dst, bpf.PSEUDO_MAP_IDX_VALUE, 0, w.map_index(name))
    w.emit(0, imm=off)
    w.set(dst, Val("value", size, off, name=name))


def null_check(w: Writer) -> None:
    """Check a pointer that may be NULL."""
    found = [r for r, v in enumerate(w.model.regs) if v and v.maybe]
    if not found or w.held:
        return
    reg = w.rng.choice(found)
    val = w.model.regs[reg]
    assert val is not None
    if w.chance(0.7):
        at = w.emit(JNE, reg)
        w.leave()
        w.patch(at)
    else:
        w.skip_out(w.emit(0x15, reg))
    w.checked(val.id)


def packet_load(w: Writer) -> None:
    """Load packet bytes by LD_ABS or LD_IND."""
    if w.held or w.locked or not (w.shared.type.ld_abs or w.noisy()) or not w.has_context:
        return
    size = w.rng.choice((1, 2, 4))
    if w.chance(0.5):
        w.emit(_code(bpf.LD, bpf.ABS, size), imm=w.rng.choice((0, 12, 14, 23, -0x1000, w.limit())))
    else:
        w.emit(_code(bpf.LD, bpf.IND, size), src=w.number(), imm=w.rng.choice((0, 4, 14)))
    w.clobber()
    w.set(0, Val("num"))

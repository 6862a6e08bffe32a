"""Conditional jumps: which ways can be taken, and what each tells about scalars, packet ranges and NULL.

Source:  check_cond_jmp_op(), find_good_pkt_pointers(), mark_ptr_or_null_regs(), sync_linked_regs(),
         kernel/bpf/verifier.c (v6.18).
"""

from __future__ import annotations

from typing import Final

from tcbpf.tables.insns import ALU
from tcbpf.verifier.memory.graph import record_at
from tcbpf.verifier.memory.invalidate import replace_registers
from tcbpf.verifier.memory.pointer import never_null
from tcbpf.verifier.memory.references import drop_reference
from tcbpf.verifier.paths.paths import push_path
from tcbpf.verifier.paths.precision import mark_precise
from tcbpf.verifier.paths.prune import previous_entry, push_step, widen
from tcbpf.verifier.state.env import MAX_PACKET_OFF, Env
from tcbpf.verifier.state.insns import Ins
from tcbpf.verifier.state.state import (
    AT_PKT_END,
    BEYOND_PKT_END,
    STEP_DST_IS_STACK,
    STEP_SRC_IS_STACK,
    Reg,
    Slot,
    State,
)
from tcbpf.verifier.values.branch import refine, taken
from tcbpf.verifier.values.scalar import Scalar, const
from tcbpf.verifier.values.transfer import alu, zero_extend
from tcbpf.verifier.values.types import (
    BASE,
    BTF_ID,
    MAP_PTR,
    MAP_VALUE,
    MAYBE_NULL,
    NOT_INIT,
    PACKET,
    PACKET_END,
    PACKET_META,
    SCALAR,
    SOCKET,
    STACK,
    XDP_SOCK,
    is_packet_any,
)

MAX_LINKED: Final = 6
_ADD: Final = ALU["ADD"]


def jump(env: Env, ins: Ins) -> int:
    """if dst op src goto target."""
    regs = env.frame.regs
    dst = regs[ins.dst]
    if dst.type == NOT_INIT:
        env.refuse("uninitialized_register", reg=ins.dst)
    flags = STEP_DST_IS_STACK if dst.type == STACK else 0
    if ins.use_reg:
        src = regs[ins.src]
        if src.type == NOT_INIT:
            env.refuse("uninitialized_register", reg=ins.src)
        if src.type != SCALAR and not env.allow_leaks and not (is_packet_any(dst.type) and is_packet_any(src.type)):
            env.refuse("pointer_comparison", reg=ins.src)
        if src.type == STACK:
            flags |= STEP_SRC_IS_STACK
    else:
        assert ins.k is not None
        src = ins.k
    if flags:
        push_step(env, env.cur, flags)
    way = _decided(ins, dst, src)
    if way is not None:
        if dst.type == SCALAR:
            mark_precise(env, ins.dst)
        if ins.use_reg and src.type == SCALAR:
            mark_precise(env, ins.src)
        return ins.target if way else ins.next
    return _both_ways(env, ins, dst, src)


def may_goto(env: Env, ins: Ins) -> int:
    """Jump, or fall through as often as the counter allows: fall through once more, with what the round changed forgotten."""
    before = env.cur.parent
    previous = previous_entry(env, before, env.pc) if before is not None else None
    other = env.cur.copy()
    push_path(env, other, ins.next)
    other.may_goto_depth += 1
    if previous is not None:
        widen(env, previous, other)
    return ins.target


# --- which way ---------------------------------------------------------------------------------------------------------

_FLIPPED: Final = {"JGE": "JLE", "JGT": "JLT", "JLE": "JGE", "JLT": "JGT"}


def _decided(ins: Ins, dst: Reg, src: Reg) -> bool | None:
    """Tell whether the jump is taken, None when both ways are possible.

    Differs: the lower half of a pointer may be zero, so that a 32-bit comparison with 0 can go both ways. The kernel follows
             only the way of a pointer that is not NULL.
    """
    if dst.type == SCALAR and src.type == SCALAR:
        if ins.use_reg and ins.src == ins.dst:
            yes, no = refine(ins.row, ins.width, dst.val, src.val, True)
            return None if yes and no else yes is not None
        return taken(ins.row, ins.width, dst.val, src.val)
    name = ins.row.name
    if is_packet_any(dst.type) and is_packet_any(src.type) and ins.width == 64:
        return _packet_decided(name, dst, src)
    if ins.width == 32:
        return None
    if src.type != SCALAR or src.val.mask:
        dst, src = src, dst
    if src.type != SCALAR or src.val.mask or dst.type == SCALAR or not never_null(dst) or src.val.value:
        return None
    return {"JEQ": False, "JNE": True}.get(name)


def _packet_decided(name: str, dst: Reg, src: Reg) -> bool | None:
    if src.type == PACKET_END:
        packet = dst
    elif dst.type == PACKET_END:
        packet, name = src, _FLIPPED.get(name, name)
    else:
        return None
    if packet.type == PACKET_END or packet.range >= 0:
        return None
    beyond, at = packet.range == BEYOND_PKT_END, packet.range == AT_PKT_END
    if name in ("JLE", "JGT") and beyond:
        return name == "JGT"
    if name in ("JLT", "JGE") and (beyond or at):
        return name == "JGE"
    return None


def _both_ways(env: Env, ins: Ins, dst: Reg, src: Reg) -> int:
    state = env.cur
    linked = _linked(env, ins, dst, src)
    if len(linked) > 1:
        push_step(env, state, 0, tuple(linked))
        regs = env.frame.regs
        dst, src = regs[ins.dst], regs[ins.src] if ins.use_reg else src
    other = state.copy()
    push_path(env, other, ins.target)
    if dst.type == SCALAR and src.type == SCALAR:
        same = ins.use_reg and ins.src == ins.dst
        yes, no = refine(ins.row, ins.width, dst.val, src.val, same)
        assert yes is not None and no is not None
        for way, (new_dst, new_src) in ((state, no), (other, yes)):
            _learn(way, ins, dst, src, _with_value(dst, new_dst), _with_value(src, new_src), linked)
        return ins.next
    _nullness_of_equals(ins, dst, src, state, other)
    name = ins.row.name
    if not ins.use_reg and ins.width == 64 and ins.imm == 0 and name in ("JEQ", "JNE") and dst.type & MAYBE_NULL:
        _settle_null(state, dst, name == "JNE")
        _settle_null(other, dst, name == "JEQ")
        return ins.next
    matched = ins.use_reg and ins.width == 64 and _match_packet(ins, dst, src, state, other)
    if not matched and dst.type != SCALAR and not env.allow_leaks:
        env.refuse("pointer_comparison", reg=ins.dst)
    return ins.next


# --- scalars -----------------------------------------------------------------------------------------------------------

Place = tuple[int, bool, int]


def _linked(env: Env, ins: Ins, dst: Reg, src: Reg) -> list[Place]:
    """Return the places of the scalars that are linked to the operands; those that are too many lose their link.

    A register that nothing reads any more is not among them.
    """
    found: list[Place] = []
    if ins.use_reg and src.type == SCALAR and src.id:
        _collect(env, src.id, found)
    if dst.type == SCALAR and dst.id:
        _collect(env, dst.id, found)
    return found


def _collect(env: Env, id: int, found: list[Place]) -> None:
    last = len(env.cur.frames) - 1
    for number in range(last, -1, -1):
        frame = env.cur.frames[number]
        live = env.live_regs[env.pc if number == last else env.cur.frames[number + 1].callsite]
        for i in range(10):
            reg = frame.regs[i]
            if reg.id == id and reg.type == SCALAR and live >> i & 1:
                if len(found) < MAX_LINKED:
                    found.append((number, True, i))
                else:
                    frame.regs[i] = reg.with_id(0)
        for i, slot in enumerate(frame.stack):
            spilled = slot.reg
            if spilled is not None and spilled.id == id and spilled.type == SCALAR and slot.spilled:
                if len(found) < MAX_LINKED:
                    found.append((number, False, i))
                else:
                    frame.stack[i] = Slot(slot.kinds, spilled.with_id(0))


def _with_value(reg: Reg, val: Scalar) -> Reg:
    return reg if val is reg.val else Reg(SCALAR, val, 0, reg.id, 0, reg.delta)


def _learn(state: State, ins: Ins, dst: Reg, src: Reg, new_dst: Reg, new_src: Reg, linked: list[Place]) -> None:
    """Put what a branch tells into a state: the operands, then all that is linked to them."""
    regs = state.frames[-1].regs
    regs[ins.dst] = new_dst
    if ins.use_reg and ins.src != ins.dst:
        regs[ins.src] = new_src
        if src.id:
            _sync(state, new_src, linked)
            new_dst = regs[ins.dst]
    if dst.id:
        _sync(state, new_dst, linked)


def _sync(state: State, known: Reg, linked: list[Place]) -> None:
    """Tell the scalars that are linked to a known one about it: those of its id, each at its own distance."""
    base = known.delta
    for number, is_reg, i in linked:
        frame = state.frames[number]
        old = frame.regs[i] if is_reg else frame.stack[i].reg
        if old is None or old is known or old.type != SCALAR or old.id != known.id:
            continue
        delta = old.delta
        if delta is not None and base is not None and delta.width != base.width:
            continue  # a distance at 32 bits says nothing about one at 64
        step = (delta.value if delta is not None else 0) - (base.value if base is not None else 0)
        if not step:
            new = Reg(SCALAR, known.val, 0, known.id, 0, base)
        else:
            moved = alu(_ADD, 64, known.val, const(step))
            if (delta if delta is not None else base).width == 32:  # type: ignore[union-attr]
                moved = zero_extend(moved)
            new = Reg(SCALAR, moved, 0, old.id, 0, delta)
        if is_reg:
            frame.regs[i] = new
        else:
            frame.stack[i] = Slot(frame.stack[i].kinds, new)


# --- NULL --------------------------------------------------------------------------------------------------------------


def not_null(reg: Reg) -> Reg:
    """Return what a pointer is once it is known not to be NULL."""
    if reg.type & BASE == MAP_VALUE:
        map = reg.map
        if map.inner is not None:
            uid = reg.id if map.inner.record is not None else 0
            return Reg(MAP_PTR, reg.val, 0, reg.id, reg.ref, map.inner, uid)
        if map.type == "xskmap":
            return Reg(XDP_SOCK, reg.val, 0, reg.id, reg.ref)
        if map.type in ("sockmap", "sockhash"):
            return Reg(SOCKET, reg.val, 0, reg.id, reg.ref)
    return reg.with_type(reg.type & ~MAYBE_NULL)


def _settle_null(state: State, tested: Reg, is_null: bool) -> None:
    """All pointers of one id are NULL, or none is."""
    id, ref = tested.id, tested.ref
    if ref and ref == id and is_null:
        drop_reference(state, id)

    def change(reg: Reg) -> Reg:
        if not reg.type & MAYBE_NULL or reg.id != id:
            return reg
        if is_null:
            return Reg(SCALAR, reg.val)
        new = not_null(reg)
        record = record_at(new)
        if record is not None and (record.has("bpf_spin_lock") or record.has("bpf_res_spin_lock")):
            return new
        return Reg(new.type, new.val, new.off, 0, new.ref, new.extra, new.uid)

    replace_registers(state, change)


def _nullness_of_equals(ins: Ins, dst: Reg, src: Reg, state: State, other: State) -> None:
    """A pointer that equals one that is never NULL is not NULL either."""
    name = ins.row.name
    if (
        ins.width == 32
        or not ins.use_reg
        or dst.type == SCALAR
        or src.type == SCALAR
        or dst.type & BASE == BTF_ID
        or src.type & BASE == BTF_ID
        or name not in ("JEQ", "JNE")
    ):
        return
    regs = (other if name == "JEQ" else state).frames[-1].regs
    if never_null(dst) and src.type & MAYBE_NULL:
        regs[ins.src] = not_null(src)
    if never_null(src) and dst.type & MAYBE_NULL:
        regs[ins.dst] = not_null(dst)


# --- packet ranges -----------------------------------------------------------------------------------------------------


def _is_start(reg: Reg) -> bool:
    return reg.type == PACKET and not reg.id and not reg.off and not reg.val.mask and not reg.val.value


def _match_packet(ins: Ins, dst: Reg, src: Reg, state: State, other: State) -> bool:
    """Learn how much of the packet is there from a comparison with its end (or of metadata with the packet's start)."""
    name = ins.row.name
    if name not in _FLIPPED:
        return False
    forward = (dst.type == PACKET and src.type == PACKET_END) or (dst.type == PACKET_META and _is_start(src))
    backward = (dst.type == PACKET_END and src.type == PACKET) or (_is_start(dst) and src.type == PACKET_META)
    if not forward and not backward:
        return False
    # in terms of "packet OP end"
    packet, regno, op = (dst, ins.dst, name) if forward else (src, ins.src, _FLIPPED[name])
    if op == "JGT":  # packet > end: not taken means packet <= end
        _extend(state, packet, strict=False)
        _mark_end(other, regno, BEYOND_PKT_END)
    elif op == "JLT":  # packet < end: taken
        _extend(other, packet, strict=True)
        _mark_end(state, regno, AT_PKT_END)
    elif op == "JGE":  # packet >= end: not taken means packet < end
        _extend(state, packet, strict=True)
        _mark_end(other, regno, AT_PKT_END)
    else:  # packet <= end: taken
        _extend(other, packet, strict=False)
        _mark_end(state, regno, BEYOND_PKT_END)
    return True


def _extend(state: State, packet: Reg, *, strict: bool) -> None:
    """Bytes up to this pointer are there, one more when it lies strictly below the end: for all pointers of its id."""
    if packet.off < 0 or (packet.off == 0 and strict):
        return
    if packet.val.umax > MAX_PACKET_OFF or packet.val.umax + packet.off > MAX_PACKET_OFF:
        return
    proved = packet.off + strict
    type, id = packet.type, packet.id

    def change(reg: Reg) -> Reg:
        return reg.with_range(proved) if reg.type == type and reg.id == id and reg.range < proved else reg

    replace_registers(state, change)


def _mark_end(state: State, regno: int, where: int) -> None:
    """The pointer itself is at or beyond the end on this way; no range comes of it."""
    regs = state.frames[-1].regs
    if regs[regno].type == PACKET:
        regs[regno] = regs[regno].with_range(where)

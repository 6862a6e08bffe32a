"""The log of a verification, in the kernel's own format, so that tools which read kernel logs read ours.

Source:  kernel/bpf/log.c, print_insn_state(), print_verifier_state(), print_bpf_insn() (v6.18).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from tcbpf.tables.insns import Kind
from tcbpf.verifier.state.state import Dynptr, Frame, Iterator, Reg, Slot, State
from tcbpf.verifier.values.scalar import format_signed, format_unsigned
from tcbpf.verifier.values.types import (
    BASE,
    BTF_ID,
    DYNPTR,
    MAP_KEY,
    MAP_PTR,
    MAP_VALUE,
    MEM,
    NON_OWN_REF,
    NOT_INIT,
    SCALAR,
    STACK,
    is_packet,
    type_name,
)

if TYPE_CHECKING:
    from tcbpf.verifier.state.env import Env

LEVEL1, LEVEL2, STATS, VISITS = 1, 2, 4, 8
"""What bpf(2) knows, and one more: VISITS is level 2 without its lines about precision and liveness, at a part of the time."""

PATHS: Final = LEVEL1 | LEVEL2 | VISITS
_ALIGN, _MIN_ALIGN = 40, 8
_LOOP_SAVES, _MAY_GOTO_COUNTS = 24, 16  # bytes of stack


class Log:
    """What was written so far: text that can be cut back to an earlier place.

    Level 1 cuts back to where a path branched off when it takes up another, as the kernel does; level 2 keeps all.

    Units:   places are characters.
    """

    __slots__ = ("_parts", "end", "level")

    def __init__(self, level: int) -> None:
        self.level = level
        self._parts: list[str] = []
        self.end = 0

    def write(self, text: str) -> None:
        """Add text as it is."""
        self._parts.append(text)
        self.end += len(text)

    def line(self, text: str) -> None:
        """Add a line."""
        self.write(text + "\n")

    def cut(self, place: int) -> None:
        """Forget what was written after `place`."""
        while self.end > place:
            last = self._parts.pop()
            self.end -= len(last)
            if self.end < place:
                self.write(last[: place - self.end])

    def text(self) -> str:
        """Return the whole log."""
        return "".join(self._parts)


def column(width: int) -> int:
    """Return how many blanks stand between an instruction of that width and the semicolon behind it.

    Units:   characters; width counts the line's end.
    """
    return -(-max(width + _MIN_ALIGN // 2, _ALIGN) // _MIN_ALIGN) * _MIN_ALIGN - width - 1


# --- one register, one slot, one state ---------------------------------------------------------------------------------

_MAPS: Final = (MAP_PTR, MAP_KEY, MAP_VALUE)
_MAP_NAME: Final = 15  # what the kernel keeps of a map's name


def format_reg(reg: Reg, frame: int, precise: bool = False) -> str:
    """Return a register as the kernel prints it: "scalar(umax=255,var_off=(0x0; 0xff))", "pkt(off=14,r=14)", "fp-8"."""
    type, val = reg.type, reg.val
    mark = "P" if precise and type == SCALAR else ""
    if type == SCALAR and not val.mask:
        return mark + format_signed(val.value)
    name = mark + type_name(type)
    if type == STACK:
        if reg.extra != frame:
            name += f"[{reg.extra}]"
        if not val.mask:
            return name + format_signed(val.smin + reg.off)
    parts: list[str] = []
    if reg.id:
        delta = f"{reg.extra.value:+d}" if type == SCALAR and reg.extra is not None else ""
        parts.append(f"id={reg.id}{delta}")
    if reg.ref:
        parts.append(f"ref_obj_id={reg.ref}")
    if type & NON_OWN_REF:
        parts.append("non_own_ref")
    base = type & BASE
    if base == BTF_ID:
        name += str(reg.extra)
    if base in _MAPS and reg.extra is not None:
        if reg.extra.name:
            parts.append(f"map={reg.extra.name[:_MAP_NAME]}")
        parts.append(f"ks={reg.extra.key_size},vs={reg.extra.value_size}")
    if type != SCALAR and reg.off:
        parts.append(f"off={format_signed(reg.off)}")
    if is_packet(type):
        parts.append(f"r={format_unsigned(reg.extra & 0xFFFFFFFFFFFFFFFF)}")
    if base == MEM:
        parts.append(f"sz={format_unsigned(reg.extra)}")
    if base == DYNPTR and isinstance(reg.extra, Dynptr):
        parts.append(f"type={reg.extra.kind}")
    if not val.mask:
        if val.value:
            parts.append(f"imm={format_signed(val.value)}")
    else:
        ranges = val.ranges()
        if ranges:
            parts.append(ranges)
    return f"{name}({','.join(parts)})"


def format_slot(spi: int, slot: Slot, frame: int, precise: bool = False) -> str:
    """Return a stack slot as the kernel prints it: "fp-8=mmmmmmmm", "fp-16=r" and the register; empty for an unused one."""
    if slot.kinds == "????????":
        return ""
    place = f"fp{-(spi + 1) * 8}"
    last, reg = slot.kinds[7], slot.reg
    if last == "r" and reg is not None:
        return f"{place}={slot.kinds[: slot.kinds.index('r')]}{format_reg(reg, frame, precise)}"
    if last == "d" and reg is not None and isinstance(reg.extra, Dynptr):
        parts = [f"id={reg.id}"] if reg.id else []
        if reg.ref:
            parts.append(f"ref_id={reg.ref}")
        parts.append("dynptr_id=1")  # the kernel has the mark of a first slot where it looks for an id
        return f"{place}=dynptr_{reg.extra.kind}({','.join(parts)})"
    if last == "i" and reg is not None and isinstance(reg.extra, Iterator):
        if not reg.ref:
            return ""
        state = "active" if reg.extra.active else "drained"
        return f"{place}=iter_{reg.extra.kind}(ref_id={reg.ref},state={state},depth={reg.extra.depth})"
    return f"{place}={slot.kinds}"


ALL: Final = (1 << 64) - 1


def format_state(state: State, frame: Frame, regs: int = ALL, slots: int = ALL) -> str:
    """Return a frame's registers and slots as the kernel prints them, each behind a blank; of those in the masks."""
    words = [f" frame{frame.number}:"] if frame.number else []
    for i, reg in enumerate(frame.regs):
        if reg.type != NOT_INIT and regs >> i & 1:
            words.append(f" R{i}={format_reg(reg, frame.number, bool(frame.precise >> i & 1))}")
    skip = -1
    for i, slot in enumerate(frame.stack):
        if not slots >> i & 1 or i == skip:
            continue
        shown = i
        if slot.kinds[7] == "d":  # a dynptr is printed at its main slot, the second of the two
            shown = skip = min(i + 1, len(frame.stack) - 1)
        if text := format_slot(shown, frame.stack[shown], frame.number, bool(frame.precise_slots >> shown & 1)):
            words.append(f" {text}")
    if state.refs:
        words.append(" refs=" + ",".join(str(ref.id) for ref in state.refs))
    if frame.in_callback:
        words.append(" cb")
    if frame.in_async_callback:
        words.append(" async_cb")
    return "".join(words)


def format_mask(mask: int, word: str) -> str:
    """Return the numbers in a mask: "r1,r6" of registers, "-8,-24" or "fp-8" of stack slots."""
    return ",".join(f"{word}{i if word == 'r' else -(i + 1) * 8}" for i in range(mask.bit_length()) if mask >> i & 1)


def _depths(env: Env, *, accepted: bool) -> str:
    """Return the stack of each function: of an accepted program as the kernel rewrites it, without the dead functions."""
    if not accepted:
        return "+".join(str(sub.stack_depth) for sub in env.subprogs)
    depths = []
    for sub in env.subprogs:
        here = [ins for ins in env.ins[sub.start : sub.end] if env.aux[ins.pc].seen]
        if not here and env.capable:
            continue
        depth = sub.stack_depth
        if any(env.loops.get(ins.pc) for ins in here):
            depth += _LOOP_SAVES
        if any(ins.kind is Kind.MAY_GOTO for ins in here):
            depth += _MAY_GOTO_COUNTS
        depths.append(str(depth))
    throws = any(kfunc.name == "bpf_throw" and env.aux[pc].seen for pc, kfunc in env.kfunc_at.items())
    if throws and not any(sub.is_exception for sub in env.subprogs):
        depths.append("0")  # the function that the kernel adds to catch what is thrown
    return "+".join(depths)


def write_summary(env: Env, began: int, *, accepted: bool) -> None:
    """Write the last lines of a log: time and stack when the level asks for them, and what was counted.

    Units:   began in nanoseconds of time.perf_counter_ns().
    """
    stats, log = env.stats, env.log
    if log.level & STATS:
        log.line(f"verification time {(time.perf_counter_ns() - began) // 1000} usec")
        log.line(f"stack depth {_depths(env, accepted=accepted)}")
    log.line(
        f"processed {env.processed} insns (limit {env.max_insns}) max_states_per_insn {stats.max_states_per_insn} "
        f"total_states {stats.total_states} peak_states {stats.peak_states} mark_read 0"
    )

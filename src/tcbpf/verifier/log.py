"""The log of a verification, in the kernel's own format, so that tools which read kernel logs read ours.

Source:  kernel/bpf/log.c, print_insn_state(), print_verifier_state(), print_bpf_insn() (v6.18).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tcbpf.verifier.scalar import format_signed, format_unsigned
from tcbpf.verifier.state import Dynptr, Frame, Iterator, Reg, Slot, State
from tcbpf.verifier.types import (
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
    from tcbpf.verifier.env import Env

LEVEL1, LEVEL2, STATS = 1, 2, 4
_ALIGN, _MIN_ALIGN = 40, 8


class Log:
    """Lines written so far.

    Level 1 forgets the lines of a path when it takes up another, as the kernel does; level 2 keeps all.
    """

    __slots__ = ("_text", "level", "pending")

    def __init__(self, level: int) -> None:
        self.level = level
        self._text: list[str] = []
        self.pending = -1                      # where the last instruction's line starts, while its state may follow on it

    def write(self, line: str) -> None:
        """Add a line."""
        self._text.append(line)
        self.pending = -1

    def mark(self) -> int:
        """Return where the log is now."""
        return len(self._text)

    def forget(self, mark: int) -> None:
        """Drop what was written since `mark`, unless the level keeps everything."""
        if not self.level & LEVEL2:
            del self._text[mark:]
            self.pending = -1

    def instruction(self, line: str) -> None:
        """Add an instruction's line, to which its effect may be appended."""
        self._text.append(line)
        self.pending = len(self._text) - 1

    def effect(self, pc: int, text: str) -> None:
        """Append what changed to the line of the instruction that changed it, or to a line of its own."""
        if self.pending >= 0 and self.pending == len(self._text) - 1:
            line = self._text[self.pending]
            width = len(line) + 1
            column = -(-max(width + _MIN_ALIGN // 2, _ALIGN) // _MIN_ALIGN) * _MIN_ALIGN
            gap = " " * max(column - width - 1, 1)
            self._text[self.pending] = f"{line}{gap}; {text}"
            self.pending = -1
        else:
            self.write(f"{pc}: {text}")

    def text(self) -> str:
        """Return the whole log."""
        return "".join(line + "\n" for line in self._text)


# --- one register, one slot, one state ---------------------------------------------------------------------------------

_MAPS: Final = (MAP_PTR, MAP_KEY, MAP_VALUE)


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
            parts.append(f"map={reg.extra.name}")
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
        return f"{place}={slot.kinds[:slot.kinds.index('r')]}{format_reg(reg, frame, precise)}"
    if last == "d" and reg is not None and isinstance(reg.extra, Dynptr):
        if not reg.extra.first:
            return ""
        parts = [f"id={reg.id}"] if reg.id else []
        if reg.ref:
            parts.append(f"ref_id={reg.ref}")
        return f"{place}=dynptr_{reg.extra.kind}({','.join(parts)})"
    if last == "i" and reg is not None and isinstance(reg.extra, Iterator):
        if not reg.ref:
            return ""
        state = "active" if reg.extra.active else "drained"
        return f"{place}=iter_{reg.extra.kind}(ref_id={reg.ref},state={state},depth={reg.extra.depth})"
    return f"{place}={slot.kinds}"


def format_state(state: State, frame: Frame, old: Frame | None = None) -> str:
    """Return a frame's registers and slots on one line; with `old` given only those that differ from it."""
    words: list[str] = []
    if frame.number:
        words.append(f"frame{frame.number}:")
    for i, reg in enumerate(frame.regs):
        if reg.type != NOT_INIT and (old is None or reg is not old.regs[i]):
            words.append(f"R{i}={format_reg(reg, frame.number, bool(frame.precise >> i & 1))}")
    for i, slot in enumerate(frame.stack):
        if old is None or i >= len(old.stack) or slot is not old.stack[i]:
            text = format_slot(i, slot, frame.number, bool(frame.precise_slots >> i & 1))
            if text:
                words.append(text)
    if state.refs:
        words.append("refs=" + ",".join(str(ref.id) for ref in state.refs))
    if frame.in_callback:
        words.append("cb")
    if frame.in_async_callback:
        words.append("async_cb")
    return " ".join(words)


def format_summary(env: Env) -> str:
    """Return the last line of a log."""
    stats = env.stats
    return (
        f"processed {env.processed} insns (limit {env.max_insns}) max_states_per_insn {stats.max_states_per_insn} "
        f"total_states {stats.total_states} peak_states {stats.peak_states} mark_read 0"
    )

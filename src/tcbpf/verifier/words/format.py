"""Registers, stack slots and states in the format of the kernel's log, so that tools which read kernel logs read ours.

Source:  kernel/bpf/log.c, print_insn_state(), print_verifier_state(), print_bpf_insn() (v6.18).
"""

from __future__ import annotations

from typing import Final

from tcbpf.verifier.state.state import Dynptr, Frame, Iterator, Reg, Slot, State
from tcbpf.verifier.values.scalar import SMAX, SMIN, Scalar, format_signed, format_unsigned
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

_ALIGN, _MIN_ALIGN = 40, 8


def column(width: int) -> int:
    """Return how many blanks stand between an instruction of that width and the semicolon behind it.

    Units:   characters; width counts the line's end.
    """
    return -(-max(width + _MIN_ALIGN // 2, _ALIGN) // _MIN_ALIGN) * _MIN_ALIGN - width - 1


def var_text(val: Scalar) -> str:
    """Return an unknown offset as the kernel writes it: a number when it is known, else (value; mask)."""
    return f"({val.value:#x}; {val.mask:#x})" if val.mask else format_unsigned(val.value)


def range_text(val: Scalar) -> str:
    """Return what is known of a result's signed range, each part behind a blank: " smin=0 smax=4"."""
    text = ""
    if val.smin > SMIN:
        text += f" smin={val.smin}"
    if val.smax < SMAX:
        text += f" smax={val.smax}"
    return text or " unknown scalar value"


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
        if reg.frame != frame:
            name += f"[{reg.frame}]"
        if not val.mask:
            return name + format_signed(val.smin + reg.off)
    parts: list[str] = []
    if reg.id:
        delta = f"{reg.delta.value:+d}" if type == SCALAR and reg.delta is not None else ""
        parts.append(f"id={reg.id}{delta}")
    if reg.ref:
        parts.append(f"ref_obj_id={reg.ref}")
    if type & NON_OWN_REF:
        parts.append("non_own_ref")
    base = type & BASE
    if base == BTF_ID:
        name += str(reg.btf_type)
    if base in _MAPS and reg.extra is not None:
        if reg.map.name:
            parts.append(f"map={reg.map.name[:_MAP_NAME]}")
        parts.append(f"ks={reg.map.key_size},vs={reg.map.value_size}")
    if type != SCALAR and reg.off:
        parts.append(f"off={format_signed(reg.off)}")
    if is_packet(type):
        parts.append(f"r={format_unsigned(reg.range & 0xFFFFFFFFFFFFFFFF)}")
    if base == MEM:
        parts.append(f"sz={format_unsigned(reg.mem_size)}")
    if base == DYNPTR and isinstance(reg.extra, Dynptr):
        parts.append(f"type={reg.dynptr.kind}")
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
        return f"{place}=dynptr_{reg.dynptr.kind}({','.join(parts)})"
    if last == "i" and reg is not None and isinstance(reg.extra, Iterator):
        if not reg.ref:
            return ""
        state = "active" if reg.iter.active else "drained"
        return f"{place}=iter_{reg.iter.kind}(ref_id={reg.ref},state={state},depth={reg.iter.depth})"
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

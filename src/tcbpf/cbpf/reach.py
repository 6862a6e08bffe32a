"""Whether the kernel can convert a filter's jumps: one instruction becomes up to 21, and a jump has 16 bits.

Source:  bpf_convert_filter(), convert_bpf_extensions(), convert_bpf_ld_abs(), net/core/filter.c (v6.12; x86-64).
"""

from __future__ import annotations

from collections.abc import Sequence

from tcbpf.cbpf.insn import Classic, targets
from tcbpf.tables.cbpf import ALU_XOR_X, CLASSIC, EXTENSIONS, SKF_AD_OFF, Form, Mode

_EXTENSION = {
    "proto": 2,
    "type": 2,
    "ifidx": 4,
    "hatype": 4,
    "mark": 1,
    "queue": 1,
    "rxhash": 1,
    "vlan_tci": 1,
    "vlan_avail": 3,
    "vlan_tpid": 2,
    "poff": 4,
    "nla": 4,
    "nlan": 4,
    "cpu": 4,
    "rand": 4,
}
_PROLOGUE, _CACHE_DATA = 3, 4
_FARTHEST = (1 << 15) - 1


def too_far(program: Sequence[Classic]) -> int | None:
    """Return the first jump that the kernel cannot convert: too long, or itself too far from the start; None without one.

    `program` has passed the rules that look at single instructions.
    """
    at, loads = [0], False
    for insn in program:
        row = CLASSIC.at(insn.code)
        assert row is not None
        loads |= bool(row.size) and not _is_extension(row, insn)
        at.append(at[-1] + _slots(row, insn))
    start = _PROLOGUE + (_CACHE_DATA if loads else 0)
    for pc, insn in enumerate(program):
        for jump, target in zip(_jumps(insn), _taken(pc, insn), strict=True):
            slot = at[pc] + jump
            if start + slot > _FARTHEST or at[target] - slot - 1 > _FARTHEST:
                return pc
    return None


def _is_extension(row: Form, insn: Classic) -> bool:
    return row.mode is Mode.ABS and insn.k >= SKF_AD_OFF


def _slots(row: Form, insn: Classic) -> int:
    """Return the number of extended instructions for a classic one."""
    if _is_extension(row, insn):
        extension = EXTENSIONS.at(insn.k - SKF_AD_OFF)
        return 1 if insn.k - SKF_AD_OFF == ALU_XOR_X or extension is None else _EXTENSION[extension.name]
    if row.size:
        return _load(row, insn.k) + (6 if row.mode is Mode.MSH else 0)
    if row.mode is Mode.REG_X and row.name in ("div", "mod"):
        return 5
    if row.branch:
        return _jumps(insn)[-1] + 1
    return 2 if row.name == "ret" and row.mode is Mode.IMM else 1


def _load(row: Form, k: int) -> int:
    """Return the size of a packet load: a memory access when the bytes are known to be linear, a call otherwise."""
    call = 8 + (row.mode is Mode.IND and k != 0)
    if row.mode is Mode.IND or k >> 31:
        return call
    return call + 4 + (k != 0) + (2 if k > _FARTHEST else 0) + (row.size > 1)


def _jumps(insn: Classic) -> list[int]:
    """Return the places of the jumps among an instruction's extended ones."""
    row = CLASSIC.at(insn.code)
    assert row is not None
    if row.mode is Mode.LABEL:
        return [0]
    if not row.branch:
        return []
    first = int(row.mode is Mode.IMM and insn.k >> 31)
    return [first] if insn.jf == 0 or (insn.jt == 0 and row.name != "jset") else [first, first + 1]


def _taken(pc: int, insn: Classic) -> tuple[int, ...]:
    """Return the target of each of _jumps()."""
    to = targets(pc, insn)
    if len(to) < 2 or len(_jumps(insn)) == 2:
        return to
    return to[:1] if insn.jf == 0 else to[1:]

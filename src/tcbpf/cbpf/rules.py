"""The rules that a classic filter must keep to be loaded, each with a message of its own.

Source:  bpf_check_classic(), check_load_and_stores(), net/core/filter.c (v6.12). Paper, "Introduction" (4096 instructions,
         forward jumps only, statically verified).
"""

from __future__ import annotations

from collections.abc import Sequence

from tcbpf.cbpf.insn import Classic, targets
from tcbpf.cbpf.reach import too_far
from tcbpf.errors import FilterError
from tcbpf.tables.cbpf import ALU_XOR_X, CLASSIC, EXTENSIONS, MAX_INSNS, MEM_WORDS, SKF_AD_OFF, Mode

_ALL = (1 << MEM_WORDS) - 1


def check(program: Sequence[Classic], *, loops: bool = False) -> None:
    """Check that the kernel would load `program`; with `loops`, that libpcap would run it, where `ja` may go backwards.

    Raises:  FilterError with the first instruction that breaks a rule, and the rule's name.
    """
    if not 0 < len(program) <= MAX_INSNS:
        raise FilterError(f"{len(program)} instructions", rule="length", hint=f"1 to {MAX_INSNS}")
    for pc, insn in enumerate(program):
        _check_one(pc, insn, len(program), loops)
    last = CLASSIC.at(program[-1].code)
    if last is None or last.name != "ret":
        raise FilterError("the last instruction is not ret", pc=len(program) - 1, rule="end")
    _check_memory(program)
    far = too_far(program)
    if far is not None:
        raise FilterError(
            "the jump is longer than the kernel's conversion to extended BPF can make it",
            pc=far,
            rule="reach",
            hint="a converted jump, and its way from the start, have 15 bits; a load becomes up to 16 of them",
        )


def _check_one(pc: int, insn: Classic, size: int, loops: bool) -> None:
    """Check one instruction by itself."""
    row = CLASSIC.at(insn.code)
    if row is None or not row.loads:
        what = f"{row.name} {row.mode.value} does not load" if row else f"no instruction has opcode {insn.code:#06x}"
        raise FilterError(what, pc=pc, rule="opcode")
    if row.mode is Mode.MEM and insn.k >= MEM_WORDS:
        raise FilterError(f"M[{insn.k}] does not exist", pc=pc, rule="memory", hint="M[0] to M[15]")
    if row.mode is Mode.IMM and row.name in ("div", "mod") and insn.k == 0:
        raise FilterError(f"{row.name} by zero", pc=pc, rule="division")
    if row.mode is Mode.IMM and row.name in ("lsh", "rsh") and insn.k >= 32:
        raise FilterError(f"{row.name} by {insn.k}", pc=pc, rule="shift", hint="0 to 31")
    if row.mode is Mode.ABS and insn.k >= SKF_AD_OFF:
        off = insn.k - SKF_AD_OFF
        if off != ALU_XOR_X and EXTENSIONS.at(off) is None:
            raise FilterError(f"no extension at SKF_AD_OFF + {off}", pc=pc, rule="extension")
    if row.mode is Mode.LABEL and insn.k >= size - pc - 1 and not (loops and targets(pc, insn)[0] <= pc):
        if targets(pc, insn)[0] <= pc:
            hint = f"{_room(size - pc - 2)}; protochain makes such loops: tcpdump and `tcbpf cbpf run` run them, no kernel does"
            raise FilterError("ja goes backwards", pc=pc, rule="jump", hint=hint)
        raise FilterError("ja goes out of the program", pc=pc, rule="jump", hint=_room(size - pc - 2))
    if row.branch:
        for name, skip in (("jt", insn.jt), ("jf", insn.jf)):
            if pc + 1 + skip >= size:
                raise FilterError(f"{name} {skip} leaves the program", pc=pc, rule="jump", hint=_room(size - pc - 2))


def _room(left: int) -> str:
    """Return a message's words for the reach of a jump."""
    return f"at most {left} forward from here" if left >= 0 else "no instruction follows"


def _check_memory(program: Sequence[Classic]) -> None:
    """Check that a word of M is loaded only where every path has stored it.

    The kernel's rule ignores `ret`: the instruction after it inherits the words stored before it.
    """
    stored_at, before = [_ALL] * len(program), list[int]()
    while stored_at != before:  # once, and again for jumps that go backwards
        before = list(stored_at)
        _walk_memory(program, stored_at)


def _walk_memory(program: Sequence[Classic], stored_at: list[int]) -> None:
    """Follow the program once, taking from `stored_at` what is not stored on some way to an instruction."""
    stored = 0
    for pc, insn in enumerate(program):
        stored &= stored_at[pc]
        row = CLASSIC.at(insn.code)
        assert row is not None
        if row.name in ("st", "stx"):
            stored |= 1 << insn.k
        elif row.mode is Mode.MEM and not stored >> insn.k & 1:
            raise FilterError(f"M[{insn.k}] is loaded before every path has stored it", pc=pc, rule="uninitialised")
        elif row.mode is Mode.LABEL or row.branch:
            for target in targets(pc, insn):
                stored_at[target] &= stored
            stored = _ALL

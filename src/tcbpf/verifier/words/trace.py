"""Writing the log while paths are followed: each instruction, and the registers and slots that it touched.

A register or slot that an instruction reads or writes is printed behind it, whether it changed or not; what that is must be
kept here, since nothing else needs it. All of this costs nothing when no log is asked for: env.trace is None then.

Source:  do_check(), __check_reg_arg(), backtrack_insn(), kernel/bpf/verifier.c; print_insn_state(), verbose_linfo(),
         kernel/bpf/log.c (v6.18).
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

from tcbpf.errors import NotSupported
from tcbpf.obj.btf import Kind as BtfKind
from tcbpf.obj.btf_index import kernel_btf
from tcbpf.tables.insns import Kind
from tcbpf.verifier.state.env import Env
from tcbpf.verifier.state.insns import Ins
from tcbpf.verifier.state.log import LEVEL2, VISITS, Log
from tcbpf.verifier.state.state import REG_FP, Frame, Reg, State
from tcbpf.verifier.values.types import SCALAR, STACK
from tcbpf.verifier.words.format import ALL, column, format_mask, format_state
from tcbpf.verifier.words.text import format_insn

_CALLS: Final = frozenset((Kind.CALL, Kind.CALL_LOCAL, Kind.CALL_KFUNC))
_MEMORY: Final = frozenset((Kind.LOAD, Kind.STORE, Kind.ATOMIC))
_MOST_TEXT: Final = 1023  # the kernel's buffer for one piece of text


def _btf_id(name: str) -> int:
    """Return a kernel function's number on this machine, 0 when it has none."""
    try:
        found = kernel_btf().find(name, BtfKind.FUNC)
    except NotSupported:
        return 0
    return found.id if found is not None else 0


class Trace:
    """The tracer of one verification.

    `regs` and `slots` are the masks of what was touched since a state was printed last; `place` is where the log stood after
    the last instruction's line, whose state may follow on it as long as nothing else was written.
    """

    __slots__ = ("env", "line", "line_pcs", "log", "place", "regs", "slots", "switch", "texts", "width")

    def __init__(self, env: Env) -> None:
        self.env = env
        self.log: Log = env.log
        self.line_pcs = [line.pc for line in env.program.lines]
        self.texts: dict[int, str] = {}
        self.place = self.width = 0
        self.line: tuple[str, int] | None = None
        self.switch = False
        self.regs = self.slots = ALL

    @property
    def full(self) -> bool:
        """Whether the level asks for all paths."""
        return bool(self.log.level & (LEVEL2 | VISITS))

    @property
    def deep(self) -> bool:
        """Whether the level asks for what is done beside following paths: precision, liveness, loops."""
        return bool(self.log.level & LEVEL2)

    # --- the program ---------------------------------------------------------------------------------------------------

    def functions(self) -> None:
        """Print where the functions start."""
        if self.deep:
            for number, sub in enumerate(self.env.subprogs):
                self.log.line(f"func#{number} @{sub.start}")

    def live_registers(self) -> None:
        """Print the registers that are alive before each instruction, and the number of the loop that it is in."""
        if not self.deep:
            return
        env = self.env
        self.log.line("Live regs before insn:")
        for pc, ins in enumerate(env.ins):
            if ins.pc == pc:
                live = "".join(str(i) if env.live_regs[pc] >> i & 1 else "." for i in range(REG_FP))
                self.log.line(f"{env.scc[pc] or '':>3} {pc:3}: {live} {self._insn(pc)}")

    def start(self, number: int) -> None:
        """A function is checked on its own from here."""
        self.line, self.switch = None, False
        self.regs = self.slots = ALL
        if number:
            self.log.line(f"Validating {self.env.subprogs[number].name}() func#{number}...")

    def finish(self, number: int) -> None:
        """A function was found safe; only level 2 keeps what was written on the way."""
        if not self.full:
            self.log.cut(0)
        if number:
            self.log.line(f"Func#{number} ('{self.env.subprogs[number].name}') is safe for any args that match its prototype")

    # --- one instruction -----------------------------------------------------------------------------------------------

    def _insn(self, pc: int) -> str:
        text = self.texts.get(pc)
        if text is None:
            kfunc = self.env.kfunc_at.get(pc)
            text = f"(85) call {kfunc.name}#{_btf_id(kfunc.name)}" if kfunc else format_insn(self.env.insns, pc)
            self.texts[pc] = text
        return text

    def _state(self) -> None:
        """Print what was touched, behind the last instruction when nothing was written since."""
        env, log = self.env, self.log
        if self.place and self.place == log.end:
            log.cut(self.place - 1)
            log.write(" " * column(self.width) + ";")
        else:
            log.write(f"{env.pc}:")
        log.line(format_state(env.cur, env.frame, self.regs, self.slots))
        self.regs = self.slots = 0

    def before(self, ins: Ins) -> None:
        """An instruction is about to be checked."""
        env, log = self.env, self.log
        if self.switch and self.full:
            log.line(f"\nfrom {env.prev_pc} to {env.pc}:{format_state(env.cur, env.frame)}")
            self.switch = False
        if self.regs or self.slots:
            self._state()
        self.source(env.pc)
        start = log.end
        log.line(f"{env.pc}: {self._insn(env.pc)}")
        self.width, self.place = log.end - start, log.end
        self._touch(ins)

    def source(self, pc: int) -> None:
        """Print the source line of an instruction, unless it is the one printed last."""
        lines = self.env.program.lines
        at = bisect_right(self.line_pcs, pc) - 1
        if at < 0 or (lines[at].file, lines[at].line) == self.line:
            return
        row = lines[at]
        self.line = row.file, row.line
        self.log.line(f"; {row.text.lstrip()[:_MOST_TEXT]} @ {row.file.rsplit('/', 1)[-1]}:{row.line}")

    def _touch(self, ins: Ins) -> None:
        kind = ins.kind
        if kind in _CALLS:
            self.regs |= 0b111111 if kind is not Kind.CALL_KFUNC else 1
        elif kind in (Kind.LD_ABS, Kind.LD_IND):
            self.regs |= 0b1111111 | (1 << ins.src if kind is Kind.LD_IND else 0)
        elif kind is not Kind.EXIT:
            self.regs |= (ins.uses | ins.defs) & 0x7FF
        if kind in _MEMORY and ins.form is None:
            load = kind is Kind.LOAD or (kind is Kind.ATOMIC and ins.row.name == "LOAD_ACQ")
            reg = self.env.frame.regs[ins.src if load else ins.dst]
            if reg.type == STACK:
                self._touch_stack(reg, ins.off, ins.size, load=load)

    def _touch_stack(self, reg: Reg, off: int, size: int, *, load: bool) -> None:
        off += reg.off
        if not reg.val.mask:
            spi = (-off - reg.val.smin - 1) // 8
            self.slots |= 1 << spi if 0 <= spi < 64 else 0
            return
        low, high = off + reg.val.smin, off + reg.val.smax + size
        if not -512 <= low < high <= 0:
            return
        stack = self.env.cur.frames[reg.frame].stack
        for byte in range(low, high):
            spi = (-byte - 1) // 8
            self.slots |= 1 << spi
            if load and (spi >= len(stack) or stack[spi].kinds[(-byte - 1) % 8] != "0"):
                return

    def touch_slots(self, low: int, size: int) -> None:
        """A helper wrote these bytes of a stack."""
        for byte in range(low, low + size):
            self.slots |= 1 << (-byte - 1) // 8

    def entered(self) -> None:
        """A frame was added: all of it is new."""
        self.regs = self.slots = ALL

    def decided(self) -> None:
        """A conditional jump was checked: its state is printed at once."""
        self._state()

    def called(self) -> None:
        """The current path entered a function."""
        state = self.env.cur
        self.log.line(f"caller:\n{format_state(state, state.frames[-2])}")
        self.log.line(f"callee:\n{format_state(state, state.frames[-1])}")

    def assumed(self, number: int) -> None:
        """A global function was called, and not followed."""
        self.log.line(f"Func#{number} ('{self.env.subprogs[number].name}') is global and assumed valid.")

    def leaving(self) -> None:
        """The current path is about to end, or to leave a function."""
        if self.deep:
            self.env.liveness.update_chain()

    def returned(self, callee: Frame, pc: int) -> None:
        """The current path left a function and goes on at `pc`."""
        state = self.env.cur
        self.log.line(f"returning from callee:\n{format_state(state, callee)}")
        self.log.line(f"to caller at {pc}:\n{format_state(state, state.frames[-1])}")

    def safe(self) -> None:
        """The path need not be followed further."""
        env = self.env
        self.log.line(f"\nfrom {env.prev_pc} to {env.pc}: safe" if self.switch else f"{env.pc}: safe")

    def switched(self) -> None:
        """The path ended, and another is taken up."""
        self.regs = self.slots = ALL
        self.switch = True

    def loop(self, what: str, chain: tuple[int, ...]) -> None:
        """A loop is entered or left, or a path ended inside of it: under these calls, the last number the loop's."""
        calls = chain[: chain.index(0)] if 0 in chain else chain[:-1]
        self.log.line(f"SCC {what} ({','.join(map(str, (*calls, -chain[-1])))})")

    # --- precision -----------------------------------------------------------------------------------------------------

    def walk(self, frame: int, last: int, first: int, later: int) -> None:
        """The way back through the instructions of one state begins."""
        self.log.line(f"mark_precise: frame{frame}: last_idx {last} first_idx {first} subseq_idx {later} ")

    def back(self, frame: int, regs: int, slots: int, pc: int) -> None:
        """An instruction is about to be undone."""
        masks = f"regs={format_mask(regs, 'r')} stack={format_mask(slots, '')}"
        self.log.line(f"mark_precise: frame{frame}: {masks} before {pc}: {self._insn(pc)}")

    def propagating(self, old: State) -> None:
        """What a state relies on is handed to the path that reached one like it."""
        for frame in reversed(old.frames):
            words = (format_mask(frame.precise, "r"), format_mask(frame.precise_slots, "fp"))
            if any(words):
                self.log.line(f"frame {frame.number}: propagating {','.join(word for word in words if word)}")

    def forced(self, state: State) -> None:
        """The way back was lost: every scalar of the states before this one is about to be marked."""
        self.log.line(f"mark_precise: frame{len(state.frames) - 1}: falling back to forcing all scalars precise")
        parent = state.parent
        while parent is not None:
            for frame in parent.frames:
                places = [("r{}", i, reg, frame.precise) for i, reg in enumerate(frame.regs[:REG_FP])]
                places += [
                    ("fp{}", i, slot.reg, frame.precise_slots)
                    for i, slot in enumerate(frame.stack)
                    if slot.spilled and slot.reg is not None
                ]
                for word, i, reg, marked in places:
                    if reg.type == SCALAR and not marked >> i & 1:
                        place = word.format(i if word[0] == "r" else -(i + 1) * 8)
                        self.log.line(f"force_precise: frame{frame.number}: forcing {place} to be precise")
            parent = parent.parent

    def parent(self, state: State, frame: Frame, regs: int, slots: int) -> None:
        """A remembered state was marked; the masks are what it is still looked for before."""
        masks = f"regs={format_mask(regs, 'r')} stack={format_mask(slots, '')}"
        self.log.line(f"mark_precise: frame{frame.number}: parent state {masks}: {format_state(state, frame)}")

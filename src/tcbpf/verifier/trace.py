"""Writing the log while paths are followed: each instruction, and what it changed.

Source:  do_check(), print_insn_state(), kernel/bpf/log.c (v6.18).
"""

from __future__ import annotations

from bisect import bisect_right

from tcbpf.tables.insns import Kind
from tcbpf.verifier.env import Env
from tcbpf.verifier.insns import Ins
from tcbpf.verifier.log import LEVEL2, format_state
from tcbpf.verifier.state import Frame
from tcbpf.verifier.text import format_insn


class Trace:
    """The tracer of one function's paths: it knows the frame as it was last printed."""

    __slots__ = ("last_line", "line_pcs", "seen", "switch")

    def __init__(self, env: Env) -> None:
        self.line_pcs = [row.pc for row in env.program.lines]
        self.seen: Frame | None = None
        self.last_line = -1
        self.switch = False

    def _effect(self, env: Env) -> None:
        """Print what changed since the last state that was printed."""
        frame = env.frame
        if self.seen is None or self.seen.number != frame.number or self.seen.callsite != frame.callsite:
            text = format_state(env.cur, frame)
        else:
            text = format_state(env.cur, frame, self.seen)
            if not any(a is not b for a, b in zip(frame.regs, self.seen.regs, strict=True)) and frame.stack == self.seen.stack:
                return
        env.log.effect(env.pc, text)
        self.seen = frame.copy()

    def before(self, env: Env, ins: Ins) -> None:
        """An instruction is about to be checked."""
        if self.switch and env.log.level & LEVEL2:
            env.log.write("")
            env.log.write(f"from {env.prev_pc} to {env.pc}: {format_state(env.cur, env.frame)}")
            self.seen = env.frame.copy()
        self.switch = False
        if self.seen is None:
            env.log.write(f"{env.pc}: {format_state(env.cur, env.frame)}")
            self.seen = env.frame.copy()
        line = bisect_right(self.line_pcs, ins.pc) - 1
        if line >= 0 and line != self.last_line:
            row = env.program.lines[line]
            env.log.write(f"; {row.text.lstrip()} @ {row.file.rsplit('/', 1)[-1]}:{row.line}")
            self.last_line = line
        env.log.instruction(f"{env.pc}: {format_insn(env.insns, ins.pc, env.allow_leaks)}")

    def after(self, env: Env, ins: Ins, following: int) -> None:
        """An instruction was checked."""
        if following < 0:
            return
        if ins.kind is Kind.CALL_LOCAL and len(env.cur.frames) > 1 and env.pc != ins.next and following == ins.target:
            env.log.write("caller:")
            env.log.write(" " + format_state(env.cur, env.cur.frames[-2]))
            env.log.write("callee:")
            env.log.write(" " + format_state(env.cur, env.frame))
            self.seen = env.frame.copy()
            return
        if ins.kind is Kind.EXIT:
            env.log.write("returning from callee:")
            env.log.write(f"to caller at {following}:")
            env.log.write(" " + format_state(env.cur, env.frame))
            self.seen = env.frame.copy()
            self.switch = True
            return
        self._effect(env)

    def safe(self, env: Env) -> None:
        """The path need not be followed further."""
        if self.switch:
            env.log.write("")
            env.log.write(f"from {env.prev_pc} to {env.pc}: safe")
        else:
            env.log.write(f"{env.pc}: safe")

    def switched(self, env: Env) -> None:
        """Another path is taken up."""
        self.switch = True
        if not env.log.level & LEVEL2:
            self.seen = env.frame.copy()

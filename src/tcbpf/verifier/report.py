"""Where a refusal comes from: the source line, and the instructions that led to it.

Source:  this project; the kernel gives only the log.
"""

from __future__ import annotations

from collections.abc import Sequence

from tcbpf.obj.program import Line, Program
from tcbpf.verifier.env import Env
from tcbpf.verifier.insns import Ins
from tcbpf.verifier.state import State, Step


def line_of(program: Program, pc: int) -> Line | None:
    """Return the source line of an instruction, None when the object has no line information."""
    found = None
    for line in program.lines:
        if line.pc > pc:
            break
        found = line
    return found


def source_line(program: Program, pc: int) -> str:
    """Return "file.c:12: text of the line", or an empty string."""
    line = line_of(program, pc) if pc >= 0 else None
    return f"{line.file}:{line.line}: {line.text.strip()}" if line is not None else ""


def path_to(env: Env) -> list[int]:
    """Return the pcs of the current path from the function's start, as far as the history tells, oldest first."""
    path: list[int] = []
    state: State | None = env.cur
    pc = env.pc
    step: Step | None = env.cur.hist
    while state is not None and len(path) < 100_000:
        path.append(pc)
        if pc == state.first_pc and (step is None or (step.older is None and step.pc == pc)):
            last = state.parent.last_pc if state.parent is not None else -1
            state = state.parent
            if state is None or last < 0:
                break
            pc, step = last, state.hist
        elif step is not None and step.pc == pc:
            pc, step = step.prev, step.older
        else:
            pc -= 1
        if pc < 0:
            break
    path.reverse()
    return [p for p in path if env.ins[p].pc == p]


def failure_slice(env: Env) -> tuple[int, ...]:
    """Return the instructions of the current path that produced the registers which the refused one uses, in path order."""
    path = path_to(env)
    if not path:
        return ()
    ins = env.ins[path[-1]]
    wanted = ins.uses & 0x7FF
    kept = [path[-1]]
    for pc in reversed(path[:-1]):
        before = env.ins[pc]
        if _makes(before) & wanted:
            kept.append(pc)
            wanted = (wanted & ~before.defs) | (before.uses & 0x3FF)
    return tuple(reversed(kept))


def _makes(ins: Ins) -> int:
    return ins.defs


def costs(program: Program, visits: Sequence[int]) -> tuple[dict[str, int], dict[str, int]]:
    """Return how many instructions were processed for each function and for each source line.

    Source:  Verified.visits. A program without line information has only functions.
    """
    functions: dict[str, int] = {}
    lines: dict[str, int] = {}
    starts = sorted((func.pc, func.name) for func in program.funcs) or [(0, program.name)]
    for pc, count in enumerate(visits):
        name = next(name for start, name in reversed(starts) if start <= pc)
        functions[name] = functions.get(name, 0) + count
        if line := source_line(program, pc):
            lines[line] = lines.get(line, 0) + count
    return functions, lines

"""Where a refusal comes from, in terms of the source: the line, the variable, the registers, and what to change.

Source:  this project; the kernel gives only the log.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tcbpf.obj.program import Line, Program
from tcbpf.tables.helpers import ArgType, helper_at
from tcbpf.tables.insns import Kind
from tcbpf.tables.skb import SKB, XDP, Field, field_at
from tcbpf.verifier.state.env import MAX_PACKET_OFF
from tcbpf.verifier.state.state import MAX_STACK
from tcbpf.verifier.values.types import MAP_PTR, NOT_INIT
from tcbpf.verifier.words.format import format_reg
from tcbpf.verifier.words.reasons import REASONS

if TYPE_CHECKING:
    from tcbpf.verifier.state.env import Env
    from tcbpf.verifier.words.blame import Blame

_NAME: Final = r"[A-Za-z_]\w*"
_ASSIGNED: Final = re.compile(rf"({_NAME})\s*=(?!=)")
_DATA_END: Final = re.compile(rf"({_NAME})\s*=(?!=)[^,;]*\bdata_end\b")
_CAST: Final = re.compile(r"^(?:[*&\s]|\((?:const|volatile|struct|unsigned|\w+\s*\*|[\s*])+\)|\((?!\w+\)))+")
_PART: Final = re.compile(r"[\w\].>\-]")
_KEYWORDS: Final = frozenset(
    ("if", "else", "return", "for", "while", "do", "switch", "case", "sizeof", "goto", "break", "continue")
)


def line_of(program: Program, pc: int) -> Line | None:
    """Return the source line of an instruction, None when the object has no line information."""
    at = bisect_right(program.lines, pc, key=lambda line: line.pc) - 1
    return program.lines[at] if at >= 0 else None


def source_line(program: Program, pc: int) -> str:
    """Return "file.c:12: text of the line", or an empty string."""
    line = _told(program, pc)
    return f"{line.file}:{line.line}: {line.text.strip()}" if line is not None else ""


def _told(program: Program, pc: int) -> Line | None:
    """Return an instruction's source line; where the compiler names none (line 0), the last one before."""
    at = bisect_right(program.lines, pc, key=lambda line: line.pc) - 1 if pc >= 0 else -1
    while at >= 0 and not program.lines[at].line:
        at -= 1
    return program.lines[at] if at >= 0 else None


@dataclass(frozen=True, slots=True)
class Account:
    """Why a program was refused, for a person."""

    variable: str
    state: str
    hint: str


_STALE: Final = (
    "{mover}{mover_line} may have moved the packet, which makes {it} stale: load data and data_end again after it, and check "
    "again"
)


_FAR: Final = (
    "{it} may lie up to {furthest} bytes into the packet, and a comparison proves nothing beyond 65535: bound the number that "
    "is added first (as by & 0x3fff), then compare `{bound}` with `{data_end}`"
)
_KEY_SIZE: Final = (
    "the {part} of map `{map}` has {size} bytes, {it} at most {room}: declare {it} with the type of the map's {part}"
)
_FIELD_READ_ONLY: Final = (
    "`{field}` can be read, not written, by programs of type {prog}, which may write {writable}: change the packet itself, or "
    "call a helper that does"
)
_FIELD_OF_OTHERS: Final = "programs of type {prog} may not {how} `{field}`"
_FIELD_PART: Final = "`{field}` lies at offset {field_off} and has {field_size} bytes: {how} it whole, by its name"
_NEVER_SET: Final = "set all {size} bytes of {it} before they are read: nothing was stored there yet"


def account(env: Env, reason: str, facts: dict[str, Any], blame: Blame, *, on_path: bool) -> Account:
    """Say what is wrong in terms of the program's source, as far as that is known."""
    variable = _variable(env, reason, facts, blame) if on_path else ""
    template = REASONS[reason].hint
    if reason in ("invalid_memory", "argument_type") and blame.stale >= 0:
        template = _STALE
    elif reason in ("invalid_memory", "argument_type") and str(facts.get("type", "")).endswith("or_null"):
        template = REASONS["pointer_maybe_null"].hint
    elif reason == "stack_bounds" and facts["how"] == "read from" and -MAX_STACK <= facts["off"] < 0:
        template = _NEVER_SET
    elif reason == "packet_bounds" and _furthest(env, facts) > MAX_PACKET_OFF:
        template = _FAR
    elif reason == "stack_end" and _part(env, facts):
        template = _KEY_SIZE
    elif reason == "ctx_access" and (row := _field(env, facts)) is not None:
        template = _field_hint(env, row)
        facts = facts | _field_facts(env, row)
    hint = template.format_map(_Facts(_facts(env, facts, blame, variable)))
    return Account(variable, registers(env, blame.reg) if on_path else "", hint)


def _furthest(env: Env, facts: dict[str, Any]) -> int:
    """Return the end of the access for the largest number that was added to the packet's start."""
    return int(env.frame.regs[facts["reg"]].val.umax) + int(facts["off"]) + int(facts["size"])


_PARTS: Final = {ArgType.MAP_KEY: "key", ArgType.MAP_VALUE: "value"}


def _part(env: Env, facts: dict[str, Any]) -> str:
    """Return "key" or "value" for an argument that is one of the map's in r1, else an empty string."""
    ins = env.ins[env.pc]
    row = helper_at(ins.imm) if ins.kind is Kind.CALL else None
    args = row.args_for(env.type.name) if row is not None else ()
    named = env.frame.regs[1].type == MAP_PTR and 0 < facts["reg"] <= len(args)
    return _PARTS.get(args[facts["reg"] - 1].type, "") if named else ""


def _field(env: Env, facts: dict[str, Any]) -> Field | None:
    """Return the context's field at the place of an access, None where there is none."""
    return field_at(SKB if env.type.context == "skb" else XDP, facts["off"])


def _writes(env: Env) -> bool:
    return env.ins[env.pc].kind is not Kind.LOAD


def _field_facts(env: Env, row: Field) -> dict[str, Any]:
    table, type = SKB if env.type.context == "skb" else XDP, env.type.name
    return {
        "field": row.name,
        "field_off": row.off,
        "field_size": row.size,
        "prog": type,
        "how": "write" if _writes(env) else "read",
        "writable": ", ".join(each.name for each in table if type in each.write) or "none",
    }


def _field_hint(env: Env, row: Field) -> str:
    type = env.type.name
    if _writes(env) and type in row.read and type not in row.write:
        return _FIELD_READ_ONLY
    return _FIELD_PART if type in (row.write if _writes(env) else row.read) else _FIELD_OF_OTHERS


_INDEXED: Final = frozenset(
    (
        "unbounded_index",
        "negative_index",
        "map_value_bounds",
        "memory_bounds",
        "pointer_out_of_bounds",
        "pointer_unbounded",
        "stack_unbounded",
        "stack_variable_bounds",
    )
)
_INDEX: Final = re.compile(rf"\[({_NAME})\]")


def _variable(env: Env, reason: str, facts: dict[str, Any], blame: Blame) -> str:
    """Return the variable that a refusal on a path is about, an empty string for one about no value."""
    if facts.get("acquired") is not None:
        maker = _told(env.program, facts["acquired"])
        names = _ASSIGNED.findall(maker.text) if maker is not None else []
        return names[-1] if names else ""
    line = _told(env.program, env.pc)
    if reason in _INDEXED and line is not None and (found := _INDEX.search(line.text)):
        return found[1]
    if line is not None and env.ins[env.pc].kind is Kind.CALL and (given := _argument(line.text, blame.reg)):
        return given
    return variable_of(env.program, env.pc, blame.made) if "reg" in facts or reason in _INDEXED else ""


def _argument(text: str, number: int) -> str:
    """Return the variable that a call's argument begins with, counted from 1: "key" of "bpf_map_lookup_elem(&m, &key)"."""
    call = re.search(r"\bbpf_\w+\s*\(", text)
    if call is None or number < 1:
        return ""
    depth, arguments = 0, [""]
    for letter in text[call.end() :]:
        depth += (letter == "(") - (letter == ")")
        if depth < 0:
            break
        if letter == "," and not depth:
            arguments.append("")
        else:
            arguments[-1] += letter
    return _first_name(arguments[number - 1].strip()) if number <= len(arguments) else ""


class _Facts(dict[str, Any]):
    """Facts for a hint; one that the check did not give is left out of the sentence."""

    def __missing__(self, key: str) -> str:
        return "…"


_KINDS: Final = {
    "scalar": "a number",
    "pkt_end": "the end of the packet",
    "ctx": "the context",
    "map_ptr": "a map",
    "fp": "a pointer into the stack",
    "func": "a function",
    "inv": "a number",
}


def _facts(env: Env, facts: dict[str, Any], blame: Blame, variable: str) -> dict[str, Any]:
    reg = facts.get("reg")
    told: dict[str, Any] = {"it": f"`{variable}`" if variable else f"r{reg}" if reg is not None else "it", "pc": env.pc}
    told["holds"] = _KINDS.get(str(facts.get("type")), str(facts.get("type", "")))
    off, size = facts.get("off"), facts.get("size")
    if isinstance(off, int) and isinstance(size, int):
        told["end"] = off + size
    told["data_end"] = next((found[1] for line in env.program.lines if (found := _DATA_END.search(line.text))), "data_end")
    line = _told(env.program, env.pc)
    arrow = variable and line is not None and f"{variable}->" in line.text
    told["bound"] = f"{variable} + 1" if arrow else f"{variable or 'pointer'} + {told.get('end', 'size')}"
    if line is not None and variable and facts.get("range") is not None:
        if found := re.search(rf"({_NAME})\[{variable}\]", line.text):
            told["bound"] = f"{found[1]} + {variable} + 1"
        told["furthest"] = _furthest(env, facts)
    if facts.get("how") and reg is not None and isinstance(off, int):
        told["room"] = -off
        told["part"] = _part(env, facts)
        told["map"] = env.frame.regs[1].map.name if told["part"] else ""
    if blame.stale >= 0:
        told["mover"] = _call_name(env, blame.stale)
        told["mover_line"] = ((moved := _told(env.program, blame.stale)) and f" in line {moved.line}") or ""
    acquired = facts.get("acquired")
    if acquired is not None:
        told["acquirer"] = _call_name(env, acquired)
        told["held"] = f"`{variable}`" if variable else "what it gave"
        told["acquired_line"] = ((line := _told(env.program, acquired)) and f" in line {line.line}") or ""
    return told | facts


def _call_name(env: Env, pc: int) -> str:
    ins = env.ins[pc]
    if ins.kind is Kind.CALL:
        row = helper_at(ins.imm)
        return f"bpf_{row.name}()" if row is not None else "the helper"
    if ins.kind is Kind.CALL_KFUNC:
        return f"{env.kfunc_at[pc].name}()"
    return f"{env.subprogs[env.subprog_at[ins.target]].name}()"


def registers(env: Env, reg: int) -> str:
    """Return the registers that matter at the refused instruction, in the kernel's notation: "R1=pkt(r=14)"."""
    ins, frame = env.ins[env.pc], env.frame
    mask = ins.uses & 0x7FF | (1 << reg if reg >= 0 else 0)
    return " ".join(
        f"R{i}={format_reg(held, frame.number) if held.type != NOT_INIT else '?'}"
        for i, held in enumerate(frame.regs)
        if mask >> i & 1
    )


def variable_of(program: Program, pc: int, made: Sequence[int]) -> str:
    """Return the variable at fault, as far as the source tells it, or an empty string.

    It is the one that a line which made the value assigns, when the line at fault names it; else the one that the expression
    at fault begins with.
    """
    line = _told(program, pc)
    if line is None:
        return ""
    names = set(re.findall(_NAME, line.text))
    for before in made:
        maker = _told(program, before)
        if maker is None or (maker.line == line.line and maker is not line):
            continue
        for name in reversed(_ASSIGNED.findall(maker.text)):
            if name in names:
                return str(name)
    return _base(line)


def _base(line: Line) -> str:
    """Return the variable that the expression at the line's column begins with: "ip" of "ip->protocol"."""
    at = line.column - 1
    if not 0 <= at < len(line.text):
        return ""
    start = at
    while start and _PART.match(line.text[start - 1]):
        start -= 1
    return _first_name(line.text[start:])


def _first_name(text: str) -> str:
    found = re.match(rf"({_NAME})(\s*\()?", _CAST.sub("", text))
    return "" if found is None or found[2] or found[1] in _KEYWORDS else found[1]


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

#!/usr/bin/env python3
"""Write docs/reference/*.md from the tables, and docs/deviations.md from what the code says of itself.

generate_docs.py            write the files
generate_docs.py --check    status 1 when a file is not what would be written
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

from tcbpf.isa import Insn, kernel_text  # noqa: E402
from tcbpf.tables.actions import ACTIONS  # noqa: E402
from tcbpf.tables.cbpf import CLASSIC, EXTENSIONS, MAX_INSNS, MNEMONICS  # noqa: E402
from tcbpf.tables.helpers import HELPERS  # noqa: E402
from tcbpf.tables.insns import ALU, ATOMICS, END, JUMP, Atomic  # noqa: E402
from tcbpf.tables.kfuncs import KFUNCS  # noqa: E402
from tcbpf.tables.maps import FLAG_NAMES, MAP_TYPES  # noqa: E402
from tcbpf.tables.opcodes import SIZE_CODE  # noqa: E402
from tcbpf.tables.progs import PROG_TYPES  # noqa: E402
from tcbpf.tables.skb import SKB, XDP, Field  # noqa: E402
from tcbpf.uapi.bpf import BPF_ATTACH_TYPE  # noqa: E402
from tcbpf.vm.executable import COMPILED  # noqa: E402

DOCS = ROOT / "docs"
SHORT = {"socket_filter": "sf", "sched_cls": "cls", "sched_act": "act", "xdp": "xdp", "cgroup_skb": "cg"}
GENERATED = "<!-- Written by scripts/generate_docs.py from {}. Change that, not this. -->\n"


def release(since: tuple[int, int]) -> str:
    return f"{since[0]}.{since[1]}"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def code(text: object) -> str:
    return f"`{text}`" if text not in ("", None) else ""


def words(*insns: Insn) -> str:
    """Return an instruction as the kernel prints it, without the opcode."""
    return code(kernel_text(insns, 0).partition(") ")[2])


def instructions() -> str:
    alu = []
    for row in ALU:
        forms, texts = [], []
        for width in row.widths:
            op = (0x07 if width == 64 else 0x04) | row.code << 4
            if not row.reg_only:
                forms.append(f"{op:02x}")
                texts.append(words(Insn(op, 1, 0, row.off, 0 if row.unary else 5)))
            if not row.unary:
                forms.append(f"{op | 8:02x}")
                texts.append(words(Insn(op | 8, 1, 2, row.off)))
        alu.append((row.name, code(" ".join(forms)), row.off or "", ", ".join(texts), release(row.since), row.source))
    end = [
        (row.name, code(f"{row.base:02x}"), row.bits, words(Insn(row.base, 1, imm=row.bits)), release(row.since), row.source)
        for row in END
    ]
    jump = []
    for row in JUMP:
        ops = [cls | row.code << 4 for cls in (5, 6)]
        jump.append(
            (
                row.name,
                code(" ".join(f"{op:02x} {op | 8:02x}" for op in ops)),
                ", ".join((words(Insn(ops[0], 1, 0, 3, 5)), words(Insn(ops[1] | 8, 1, 2, 3)))),
                release(row.since),
                row.source,
            )
        )
    other = [
        ("JA", "05", words(Insn(5, off=3)), "3.18"),
        ("JA, 32-bit distance", "06", words(Insn(6, imm=70000)), "6.6"),
        ("MAY_GOTO", "e5", words(Insn(0xE5, off=3)), "6.9"),
        ("CALL, helper", "85, src 0", words(Insn(0x85, imm=1)), "3.18"),
        ("CALL, subprogram", "85, src 1", words(Insn(0x85, 0, 1, 0, 3)), "4.16"),
        ("CALL, kernel function", "85, src 2", "`call NAME#ID`", "5.13"),
        ("EXIT", "95", words(Insn(0x95)), "3.18"),
        ("LD_IMM64", "18, two slots", "`r1 = 0x5 ll`", "3.18"),
    ]
    memory = []
    for size, bits in sorted(SIZE_CODE.items()):
        memory.append((size, code(f"{0x61 | bits:02x}"), words(Insn(0x61 | bits, 1, 2, 4)), "3.18"))
        if size < 8:
            memory.append((size, code(f"{0x81 | bits:02x}"), words(Insn(0x81 | bits, 1, 2, 4)), "6.6"))
            memory.append((size, code(f"{0x20 | bits:02x}"), words(Insn(0x20 | bits, imm=12)), "3.18"))
            memory.append((size, code(f"{0x40 | bits:02x}"), words(Insn(0x40 | bits, 0, 7, 0, 2)), "3.18"))
        memory.append((size, code(f"{0x62 | bits:02x}"), words(Insn(0x62 | bits, 1, 0, 4, 5)), "3.18"))
        memory.append((size, code(f"{0x63 | bits:02x}"), words(Insn(0x63 | bits, 1, 2, 4)), "3.18"))

    def atomic(row: Atomic) -> str:
        return words(Insn(0xC3 | SIZE_CODE[row.sizes[-1]], 1, 2, 0, row.imm))

    atomics = [
        (
            row.name,
            code(f"{row.imm:#x}"),
            ", ".join(map(str, row.sizes)),
            atomic(row),
            "yes" if row.fetch else "",
            release(row.since),
            row.source,
        )
        for row in ATOMICS
    ]
    return f"""# Instructions

{len(ALU)} arithmetic operations, {len(END)} byte swaps, {len(JUMP)} conditions, {len(ATOMICS)} atomics.
The texts are those of the kernel's verifier log, which `tcbpf asm` reads and `tcbpf disasm` prints.
Opcodes are hexadecimal bytes.

## Arithmetic

`w` registers are the lower 32 bits; writing one clears the upper 32. Division by zero gives 0, the remainder of it leaves the
destination; shifts count modulo the width.

{table(("name", "opcodes", "offset", "text", "since", "source"), alu)}
## Byte order

{table(("name", "opcode", "immediate", "text", "since", "source"), end)}
## Conditional jumps

Each has a 64-bit and a 32-bit form, with an immediate (sign-extended to the width) or a register.

{table(("name", "opcodes", "text", "since", "source"), jump)}
## Other jumps, calls, the wide immediate

{table(("name", "opcode", "text", "since"), ((n, code(o), t, s) for n, o, t, s in other))}
## Memory

{table(("bytes", "opcode", "text", "since"), memory)}
## Atomics

Opcode `db` for 8 bytes, `c3` for 4 (and `d3`, `cb` for 1 and 2 where they exist); the immediate tells which.

{table(("name", "immediate", "bytes", "text", "fetches", "since", "source"), atomics)}"""


def helpers() -> str:
    def notes(row: object) -> str:
        found = [
            text
            for flag, text in (
                ("gpl_only", "GPL"),
                ("pkt_access", "takes packet memory"),
                ("changes_data", "invalidates packet pointers"),
                ("might_sleep", "sleepable only"),
                ("fastcall", "keeps r1 to r5"),
            )
            if getattr(row, flag)
        ]
        return ", ".join(found)

    rows = [
        (
            row.id,
            code(f"bpf_{row.name}"),
            code(row.proto),
            " ".join(SHORT[p] for p in SHORT if p in row.progs),
            {"none": "", "bpf": "CAP_BPF", "perfmon": "CAP_PERFMON"}[row.privilege],
            notes(row),
            release(max(row.since, row.net_since)),
            row.source,
        )
        for row in HELPERS
    ]
    return f"""# Helpers

The {len(HELPERS)} helpers that the five program types may call on Linux 6.18:
{sum("sched_cls" in r.progs for r in HELPERS)} of them from tc. A prototype is the C declaration without the name.
Programs: sf socket_filter, cls sched_cls, act sched_act, xdp, cg cgroup_skb. The privilege is what a
helper needs beyond what loading its program type needs; "since" is the release from which these program types may call it.

{table(("id", "name", "prototype", "programs", "privilege", "notes", "since", "source"), rows)}"""


def kfuncs() -> str:
    """Return the functions that some program type may call; the others' rows are there to be refused by name."""
    allowed = [row for row in KFUNCS if row.progs]
    runtime = (ROOT / "src/tcbpf/native/src/helpers/kfunc.c").read_text()
    rows = [
        (
            code(row.name),
            code(f"{row.ret.type} ({', '.join(f'{p.type} {p.name}' for p in row.params) or 'void'})"),
            " ".join(SHORT[p] for p in SHORT if p in row.progs),
            " ".join(sorted(row.flags)),
            "yes" if f"KFUNC({row.name})" in runtime else "",
            release(row.since),
        )
        for row in allowed
    ]
    return f"""# Kernel functions (kfuncs)

The {len(allowed)} kernel functions of Linux 6.18 that a program of the five types may call by name, of the {len(KFUNCS)}
that the kernel marks as callable. The verifier follows them all, as docs/deviations.md bounds it; "user" marks those that the
user datapath runs too, the others need the live kernel.

{table(("name", "prototype", "programs", "flags", "user", "since"), rows)}"""


def maps() -> str:
    def size(rule: int | tuple[int, int] | None, multiple: int = 1) -> str:
        if rule is None:
            return "any"
        if isinstance(rule, int):
            return str(rule)
        if multiple == 4:
            return f"{rule[0]} or {rule[1]}"
        return f"{rule[0]} to {rule[1]}" + (f" by {multiple}" if multiple > 1 else "")

    def flags(value: int) -> str:
        return " ".join(name.removeprefix("BPF_F_") for bit, name in FLAG_NAMES.items() if value & bit)

    rows = [
        (
            row.number,
            code(row.name),
            size(row.key_size),
            size(row.value_size, row.value_multiple),
            row.values,
            {"some": "1 or more", "zero": "0", "one": "1", "power_of_two_pages": "pages, a power of two"}[row.entries],
            flags(row.flags) + (f" (needs {flags(row.required_flags)})" if row.required_flags else ""),
            " ".join(sorted(row.helpers)),
            "yes" if row.delete else "",
            "yes" if row.user else "",
            release(row.since),
        )
        for row in MAP_TYPES
    ]
    return f"""# Map types

The {len(MAP_TYPES)} types of Linux 6.18. Sizes are in bytes; a flag is a BPF_F_ name without its prefix; the
helpers are those that the five program types may call with the map. "delete" is
from user space; "user" tells whether the user datapath has the type.

{table(("number", "name", "key", "value", "holds", "entries", "flags", "helpers", "delete", "user", "since"), rows)}"""


def fields() -> str:
    def of(row: Field) -> tuple[object, ...]:
        notes = []
        if row.pointer:
            notes.append(f"a pointer: {row.pointer}")
        if row.narrow:
            notes.append("parts may be read" + (" and written" if row.narrow_write else ""))
        if row.wide:
            notes.append("8 bytes with the next")
        if row.native[1] == 2:
            notes.append("keeps 16 bits" + (f"; {row.ignored_from:#x} and above is ignored" if row.ignored_from else ""))
        if row.privileged:
            notes.append(" and ".join(sorted(row.privileged)) + " of cgroup_skb needs CAP_BPF")
        if row.attach_type:
            notes.append(f"with attach type {BPF_ATTACH_TYPE[row.attach_type]}")
        if row.big_endian:
            notes.append("network order")
        if row.test_run:
            notes.append("settable in a test run")
        return (
            row.off,
            row.size,
            code(row.name),
            " ".join(sorted(row.read)),
            " ".join(sorted(row.write)),
            "; ".join(notes),
            release(row.since),
        )

    head = ("offset", "bytes", "name", "read by", "written by", "notes", "since")
    return f"""# Context fields

Every access is aligned to its own size and, where nothing else is said, of the field's size.

## struct __sk_buff

{table(head, map(of, SKB))}
## struct xdp_md

{table(head, map(of, XDP))}"""


def actions() -> str:
    rows = [
        (
            row.number,
            code(f"TC_ACT_{row.name.upper()}"),
            row.tc,
            "kept" if row.direct else "becomes TC_ACT_UNSPEC",
            "yes" if row.passes else "",
        )
        for row in ACTIONS
    ]
    return f"""# Actions

What a classifier or an action returns, tc(8)'s word for it, and what direct action makes of it.

{table(("number", "name", "tc", "in direct action", "the packet goes on"), rows)}
`JUMP` (0x10000000) and `GOTO_CHAIN` (0x20000000) carry their argument in the low 28 bits.
"""


def programs() -> str:
    rows = []
    for row in PROG_TYPES:
        access = "reads and writes" if row.direct_write else "reads" if row.direct_read else ""
        returns = f"{row.returns[0]} to {row.returns[1]}" if row.returns else "anything"
        returns += "".join(f"; {low} to {high} for {BPF_ATTACH_TYPE[at]}" for at, (low, high) in row.returns_at)
        rows.append(
            (
                row.number,
                code(row.name),
                row.context,
                returns,
                access,
                "yes" if row.ld_abs else "",
                "yes" if row.unprivileged else "",
                release(row.since),
            )
        )
    sections = [
        (code(s.name), row.name, BPF_ATTACH_TYPE[s.attach_type] if s.attach_type or row.name == "cgroup_skb" else "")
        for row in PROG_TYPES
        for s in row.sections
    ]
    return f"""# Program types

{table(("number", "name", "context", "returns", "packet memory", "LD_ABS", "unprivileged", "since"), rows)}
## ELF sections

Any other section name is tc's convention: a classifier, or an action when tc loads an action; `ID/KEY` is a slot of a
tail-call map.

{table(("section", "program type", "attach type"), sections)}"""


def classic() -> str:
    """Return the classic instructions, the words that write them, and the extensions."""
    rows = [
        (f"{row.code:#04x}", row.name, code(row.mode.value), row.size or "", "" if row.loads else "loads nowhere")
        for row in CLASSIC
    ]
    other = [
        (code(m.word), m.of + (", the opposite condition" if m.inverted else ", `#k` only" if m.immediate else ""))
        for m in MNEMONICS
        if m.word != m.of
    ]
    extensions = [
        (code("len"), "", "the packet's length; also `ldx len`"),
        *((code(row.name) + (f", {code(row.alias)}" if row.alias else ""), row.off, row.expr) for row in EXTENSIONS),
    ]
    return f"""# Classic BPF

What `tcbpf cbpf asm` reads, as bpf_asm does: A and X have 32 bits, `M[0]` to `M[15]` too; a program has 1 to {MAX_INSNS}
instructions, jumps forward only, and returns how many bytes of the packet to keep, 0 for none. A load outside of the
packet and a division by an X of 0 end it with 0.

{table(("opcode", "name", "operand", "bytes", ""), rows)}
Conditional jumps take `, Lt, Lf` or `, Lt`. There are {len(MNEMONICS)} words: the names above, and

{table(("word", "writes"), other)}
## Extensions

`ld`, `ldh` and `ldb` of one of these read what the kernel keeps beside the packet: a load at SKF_AD_OFF (-0x1000) + offset.
A `#` before the word is optional. Offsets from SKF_NET_OFF (-0x100000) count from the network header, those from SKF_LL_OFF
(-0x200000) from the link header.

{table(("word", "offset", "A becomes"), extensions)}"""


def differs(text: str) -> list[str]:
    """Return what follows `Differs:` in a source's docstrings and comments, each as one line."""
    end = r"\n[ \t*]*\n|\n[ \t*]*(?:Units|Returns|Raises|Source|Differs):|\"\"\"|\*/|\Z"
    pattern = re.compile(rf"Differs:[ \t]*(.+?)(?={end})", re.S)
    return [re.sub(r"\s*\n[ \t]*\*?[ \t]*", " ", match[1]).strip() for match in pattern.finditer(text)]


LACKING = """A program that calls one is refused at load, by the helper's name. They look into tasks, other processes' memory,
cgroups, performance counters, or at a kernel's own variables; or they run later, when no packet does (timers)."""


def lacking() -> list[str]:
    """Return the helpers that sched_cls programs may call and the runtime has not."""
    there = set(re.findall(r"HAVE\((\w+),", (ROOT / "src/tcbpf/native/src/helpers/helpers.c").read_text())) | COMPILED
    return [row.name for row in HELPERS if "sched_cls" in row.progs and row.name not in there]


def deviations() -> str:
    """Return the hand-written rows, then every `Differs:` of the sources, in path order."""
    lines = [(DOCS / "deviations.in.md").read_text().rstrip(), "", "## Map types that the user datapath lacks", ""]
    lines += [", ".join(code(row.name) for row in MAP_TYPES if not row.user) + ".", ""]
    lines += ["## Helpers of sched_cls that the user datapath lacks", "", LACKING, ""]
    lines += [", ".join(code(f"bpf_{name}") for name in lacking()) + ".", "", "## As the sources say", ""]
    src = ROOT / "src/tcbpf"
    for path in sorted(p for p in src.rglob("*") if p.suffix in (".py", ".c", ".h")):
        for text in differs(path.read_text()):
            lines.append(f"- `{path.relative_to(src)}`: {text}")
    return "\n".join(lines) + "\n"


PAGES = {
    "reference/instructions.md": (instructions, "tables/insns.py"),
    "reference/helpers.md": (helpers, "tables/helpers.py"),
    "reference/kfuncs.md": (kfuncs, "uapi/kfuncs.py and tables/kfuncs.py"),
    "reference/maps.md": (maps, "tables/maps.py"),
    "reference/fields.md": (fields, "tables/skb.py"),
    "reference/actions.md": (actions, "tables/actions.py"),
    "reference/programs.md": (programs, "tables/progs.py"),
    "reference/classic.md": (classic, "tables/cbpf.py"),
    "deviations.md": (deviations, "docs/deviations.in.md and the sources' `Differs:` lines"),
}


def page(name: str) -> str:
    """Return the text of one page."""
    write, source = PAGES[name]
    return GENERATED.format(source) + "\n" + write().rstrip() + "\n"


def stale() -> list[str]:
    """Return the pages that are not what would be written."""
    return [name for name in PAGES if not (DOCS / name).is_file() or (DOCS / name).read_text() != page(name)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    if parser.parse_args().check:
        found = stale()
        for name in found:
            print(f"docs/{name} is stale: run scripts/generate_docs.py")
        return 1 if found else 0
    for name in PAGES:
        (DOCS / name).parent.mkdir(parents=True, exist_ok=True)
        (DOCS / name).write_text(page(name))
    print(f"{len(PAGES)} pages")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The report of `tcbpf verify --html`: one file that needs no network.

For each program: the verdict and, when it is no, the path that led there; then the source, each line with its cost, its
instructions and the states that every visit left.
"""

from __future__ import annotations

import errno
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from tcbpf.cli import page
from tcbpf.cli.verify.report import Report, failing_path
from tcbpf.isa import disassemble
from tcbpf.obj.program import Line, Program
from tcbpf.tables.opcodes import LD_IMM64
from tcbpf.verifier.words.log_reader import Visit, read
from tcbpf.verifier.words.report import line_of

MAX_VISITS, MIN_VISITS, MAX_STATES = 200, 3, 20_000
"""States shown for one instruction, and for a whole program: a page of a big program stays small enough to open."""

SCRIPT = """<script>
let at = -1;
const go = row => { if (row) { row.scrollIntoView({ block: "center" }); row.focus({ preventScroll: true }) } };
addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const lines = document.querySelectorAll("tr.line"), all = document.querySelectorAll("details");
  if (event.key === "j") go(lines[at = Math.min(at + 1, lines.length - 1)]);
  if (event.key === "k") go(lines[at = Math.max(at - 1, 0)]);
  if (event.key === "f") go(document.querySelector("tr.fails"));
  if (event.key === "e") { const open = !all[0]?.open; all.forEach(one => one.open = open) }
});
</script>"""

STYLE = """
.accept { color: var(--yes) }
.reject { color: var(--no) }
.why { border-left: 4px solid var(--no); background: var(--code); padding: .6rem 1rem; margin: .6rem 0 }
.why p { margin: .2rem 0 }
.fails { background: color-mix(in srgb, var(--no) 16%, transparent) }
.cause { background: color-mix(in srgb, var(--no) 7%, transparent) }
details { padding-left: 1.6rem }
summary { margin-left: -1.1rem; white-space: pre-wrap }
details ol { margin: .1rem 0 .4rem; padding-left: 2.4rem; color: var(--soft) }
.dead { opacity: .45 }
.file { color: var(--soft) }
tr:focus { outline: 2px solid var(--soft) }
details li { overflow-wrap: anywhere }
"""


def write_page(path: str, object: str, reports: Sequence[Report]) -> None:
    """Write the page of an object's reports to `path`."""
    links = "".join(f'<a href="#{escape(r.listed.name)}" class="{word(r)}">{escape(r.listed.name)}</a>' for r in reports)
    body = "\n".join(part for report in reports for part in section(report))
    keys = '<p class="soft">Keys: j and k go by source line, f to the refused instruction, e opens and closes all states.</p>'
    page.write(path, "verify", object, f"<nav>{links}</nav>\n{keys}\n{body}\n{SCRIPT}", STYLE)


def word(report: Report) -> str:
    """Return the verdict, which is also its style."""
    return "accept" if report.accepted else "reject"


def section(report: Report) -> Iterator[str]:
    """Yield one program's part of the page."""
    program = report.program
    limit = max(MIN_VISITS, min(MAX_VISITS, MAX_STATES // max(1, len(program.insns))))
    counts, visits = group(report.log, limit)
    name = escape(report.listed.name)
    yield f'<h2 id="{name}"><span class="{word(report)}">{word(report)}</span> {name} '
    yield f'<span class="soft">{escape(report.listed.section)}, {escape(program.type)}</span></h2>'
    yield f'<p class="soft">{len(program.insns)} instructions, {report.insns_processed} processed, {report.time_ms:.1f} ms</p>'
    if report.error:
        yield from reasons(report)
    yield "<table>"
    total = max(1, sum(counts.values()))
    for line, pcs in lines_of(program):
        cost = sum(counts[pc] for pc in pcs)
        heat = f' style="background: rgba(var(--heat), {min(0.5, 2 * cost / total):.2f})"'
        text = (
            f'<span class="src">{escape(line.text.rstrip())}</span> <span class="file">{escape(Path(line.file).name)}:'
            f"{line.line}</span>"
            if line
            else '<span class="file">no source line</span>'
        )
        yield f'<tr class="line code" tabindex="-1"><td class="n"{heat}>{cost or ""}</td><td>{text}</td></tr>'
        for pc in pcs:
            cell = instruction(pc, visits[pc], counts[pc], program)
            yield f'<tr class="code {mark(report, pc)}" tabindex="-1"><td class="n">{pc}</td><td>{cell}</td></tr>'
    yield "</table>"


def reasons(report: Report) -> Iterator[str]:
    """Yield the reasons of a refusal: message, line, hint, and the path that caused it."""
    error = report.error
    assert error is not None
    yield f'<div class="why"><p><b>{escape(error.message)}</b> <span class="soft">pc {error.pc}, {escape(error.reason)}, '
    yield f"{errno.errorcode.get(error.errno, error.errno)}</span></p>"
    if error.source:
        yield f"<p><code>{escape(error.source)}</code></p>"
    for label, text in (("variable", error.variable), ("state", error.state)):
        if text:
            yield f'<p><span class="soft">{label}</span> <code>{escape(text)}</code></p>'
    if error.hint:
        yield f"<p>{escape(error.hint)}</p>"
    path = failing_path(report)
    if path:
        yield "<p class=soft>The instructions that led there:</p><pre>"
        shown = ""
        for pc, insn, state, line in path:
            if line and line != shown:
                yield f'<span class="soft">; {escape(line)}</span>'
            shown = line
            yield escape(f"{pc:5}: {insn:<44} {state}".rstrip())
        yield "</pre>"
    yield "</div>"


def mark(report: Report, pc: int) -> str:
    """Return the style of an instruction that failed, or led to the failure."""
    if report.error and pc == report.error.pc:
        return "fails"
    return "cause" if report.error and pc in report.error.slice else ""


def instruction(pc: int, rows: list[Visit], count: int, program: Program) -> str:
    """Return one instruction with the states after its first visits; `count` is the number of visits."""
    if not rows:
        insn = program.insns[pc : pc + 2] if program.insns[pc].code == LD_IMM64 else program.insns[pc : pc + 1]
        return f'<span class="insn dead">{escape(disassemble(insn).strip())}</span>'
    text = escape(next((row.text for row in rows if row.text), "pruned"))
    states = [
        escape(" ".join(part for part in (row.begin, row.state) if part) or ("safe: seen before" if row.safe else "-"))
        for row in rows
    ]
    times = f' <span class="soft">× {count}</span>' if count > 1 else ""
    if count == 1 and not rows[0].begin:
        return f'<span class="insn">{text}</span> <span class="soft">{states[0] if states[0] != "-" else ""}</span>'
    items = "".join(f"<li>{state}</li>" for state in states)
    more = f"<li>and {count - len(rows)} more</li>" if count > len(rows) else ""
    return f"<details><summary>{text}{times}</summary><ol>{items}{more}</ol></details>"


def group(log: str, limit: int) -> tuple[Counter[int], dict[int, list[Visit]]]:
    """Return the number of visits of each instruction in a log, and the first of them."""
    counts: Counter[int] = Counter()
    visits: dict[int, list[Visit]] = defaultdict(list)
    for visit in read(log):
        counts[visit.pc] += 1
        if counts[visit.pc] <= limit:
            visits[visit.pc].append(visit)
    return counts, visits


def lines_of(program: Program) -> Iterator[tuple[Line | None, list[int]]]:
    """Yield each run of instructions of one source line, in program order."""
    current: Line | None = None
    pcs: list[int] = []
    pc = 0
    while pc < len(program.insns):
        line = line_of(program, pc)
        same = (line and (line.file, line.line)) == (current and (current.file, current.line))
        if pcs and not same:
            yield current, pcs
            pcs = []
        current = line
        pcs.append(pc)
        pc += 2 if program.insns[pc].code == LD_IMM64 else 1
    if pcs:
        yield current, pcs

"""The page of `tcbpf cbpf convert --html`: every stage from a filter to machine code, in one file that needs no network."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from tcbpf import cbpf
from tcbpf.cli import page
from tcbpf.isa import listing
from tcbpf.verifier import verify
from tcbpf.vm.executable import Options
from tcbpf.vm.jit.jit import Code

STYLE = """
th { text-align: left; font-weight: 600; padding: 0 .6rem }
td.classic { width: 45%; white-space: pre-wrap }
pre { background: var(--code); padding: .6rem 1rem; overflow-x: auto; margin: .3rem 0 }
summary { font-size: 1.1rem; font-weight: 600; margin-top: 1.4rem }
"""


def write_page(path: str, text: str, program: cbpf.Filter, converted: cbpf.Converted) -> None:
    """Write to `path` the stages of `text`: classic and extended instructions side by side, LLVM IR, machine code.

    Raises:  NotSupported on a machine without JIT.
    """
    code = Code(verify(cbpf.as_program(program)), [], Options())
    written, optimized, assembly = code.text()
    size = len(code.image("prog").text)
    slots = len(converted.insns)
    body = "\n".join(
        [
            *beside(program, converted),
            *stage("LLVM IR", f"as the {slots} extended instructions are written", written, shown=False),
            *stage("LLVM IR, optimised", "with what it calls of the runtime in it", optimized),
            *stage("Machine code", f"{size} bytes for this processor", assembly),
        ]
    )
    page.write(path, "cbpf convert", text, body, STYLE)


def beside(program: cbpf.Filter, converted: cbpf.Converted) -> Iterator[str]:
    """Yield the table of classic instructions, each beside its extended ones."""
    became: dict[int, list[str]] = {}
    for pc, line in listing(converted.insns):
        became.setdefault(converted.origin[pc], []).append(f"{pc:4}: {line}")
    classic = {-1: "prologue", **dict(enumerate(cbpf.listing(program).splitlines()))}
    yield f"<h2>Classic, {len(program)} instructions, and extended, {len(converted.insns)}</h2>\n<table>"
    yield "<tr><th>classic</th><th>extended</th></tr>"
    for origin, left in classic.items():
        right = "\n".join(became.get(origin, ["no path leads here"]))
        soft = "" if origin >= 0 and origin in became else " soft"
        yield (
            f'<tr class="line code"><td class="classic{soft}">{escape(left.expandtabs(8))}</td>'
            f'<td class="insn{soft}">{escape(right)}</td></tr>'
        )
    yield "</table>"


def stage(title: str, about: str, text: str, *, shown: bool = True) -> Iterator[str]:
    """Yield one stage's text, folded unless `shown`."""
    yield f'<details{" open" if shown else ""}><summary>{title} <span class="soft">{about}</span></summary>'
    yield f"<pre>{escape(text.strip())}</pre></details>"

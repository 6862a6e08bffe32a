"""One self-contained HTML page, in the style of every page that a verb writes."""

from __future__ import annotations

from html import escape

from tcbpf import files as newfile

STYLE = """
:root { --ink: #1c2733; --soft: #66788a; --line: #dde4ea; --paper: #fff; --code: #f6f8fa; --yes: #1a7f37; --no: #c62828;
  --heat: 255,140,0; }
@media (prefers-color-scheme: dark) { :root { --ink: #d7dee6; --soft: #8b9cad; --line: #2c3742; --paper: #12181e;
  --code: #1a222a; --yes: #56c271; --no: #ff7b72; } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 76rem; padding: 1.5rem; color: var(--ink); background: var(--paper);
  font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 1.3rem }
h2 { font-size: 1.1rem; margin: 2.2rem 0 .4rem }
code, pre, .code { font: 12.5px/1.55 ui-monospace, "DejaVu Sans Mono", Menlo, monospace }
.soft { color: var(--soft) }
nav a { margin-right: 1rem; color: inherit }
table { border-collapse: collapse; width: 100% }
td { vertical-align: top; padding: 0 .6rem }
td.n { text-align: right; white-space: nowrap; color: var(--soft); width: 1% }
tr.line td { border-top: 1px solid var(--line); padding-top: .15rem }
.src { white-space: pre-wrap; font-weight: 600 }
.insn { padding-left: 1.6rem; white-space: pre-wrap }
summary { cursor: pointer }
"""


def write(path: str, verb: str, subject: str, body: str, style: str = "") -> None:
    """Write to `path` the page of `tcbpf VERB SUBJECT`: `body` is HTML, `style` its additions to the common style."""
    whole = (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">\n'
        f"<title>tcbpf {escape(verb)} {escape(subject)}</title>\n<style>{STYLE}{style}</style>\n"
        f"<h1>tcbpf {escape(verb)} <code>{escape(subject)}</code></h1>\n{body}\n</html>\n"
    )
    newfile.write(path, whole.encode())

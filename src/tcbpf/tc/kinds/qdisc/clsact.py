"""clsact and ingress: no queue, only the hooks that filters attach to.

Source:  net/sched/sch_ingress.c (v6.18).
"""

from __future__ import annotations

from tcbpf.control.args import LOCAL, Options, Quit, Words
from tcbpf.control.objects import Qdisc
from tcbpf.control.sheet import Sheet
from tcbpf.tc.kinds.qdisc.kind import QdiscKind, Values


def parse_clsact(words: Words) -> Values:
    """Refuse any option of clsact."""
    return _no_options(words, "clsact")


def parse_ingress(words: Words) -> Values:
    """Refuse any option of ingress."""
    return _no_options(words, "ingress")


def show_ingress(sheet: Sheet, row: Qdisc, options: Options) -> None:
    """Put tc's rule."""
    sheet.say("---------------- ")


def _no_options(words: Words, name: str) -> Values:
    if words:
        raise Quit(LOCAL, f'What is "{words.take()}"?', f"Usage: ... {name}")
    return {}


CLSACT = QdiscKind("clsact", parse=parse_clsact, hooks=("ingress", "egress"))
INGRESS = QdiscKind("ingress", parse=parse_ingress, show=show_ingress, hooks=("ingress",))

"""Print qdiscs, classes and filters as tc(8) 6.1 does."""

from __future__ import annotations

from dataclasses import dataclass

from tcbpf.cli.tc import show_action as tc_show_action
from tcbpf.control.args import Options
from tcbpf.control.handles import HOOKS, format_handle, format_protocol
from tcbpf.control.objects import Chain, Filter, Qdisc, TcClass
from tcbpf.control.sheet import Sheet
from tcbpf.tc.kinds.filter import FILTERS
from tcbpf.tc.kinds.qdisc import QDISCS
from tcbpf.uapi.tc import TC_H_ROOT


@dataclass(frozen=True, slots=True)
class Selection:
    """The user's selection, which rows do not repeat; 0, "" and None select nothing."""

    dev: str = ""
    parent: int = 0
    protocol: int = 0
    pref: int = 0
    chain: int | None = None
    block: int = 0


def qdisc(sheet: Sheet, row: Qdisc, options: Options, selected: Selection) -> None:
    """Put one qdisc."""
    with sheet.object():
        sheet.say("qdisc ")
        sheet.put("kind", row.kind, "{}")
        handle = f"{row.handle >> 16:x}:"
        sheet.put("handle", handle, " {} ", shown=f"{handle}[{row.handle:08x}]" if options.raw else handle)
        _device(sheet, row.dev, selected)
        if row.parent == TC_H_ROOT:
            sheet.put("root", True, "root ")
        elif row.parent:
            sheet.put("parent", format_handle(row.parent), "parent {} ")
        if row.refcnt != 1:
            sheet.put("refcnt", row.refcnt, "refcnt {} ")
        for word, number in (("ingress_block", row.ingress_block), ("egress_block", row.egress_block)):
            if number:
                sheet.put(word, number, f"{word} {{}} ")
        with sheet.object("options"):
            _qdisc_options(sheet, row, options)
        sheet.line()
        if options.stats:
            tc_show_action.stats(sheet, row.stats, " ")
            sheet.line()


def _qdisc_options(sheet: Sheet, row: Qdisc, options: Options) -> None:
    kind = QDISCS.get(row.kind)
    if kind and kind.show:
        kind.show(sheet, row, options)
    elif "unread" in row.options:
        sheet.say("[cannot parse qdisc parameters]")


def klass(sheet: Sheet, row: TcClass, options: Options, selected: Selection) -> None:
    """Put one class."""
    sheet.say(f"class {row.kind} {format_handle(row.classid)} ")
    if not selected.dev:
        sheet.say(f"dev {row.dev} ")
    sheet.say("root " if row.parent == TC_H_ROOT else f"parent {format_handle(row.parent)} ")
    if row.leaf:
        sheet.say(f"leaf {row.leaf >> 16:x}: ")
    of = QDISCS.get(row.kind)
    kind = of.classes if of else None
    if kind and kind.show:
        kind.show(sheet, row, options)
    sheet.say("\n")
    if options.stats:
        with sheet.object():
            tc_show_action.stats(sheet, row.stats, " ")
        sheet.say("\n")
        if kind and kind.show_stats:
            kind.show_stats(sheet, row)
        sheet.say("\n")


def filter(sheet: Sheet, row: Filter, options: Options, selected: Selection) -> None:
    """Put one filter; in brief, only the heads of the preferences."""
    if options.brief and row.handle:
        return
    with sheet.object():
        sheet.say("filter ")
        _place(sheet, row, selected)
        if not row.block and (not selected.parent or selected.parent != row.parent):
            hook = next((word for word, handle in HOOKS.items() if handle == row.parent), "")
            if row.parent == TC_H_ROOT or hook:
                sheet.put(hook or "root", True, f"{hook or 'root'} ")
            else:
                sheet.put("parent", format_handle(row.parent), "parent {} ")
        if row.protocol and row.protocol != selected.protocol:
            name = f"[{row.protocol}]" if options.numeric else format_protocol(row.protocol)
            sheet.put("protocol", name, "protocol {} ")
        if row.pref and row.pref != selected.pref:
            sheet.put("pref", row.pref, "pref {} ")
        sheet.put("kind", row.kind, "{} ")
        if selected.chain is None or selected.chain != row.chain:
            sheet.put("chain", row.chain, "chain {} ")
        if row.handle:
            with sheet.object("options"):
                _filter_options(sheet, row, options)
        sheet.line()


def _filter_options(sheet: Sheet, row: Filter, options: Options) -> None:
    """Put handle, options and actions, or that the options of an unknown kind cannot be read."""
    kind = FILTERS.get(row.kind)
    if kind is not None:
        kind.show(sheet, row, options)
        tc_show_action.actions(sheet, row.actions, options)
    elif row.options:
        sheet.say("[cannot parse parameters]")
    else:
        sheet.put("handle", f"{row.handle:#x}", "handle {} ")


def chain(sheet: Sheet, row: Chain, options: Options, selected: Selection) -> None:
    """Put one chain."""
    with sheet.object():
        sheet.say("chain ")
        _place(sheet, row, selected)
        if not row.block and selected.parent != row.parent:
            sheet.put("parent", format_handle(row.parent), "parent {} ")
        if selected.chain is None:
            sheet.put("chain", row.number, "chain {} ")
        sheet.line()


def _place(sheet: Sheet, row: Filter | Chain, selected: Selection) -> None:
    """Put the block or device of a row."""
    if not row.block:
        _device(sheet, row.dev, selected)
    elif selected.block != row.block:
        sheet.put("block", row.block, "block {} ")


def _device(sheet: Sheet, name: str, selected: Selection) -> None:
    if not selected.dev:
        sheet.put("dev", name, "dev {} ")

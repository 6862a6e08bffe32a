"""Print actions and counters as tc(8) 6.1 does; tc/kinds/action has the words of each kind."""

from __future__ import annotations

from tcbpf.control.args import Options
from tcbpf.control.objects import ACT_SKIP_HW, NO_PERCPU, Action, Stats
from tcbpf.control.sheet import Sheet
from tcbpf.control.units import format_size
from tcbpf.tc.kinds.action import ACTIONS, gact


def actions(sheet: Sheet, rows: tuple[Action, ...], options: Options) -> None:
    """Put a filter's actions in their order."""
    if not rows:
        return
    with sheet.list("actions"):
        for order, row in enumerate(rows, 1):
            with sheet.object():
                sheet.line()
                sheet.put("order", order, "\taction order {}: ")
                action(sheet, row, options)
                _marks(sheet, row)
                if row.flags & NO_PERCPU:
                    sheet.line()
                _hw_stats(sheet, row)


def listing(sheet: Sheet, rows: tuple[Action, ...], options: Options, *, total: int, first: int) -> None:
    """Put standalone actions; `first` is the order of the first."""
    with sheet.object():
        sheet.put("total acts", total, "total acts {}")
        sheet.line()
    with sheet.object(), sheet.list("actions"):
        for order, row in enumerate(rows, first):
            with sheet.object():
                sheet.line()
                sheet.put("order", order, "\taction order {}: ")
                action(sheet, row, options)
                _marks(sheet, row)
                place = "skip_hw" if row.flags & ACT_SKIP_HW else "not_in_hw"
                sheet.put(place, True, f"\t{place}")
                sheet.line()
                _hw_stats(sheet, row)


def _marks(sheet: Sheet, row: Action) -> None:
    """Put cookie and no_percpu."""
    if row.cookie:
        sheet.put("cookie", row.cookie.hex(), "\tcookie {}")
        sheet.line()
    if row.flags & NO_PERCPU:
        sheet.put("no_percpu", True, "\tno_percpu")


def _hw_stats(sheet: Sheet, row: Action) -> None:
    if row.hw_stats_asked:
        sheet.put("hw_stats", [row.hw_stats_asked], "\thw_stats {}", shown=row.hw_stats_asked)
        sheet.line()
    if row.hw_stats:
        sheet.put("used_hw_stats", [row.hw_stats], "\tused_hw_stats {}", shown=row.hw_stats)
        sheet.line()


def action(sheet: Sheet, row: Action, options: Options) -> None:
    """Put one action: the options of its kind, then what every action has."""
    sheet.put("kind", row.kind, "{} ")
    ACTIONS.get(row.kind, gact.GACT).show(sheet, row, options)
    sheet.put("ref", row.ref, " ref {}")
    sheet.put("bind", row.bind, " bind {}")
    if options.stats:
        if row.installed >= 0:
            sheet.put("installed", row.installed, " installed {} sec")
        if row.used >= 0:
            sheet.put("last_used", row.used, " used {} sec")
        if row.first_used >= 0:
            sheet.put("first_used", row.first_used, " firstused {} sec")
    sheet.line()
    if options.stats:
        sheet.say("\tAction statistics:")
        sheet.line()
        with sheet.object("stats"):
            stats(sheet, row.stats, "\t")
        sheet.line()


def stats(sheet: Sheet, row: Stats, before: str) -> None:
    """Put counters on two lines, without the last line's end."""
    sheet.say(before)
    sheet.put("bytes", row.bytes, "Sent {} bytes")
    sheet.put("packets", row.packets, " {} pkt")
    sheet.put("drops", row.drops, " (dropped {}")
    sheet.put("overlimits", row.overlimits, ", overlimits {}")
    sheet.put("requeues", row.requeues, " requeues {}) ")
    sheet.line()
    sheet.say(before)
    sheet.put("backlog", row.backlog, "backlog {}", shown=format_size(row.backlog))
    sheet.put("qlen", row.qlen, " {}p")
    sheet.put("", row.requeues, " requeues {}")

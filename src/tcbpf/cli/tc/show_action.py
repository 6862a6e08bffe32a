"""Print actions, programs, bytecode and counters as tc(8) 6.1 does."""

from __future__ import annotations

from typing import Any

from tcbpf.control.handles import format_handle, format_protocol
from tcbpf.control.objects import ACT_SKIP_HW, NO_PERCPU, Action, Bpf, Stats
from tcbpf.control.sheet import Sheet
from tcbpf.control.units import format_size
from tcbpf.control.words import Options

HW_STATS = ("immediate", "delayed", "disabled")
"""What an action's user may ask of the hardware's counters."""

PACKET_TYPES = ("host", "broadcast", "multicast", "otherhost")
"""What skbedit calls the PACKET_* numbers."""


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
    """Put actions that stand alone; `first` is the order of the first."""
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
    """Put what its user wrote on an action."""
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
    """Put one action: its kind's own words, then what all have."""
    sheet.put("kind", row.kind, "{} ")
    _KINDS.get(row.kind, _gact)(sheet, row, options)
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


def _gact(sheet: Sheet, row: Action, options: Options) -> None:
    control(sheet, row.control, "action ", "")
    with sheet.object("prob"):
        sheet.line()
        sheet.put("random_type", "none", "\t random type {}")
        control(sheet, "pass", " ", " ")
        sheet.put("val", 0, "val {}")
    sheet.line()
    sheet.put("index", row.index, "\t index {}")


def _mirred(sheet: Sheet, row: Action, options: Options) -> None:
    direction, deed = (str(row.options.get(key, word)) for key, word in (("direction", "egress"), ("action", "redirect")))
    sheet.put("mirred_action", deed)
    sheet.put("direction", direction)
    sheet.say(f"({direction.capitalize()} {deed.capitalize()}")
    sheet.put("to_dev", row.options.get("dev", ""), " to device {})")
    control(sheet, row.control, " ", "")
    sheet.line()
    sheet.put("index", row.index, "\tindex {}")


def _bpf(sheet: Sheet, row: Action, options: Options) -> None:
    values: dict[str, Any] = row.options
    if values.get("name"):
        sheet.put("bpf_name", values["name"], "{} ")
    if values.get("bytecode"):
        bytecode(sheet, values["bytecode"])
        sheet.say(" ")
    if values.get("id"):
        known = {key: values[key] for key in ("prog_name", "load_time", "uid", "btf_id", "jited") if key in values}
        program(sheet, Bpf(id=values["id"], tag=values.get("tag", b""), **known), options)
    control(sheet, row.control, "default-action ", "")
    sheet.line()
    sheet.put("index", row.index, "\t index {}")


def _vlan(sheet: Sheet, row: Action, options: Options) -> None:
    values: dict[str, Any] = row.options
    sheet.put("vlan_action", values.get("action", "push"), " {}")
    if "id" in values:
        sheet.put("id", values["id"], " id {}")
    if "protocol" in values:
        sheet.put("protocol", format_protocol(int(values["protocol"])), " protocol {}")
    if "priority" in values:
        sheet.put("priority", values["priority"], " priority {}")
    control(sheet, row.control, " ", "")
    sheet.line()
    sheet.put("index", row.index, "\t index {}")


def _skbedit(sheet: Sheet, row: Action, options: Options) -> None:
    values: dict[str, Any] = row.options
    if "queue_mapping" in values:
        sheet.put("queue_mapping", values["queue_mapping"], "queue_mapping {}")
    if "priority" in values:
        sheet.put("priority", format_handle(int(values["priority"])), " priority {}")
    if "mark" in values:
        sheet.put("mark", values["mark"], " mark {}")
    if "mask" in values:
        sheet.put("mask", f"{int(values['mask']):#x}", "/{}")
    if "ptype" in values:
        sheet.put("ptype", PACKET_TYPES[int(values["ptype"])], " ptype {}")
    control(sheet, row.control, " ", "")
    sheet.line()
    sheet.put("index", row.index, "\t index {}")


_KINDS = {"gact": _gact, "mirred": _mirred, "bpf": _bpf, "vlan": _vlan, "skbedit": _skbedit}


def control(sheet: Sheet, word: str, before: str, after: str) -> None:
    """Put what an action ends in: "drop", "goto chain 3", "jump 2"."""
    name, number = word.rpartition(" ")[::2] if word[-1:].isdigit() else (word, "")
    with sheet.object("control_action"):
        sheet.put("type", name.removesuffix(" chain"), before + "{}")
        if number and name.endswith("chain"):
            sheet.put("chain", int(number), " chain {}")
        elif number:
            sheet.put("jump", int(number), " {}")
    sheet.say(after)


def bytecode(sheet: Sheet, code: tuple[tuple[int, int, int, int], ...]) -> None:
    """Put classic bytecode as the command line takes it."""
    with sheet.object("bytecode"):
        sheet.put("length", len(code), "bytecode '{},")
        with sheet.list("insns"):
            for i, insn in enumerate(code):
                with sheet.object():
                    for key, value in zip(("code", "jt", "jf", "k"), insn, strict=True):
                        sheet.put(key, value)
                sheet.say("{} {} {} {}".format(*insn) + ("'" if i == len(code) - 1 else ","))


def program(sheet: Sheet, bpf: Bpf, options: Options) -> None:
    """Put what is known of a filter's program."""
    with sheet.object("prog"):
        sheet.put("id", bpf.id, "id {} ")
        if bpf.prog_name:
            sheet.put("name", bpf.prog_name, "name {} ")
        sheet.put("tag", bpf.tag.hex(), "tag {} ")
        sheet.put("jited", int(bpf.jited), "jited " if bpf.jited else "")
        if options.details:
            if bpf.load_time:
                sheet.put("load_time", bpf.load_time, "load_time {} ")
                sheet.put("created_by_uid", bpf.uid, "created_by_uid {} ")
            if bpf.btf_id:
                sheet.put("btf_id", bpf.btf_id, "btf_id {} ")


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

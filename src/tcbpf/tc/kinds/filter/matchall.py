"""matchall: every packet. Options: classid; skip_hw and skip_sw, which tc takes and nothing here acts on.

Source:  net/sched/cls_matchall.c (v6.18); tc/f_matchall.c of iproute2 6.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tcbpf.control.args import LOCAL, Options, Quit, Words, matches
from tcbpf.control.attributes import number, u32
from tcbpf.control.handles import format_handle
from tcbpf.control.objects import Action, Filter
from tcbpf.control.sheet import Sheet
from tcbpf.errors import InputError
from tcbpf.tc.kinds.command import Command, Runtime
from tcbpf.tc.kinds.filter.kind import FilterKind, take_actions, take_classid
from tcbpf.uapi import tc as uapi

USAGE = "Usage: ... matchall [ classid CLASSID ] [ action ACTION ]"


def parse(words: Words, command: Command) -> tuple[dict[str, object], tuple[Action, ...]]:
    """Take a class, and actions.

    Raises:  Quit.
    """
    options: dict[str, object] = {}
    actions: tuple[Action, ...] = ()
    while words:
        word = words.take()
        if matches(word, "classid") or matches(word, "flowid"):
            options["classid"] = take_classid(words)
        elif matches(word, "action"):
            actions = take_actions(words, command)
        elif word in ("skip_hw", "skip_sw"):
            options[word] = True
        else:
            raise Quit(LOCAL, f'What is "{word}"?', USAGE)
    return options, actions


def show(sheet: Sheet, row: Filter, options: Options) -> None:
    """Put handle and class."""
    values: dict[str, Any] = row.options if isinstance(row.options, dict) else {}
    sheet.put("handle", f"{row.handle:#x}", "handle {} ")
    if values.get("classid"):
        sheet.put("flowid", format_handle(int(values["classid"])), "flowid {} ")
    if values.get("not_in_hw"):
        sheet.line()
        sheet.put("not_in_hw", True, "  not_in_hw")


def options_of(filter: Filter) -> dict[str, object]:
    """Return the options of a matchall filter.

    Raises:  InputError for those of another kind.
    """
    if not isinstance(filter.options, dict):
        raise InputError("a matchall filter takes no Bpf options")
    return filter.options


def classid_of(filter: Filter) -> int:
    """Return the class that a filter sends packets to, 0 for none."""
    return int(str(options_of(filter).get("classid", 0)))


def pack(request: Filter) -> list[bytes]:
    """Return the class."""
    return [u32(uapi.TCA_MATCHALL_CLASSID, classid_of(request))] if "classid" in options_of(request) else []


def read(rows: Mapping[int, bytes]) -> dict[str, object]:
    """Return the class of a dumped filter."""
    return {"classid": number(rows[uapi.TCA_MATCHALL_CLASSID])} if uapi.TCA_MATCHALL_CLASSID in rows else {}


def check(request: Filter, what: str) -> dict[str, object]:
    """Return the options.

    Raises:  InputError for those of another kind.
    """
    return options_of(request)


def build(made: Any, filter: Filter, runtime: Runtime) -> None:
    """Fill in the class."""
    made.classid = classid_of(filter)


MATCHALL = FilterKind("matchall", parse, show, pack, read, uapi.TCA_MATCHALL_ACT, check, build)

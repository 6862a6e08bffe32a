"""skbedit: set fields of struct sk_buff. Options: queue_mapping, priority, mark, mask, ptype.

Source:  net/sched/act_skbedit.c (v6.18); tc/m_skbedit.c of iproute2 6.1; include/uapi/linux/tc_act/tc_skbedit.h, which
         not every kernel's BTF has.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from tcbpf.control.args import LOCAL, Options, Quit, Words, c_number, matches, parsed
from tcbpf.control.attributes import attr
from tcbpf.control.handles import format_handle, parse_classid
from tcbpf.control.objects import Action
from tcbpf.control.sheet import Sheet
from tcbpf.tc.kinds.action.ending import show_control, show_index, take_control, take_index
from tcbpf.tc.kinds.action.kind import ActionKind, Values, as_given, integer
from tcbpf.tc.kinds.command import Command, Devices, Runtime

USAGE = """\
Usage: ... skbedit [ queue_mapping N ] [ priority CLASSID ] [ mark MARK[/MASK] ] [ ptype TYPE ]
           [ CONTROL ] [ index INDEX ]"""
PARMS = 2
FIELDS = {"priority": (3, "=I"), "queue_mapping": (4, "=H"), "mark": (5, "=I"), "ptype": (7, "=H"), "mask": (8, "=I")}
FLAGS = {"priority": 1, "queue_mapping": 2, "mark": 4, "ptype": 8, "mask": 16}  # SKBEDIT_F_*
PACKET_TYPES = ("host", "broadcast", "multicast", "otherhost")  # in the order of the PACKET_* numbers


def parse(words: Words, command: Command) -> Action:
    """Take the fields.

    Raises:  Quit.
    """
    options: Values = {}
    words.require()
    while words:
        word = words.next
        if matches(word, "queue_mapping"):
            words.take()
            options["queue_mapping"] = words.number("Illegal queue_mapping", limit=0xFFFF, status=LOCAL)
        elif matches(word, "priority"):
            words.take()
            options["priority"] = parsed(parse_classid, words.take(), "Illegal priority", status=LOCAL)
        elif matches(word, "mark"):
            words.take()
            options |= _mark(words.take())
        elif matches(word, "ptype"):
            words.take()
            options["ptype"] = _packet_type(words.take())
        else:
            break
    if not options and words.next != "index":
        raise Quit(LOCAL, USAGE)
    return Action("skbedit", control=take_control(words), index=take_index(words, "skbedit"), options=options)


def _mark(word: str) -> Values:
    mark, slash, mask = word.partition("/")
    values: Values = {}
    for name, digits in (("mark", mark), *((("mask", mask),) if slash else ())):
        value = c_number(digits)
        if value is None or value > 0xFFFFFFFF:
            raise Quit(LOCAL, f"Illegal {name}")
        values[name] = value
    return values


def _packet_type(word: str) -> int:
    if word not in PACKET_TYPES:
        raise Quit(LOCAL, f"Illegal ptype ({word})")
    return PACKET_TYPES.index(word)


def show(sheet: Sheet, row: Action, options: Options) -> None:
    """Put the fields."""
    values: Values = row.options
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
    show_control(sheet, row.control)
    show_index(sheet, row.index)


def pack(action: Action, gen: bytes, devices: Devices) -> list[bytes]:
    """Return the parameters and the fields."""
    options: Values = action.options
    fields = [attr(place, struct.pack(form, options[word])) for word, (place, form) in FIELDS.items() if word in options]
    return [attr(PARMS, gen), *fields]


def read(rows: Mapping[int, bytes], rest: bytes, devices: Devices) -> Values:
    """Return the fields."""
    return {word: struct.unpack(form, rows[place])[0] for word, (place, form) in FIELDS.items() if place in rows}


def build(made: Any, action: Action, runtime: Runtime) -> None:
    """Fill in the fields."""
    options = action.options
    made.set = sum(flag for word, flag in FLAGS.items() if word in options)
    made.priority, made.mark = integer(options, "priority"), integer(options, "mark")
    made.mask, made.queue = integer(options, "mask", 0xFFFFFFFF), integer(options, "queue_mapping")
    made.ptype = integer(options, "ptype")


SKBEDIT = ActionKind("skbedit", parse, show, pack, read, as_given, build)

"""vlan: push, change or pop a tag. Options: action ("push", "pop", "modify"), id, protocol, priority.

Source:  net/sched/act_vlan.c (v6.18); tc/m_vlan.c of iproute2 6.1; include/uapi/linux/tc_act/tc_vlan.h, which not every
         kernel's BTF has.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Collection, Mapping
from typing import Any

from tcbpf.control.args import LOCAL, USAGE, Options, Quit, Words, matches, parsed, wrong
from tcbpf.control.attributes import attr, number
from tcbpf.control.handles import format_protocol, parse_protocol
from tcbpf.control.objects import Action
from tcbpf.control.sheet import Sheet
from tcbpf.errors import InputError, TcError
from tcbpf.tc.kinds.action.ending import show_control, show_index, take_control, take_index
from tcbpf.tc.kinds.action.kind import ActionKind, Values, integer
from tcbpf.tc.kinds.command import Command, Devices, Runtime
from tcbpf.uapi.packet import ETH_P_8021Q

HELP = "Usage: ... vlan pop | push|modify id ID [ protocol 802.1Q|802.1ad ] [ priority PRIO ] [ CONTROL ] [ index INDEX ]"
MODES = {"pop": 1, "push": 2, "modify": 3}
PARMS = 2
FIELDS = {"id": (3, "=H"), "protocol": (4, ">H"), "priority": (6, "=B")}  # attribute, form


def parse(words: Words, command: Command) -> Action:
    """Take what happens to the tag.

    Raises:  Quit.
    """
    options: Values = {}
    words.require()
    while words:
        word = words.next
        if word in MODES:
            words.take()
            if "action" in options:
                raise Quit(USAGE, f'unexpected "{word}" - action already specified', HELP)
            options["action"] = str(word)
        elif word in ("id", "protocol") or matches(word, "priority"):
            words.take()
            if options.get("action") not in ("push", "modify"):
                wrong(word, "only valid for push/modify")
            if word == "id":
                options["id"] = words.number("id is invalid", limit=0xFFFF)
            elif word == "protocol":
                options["protocol"] = parsed(parse_protocol, words.take(), "protocol is invalid")
            else:
                options["priority"] = words.number("prio is invalid", limit=7)
        elif word == "help":
            raise Quit(USAGE, HELP)
        else:
            break
    control, index = take_control(words), take_index(words, "vlan")
    if options.get("action") in ("push", "modify"):
        if "id" not in options:
            raise Quit(LOCAL, f"id needs to be set for {options['action']}", HELP)
        options.setdefault("protocol", ETH_P_8021Q)
    elif not options and not index:
        raise Quit(LOCAL, HELP)
    return Action("vlan", control=control, index=index, options=options)


def show(sheet: Sheet, row: Action, options: Options) -> None:
    """Put what happens to the tag."""
    values: Values = row.options
    sheet.put("vlan_action", values.get("action", ""), " {}")
    if "id" in values:
        sheet.put("id", values["id"], " id {}")
    if "protocol" in values:
        sheet.put("protocol", format_protocol(int(values["protocol"])), " protocol {}")
    if "priority" in values:
        sheet.put("priority", values["priority"], " priority {}")
    show_control(sheet, row.control)
    show_index(sheet, row.index)


def mode_of(options: Mapping[str, object]) -> int:
    """Return the number of what happens to the tag, 0 when that is not said.

    Raises:  InputError.
    """
    if "action" not in options:
        return 0
    word = str(options["action"])
    if word not in MODES:
        raise InputError(f"vlan {word}", hint=", ".join(MODES))
    return MODES[word]


def pack(action: Action, gen: bytes, devices: Devices) -> list[bytes]:
    """Return the parameters and the fields of the tag; without options it is an action that exists, to be shared."""
    options: Values = action.options
    fields = [attr(place, struct.pack(form, options[word])) for word, (place, form) in FIELDS.items() if word in options]
    return [attr(PARMS, gen + struct.pack("=i", mode_of(options))), *fields]


def read(rows: Mapping[int, bytes], rest: bytes, devices: Devices) -> Values:
    """Return what happens to the tag."""
    mode = number(rest[:4])
    fields = {word: struct.unpack(form, rows[place])[0] for word, (place, form) in FIELDS.items() if place in rows}
    return {"action": next((word for word, code in MODES.items() if code == mode), str(mode)), **fields}


def check(action: Action, devices: Collection[str], what: str) -> Values:
    """Return the options.

    Raises:  TcError; InputError.
    """
    if not mode_of(action.options):
        raise TcError(errno.EINVAL, what)
    return action.options


def build(made: Any, action: Action, runtime: Runtime) -> None:
    """Fill in mode and tag."""
    options = action.options
    made.mode, made.vlan_id = mode_of(options), integer(options, "id")
    made.vlan_proto = socket.htons(integer(options, "protocol", ETH_P_8021Q))
    made.vlan_prio, made.vlan_prio_set = integer(options, "priority"), "priority" in options


VLAN = ActionKind("vlan", parse, show, pack, read, check, build)

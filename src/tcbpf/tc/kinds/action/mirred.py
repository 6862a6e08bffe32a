"""mirred: a packet, or a copy of it, to another device. Options: direction ("egress", "ingress"), action ("redirect",
"mirror"), dev.

Source:  net/sched/act_mirred.c (v6.18); tc/m_mirred.c of iproute2 6.1.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Collection, Mapping
from typing import Any

from tcbpf.control.args import LOCAL, USAGE, Options, Quit, Words, matches
from tcbpf.control.attributes import attr
from tcbpf.control.objects import Action
from tcbpf.control.sheet import Sheet
from tcbpf.errors import InputError, TcError
from tcbpf.tc.kinds.action.ending import show_control, show_index, take_control, take_index, take_index_number
from tcbpf.tc.kinds.action.kind import ActionKind, Values
from tcbpf.tc.kinds.command import Command, Devices, Runtime
from tcbpf.uapi import tc as uapi

HELP = "Usage: ... mirred egress|ingress redirect|mirror dev DEVICE [ CONTROL ] [ index INDEX ]   (CONTROL with mirror)"
MODES = {
    ("egress", "redirect"): uapi.TCA_EGRESS_REDIR,
    ("egress", "mirror"): uapi.TCA_EGRESS_MIRROR,
    ("ingress", "redirect"): uapi.TCA_INGRESS_REDIR,
    ("ingress", "mirror"): uapi.TCA_INGRESS_MIRROR,
}
_REST = struct.Struct("=iI")  # of struct tc_mirred, after tc_gen: eaction, ifindex


def parse(words: Words, command: Command) -> Action:
    """Take where packets go.

    Raises:  Quit.
    """
    word = words.take()
    if word == "help":
        raise Quit(USAGE, HELP)
    if matches(word, "index"):  # one that is there already, to be shared
        return Action("mirred", index=take_index_number(words))
    direction = next((name for name in ("egress", "ingress") if matches(word, name)), "")
    if not direction:
        raise Quit(LOCAL, f"mirred option not supported {word}")
    word = words.take()
    if word != direction and word in ("egress", "ingress") and words:
        raise Quit(LOCAL, "Can't have both ingress and egress")
    deed = next((name for name in ("redirect", "mirror") if matches(word, name)), "")
    words.require()
    index = take_index(words)
    before, device = words.take(), words.take()
    if not deed or before != "dev":
        raise Quit(USAGE, f"mirred option not supported {before if deed else word}", HELP)
    command.require_device(device)
    control = take_control(words) if deed == "mirror" else "stolen"
    if index and words.next == "index":
        raise Quit(LOCAL, "mirred: Illegal double index")
    return Action(
        "mirred",
        control=control,
        index=index or take_index(words, "mirred"),
        options={"direction": direction, "action": deed, "dev": device},
    )


def show(sheet: Sheet, row: Action, options: Options) -> None:
    """Put where packets go."""
    direction, deed = way_of(row.options)
    sheet.put("mirred_action", deed)
    sheet.put("direction", direction)
    sheet.say(f"({direction.capitalize()} {deed.capitalize()}")
    sheet.put("to_dev", row.options.get("dev", ""), " to device {})")
    show_control(sheet, row.control)
    show_index(sheet, row.index, "\t")


def way_of(options: Mapping[str, object]) -> tuple[str, str]:
    """Return direction and deed."""
    return str(options.get("direction", "egress")), str(options.get("action", "redirect"))


def mode_of(options: Mapping[str, object]) -> int:
    """Return the number of direction and deed.

    Raises:  InputError.
    """
    way = way_of(options)
    if way not in MODES:
        raise InputError(f"mirred {way[0]} {way[1]}", hint="egress or ingress, mirror or redirect")
    return MODES[way]


def pack(action: Action, gen: bytes, devices: Devices) -> list[bytes]:
    """Return the parameters; without options it is an action that exists, to be shared."""
    mode = mode_of(action.options) if action.options else 0
    return [attr(uapi.TCA_MIRRED_PARMS, gen + _REST.pack(mode, devices.index(str(action.options.get("dev", "")))))]


def read(rows: Mapping[int, bytes], rest: bytes, devices: Devices) -> Values:
    """Return where packets go."""
    mode, device = _REST.unpack_from(rest)
    direction, deed = next((words for words, number in MODES.items() if number == mode), ("egress", "redirect"))
    return {"direction": direction, "action": deed, "dev": devices.name(device)}


def check(action: Action, devices: Collection[str], what: str) -> Values:
    """Return the options, direction and deed filled in.

    Raises:  TcError; InputError.
    """
    if not action.options:
        raise TcError(errno.EINVAL, what, "act_mirred: Unknown mirred option")
    mode_of(action.options)
    if action.options.get("dev") not in devices:
        raise TcError(errno.ENODEV, what)
    return {"direction": "egress", "action": "redirect", **action.options}


def build(made: Any, action: Action, runtime: Runtime) -> None:
    """Fill in mode and device."""
    made.mode, made.ifindex = mode_of(action.options), runtime.index(str(action.options["dev"]))


MIRRED = ActionKind("mirred", parse, show, pack, read, check, build)

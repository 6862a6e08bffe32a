"""gact: a control word alone.

Source:  net/sched/act_gact.c (v6.18); tc/m_gact.c of iproute2 6.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tcbpf.control.args import USAGE, Options, Quit, Words, absent
from tcbpf.control.attributes import attr
from tcbpf.control.objects import Action
from tcbpf.control.sheet import Sheet
from tcbpf.tc.kinds.action.ending import GACT_USAGE, read_control, show_control, show_index, take_index
from tcbpf.tc.kinds.action.kind import ActionKind, Values, as_given
from tcbpf.tc.kinds.command import Command, Devices, Runtime
from tcbpf.uapi import tc as uapi


def parse(words: Words, command: Command) -> Action:
    """Take a control word.

    Raises:  Quit.
    """
    word = words.take()
    control = read_control(word, words)
    if control is None:
        raise Quit(USAGE, f"Bad action type {word}", GACT_USAGE)
    if words.accept("random", prefix=True):
        absent("random")
    return Action("gact", control=control, index=take_index(words))


def show(sheet: Sheet, row: Action, options: Options) -> None:
    """Put the control word, and the chance of another, which is none."""
    show_control(sheet, row.control, "action ")
    with sheet.object("prob"):
        sheet.line()
        sheet.put("random_type", "none", "\t random type {}")
        show_control(sheet, "pass", after=" ")
        sheet.put("val", 0, "val {}")
    show_index(sheet, row.index)


def pack(action: Action, gen: bytes, devices: Devices) -> list[bytes]:
    """Return the parameters."""
    return [attr(uapi.TCA_GACT_PARMS, gen)]


def read(rows: Mapping[int, bytes], rest: bytes, devices: Devices) -> Values:
    """Return no options."""
    return {}


def build(made: Any, action: Action, runtime: Runtime) -> None:
    """Leave the struct as it is: its control is set for every kind."""


GACT = ActionKind("gact", parse, show, pack, read, as_given, build)

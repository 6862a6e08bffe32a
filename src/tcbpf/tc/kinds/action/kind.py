"""The row that every kind of action fills in."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from tcbpf.control.args import Options, Words
from tcbpf.control.objects import Action
from tcbpf.control.sheet import Sheet
from tcbpf.tc.kinds.command import Command, Devices, Runtime

Values = dict[str, Any]
"""The options of an action by name, as Action.options holds them."""


@dataclass(frozen=True, slots=True)
class ActionKind:
    """One kind of action.

    parse   takes the words after the kind's name.
    show    puts its options, its control word and its index.
    pack    returns the attributes of its TCA_ACT_OPTIONS, given struct tc_gen, which its parameters begin with.
    read    returns the options that a dump holds, given the attributes of TCA_ACT_OPTIONS and what follows struct tc_gen.
    check   returns the options of an action on the user datapath, given the names of its devices; it raises TcError or
            InputError for wrong ones.
    build   fills in struct tcbpf_action.
    """

    name: str
    parse: Callable[[Words, Command], Action]
    show: Callable[[Sheet, Action, Options], None]
    pack: Callable[[Action, bytes, Devices], list[bytes]]
    read: Callable[[Mapping[int, bytes], bytes, Devices], Values]
    check: Callable[[Action, Collection[str], str], Values]
    build: Callable[[Any, Action, Runtime], None]


def integer(options: Mapping[str, object], name: str, default: int = 0) -> int:
    """Return an option that is a number."""
    return int(str(options.get(name, default)), 0)


def as_given(action: Action, devices: Collection[str], what: str) -> Values:
    """Return an action's options as they are."""
    return action.options

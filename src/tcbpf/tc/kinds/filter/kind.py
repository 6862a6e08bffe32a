"""The row that every kind of filter fills in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tcbpf.control.args import LOCAL, Options, Quit, Words
from tcbpf.control.handles import parse_classid
from tcbpf.control.objects import Action, Bpf, Filter
from tcbpf.control.sheet import Sheet
from tcbpf.errors import InputError
from tcbpf.tc.kinds.command import Command, Runtime

FilterOptions = Bpf | dict[str, object]


@dataclass(frozen=True, slots=True)
class FilterKind:
    """One kind of filter.

    parse    takes the words after the kind's name: options, and the actions among them.
    show     puts its handle and options; the actions follow.
    pack     returns the attributes of a request's TCA_OPTIONS, without the actions, which go under `actions`.
    read     returns the options that a dump's TCA_OPTIONS holds; of none, those of a row that only heads a preference.
    check    returns the options as the user datapath keeps them; it raises TcError or InputError for wrong ones.
    build    fills in struct tcbpf_filter; None for a kind that the user datapath has not.
    """

    name: str
    parse: Callable[[Words, Command], tuple[FilterOptions, tuple[Action, ...]]]
    show: Callable[[Sheet, Filter, Options], None]
    pack: Callable[[Filter], list[bytes]]
    read: Callable[[Mapping[int, bytes]], FilterOptions]
    actions: int
    check: Callable[[Filter, str], FilterOptions] = lambda request, what: request.options
    build: Callable[[Any, Filter, Runtime], None] | None = None


def take_classid(words: Words) -> int:
    """Take the handle of a class.

    Raises:  Quit.
    """
    try:
        return parse_classid(words.take())
    except InputError:
        raise Quit(LOCAL, 'Illegal "classid"') from None


def take_actions(words: Words, command: Command) -> tuple[Action, ...]:
    """Take the actions after the word "action".

    Raises:  Quit.
    """
    words.require()
    return command.actions(words)

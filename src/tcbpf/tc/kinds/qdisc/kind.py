"""The row that every kind of qdisc fills in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tcbpf.control.args import LOCAL, Options, Quit, Words, c_number
from tcbpf.control.objects import Link, Qdisc, TcClass
from tcbpf.control.sheet import Sheet

Values = dict[str, Any]
"""The options of a qdisc or class by name, as Qdisc.options and TcClass.options hold them."""


@dataclass(frozen=True, slots=True)
class ClassKind:
    """The classes of one kind of qdisc. A kind whose classes come with the qdisc leaves `parse`, `pack` and `options` out.

    parse       takes the words after the kind's name.
    show        puts a class's options, `show_stats` its own counters.
    pack        returns the TCA_OPTIONS attribute of a new class.
    read        returns the options of a dumped class, given the attributes in TCA_OPTIONS and its own statistics.
    options     fills in a new class's options on the user datapath, given its qdisc.
    leaf_only   names the options that a class with children keeps as they are.
    max_depth   counts the levels of the tree; `level` sets a class's level in a dump, given all of its qdisc's.
    in_use      is what the kernel says of a class that may not go.
    """

    parse: Callable[[Words], Values] | None = None
    show: Callable[[Sheet, TcClass, Options], None] | None = None
    show_stats: Callable[[Sheet, TcClass], None] | None = None
    pack: Callable[[TcClass], bytes] | None = None
    read: Callable[[Mapping[int, bytes], bytes | None], Values] | None = None
    options: Callable[[TcClass, Qdisc], Values] | None = None
    leaf_only: tuple[str, ...] = ()
    max_depth: int = 1
    level: Callable[[Sequence[TcClass], TcClass], TcClass] | None = None
    in_use: str = ""


@dataclass(frozen=True, slots=True)
class QdiscKind:
    """One kind of qdisc.

    parse          takes the words after the kind's name; None when tc(8) makes no such qdisc.
    show           puts its options.
    pack           returns the TCA_OPTIONS attribute of a request, b"" for none.
    read           returns the options that a dump's TCA_OPTIONS holds.
    defaults       returns the options of a new one that says nothing, on the user datapath.
    default_class  returns the class of packets that no filter sends elsewhere, 0 for none, on the user datapath.
    bands          returns the minor numbers of the classes that come with it.
    classes        is there for a classful kind.
    hooks          names the hooks of a qdisc that sits beside the queues: "ingress", "egress".
    changes        tells whether its options may change.
    """

    name: str
    parse: Callable[[Words], Values] | None = None
    show: Callable[[Sheet, Qdisc, Options], None] | None = None
    pack: Callable[[Qdisc], bytes] = lambda qdisc: b""
    read: Callable[[bytes], Values] | None = None
    defaults: Callable[[Link], Values] = lambda link: {}
    default_class: Callable[[Qdisc], int] = lambda qdisc: 0
    bands: Callable[[Qdisc], Sequence[int]] = lambda qdisc: ()
    classes: ClassKind | None = None
    hooks: tuple[str, ...] = ()
    changes: bool = False


def integer(options: Mapping[str, object], name: str, default: int = 0) -> int:
    """Return an option that is a number."""
    return int(str(options.get(name, default)))


def take_number(words: Words, name: str, usage: str) -> int:
    """Take a number of 32 bits.

    Raises:  Quit with the usage.
    """
    value = c_number(words.take())
    if value is None or value > 0xFFFFFFFF:
        raise Quit(LOCAL, f'Illegal "{name}"', usage)
    return value

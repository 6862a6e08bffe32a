"""What net/sched knows at one moment: frozen values, so that a change is a new State and the old one is still whole.

A verb (link.py, qdisc.py, klass.py, filter.py, action.py) takes a State and the object asked about, and returns the
next State or raises TcError with the kernel's errno and words. Whoever keeps the State stores it or does not: nothing
is ever half-done.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tcbpf.control.objects import Action, Actions, Filter, Link, Qdisc, TcClass, TcObject
from tcbpf.errors import TcError

Place = tuple[int, int]  # a device's index, and a handle on it
FilterKey = tuple[int, int, int, int, int]  # a hook, and chain, pref and handle there
Hook = tuple[int, int]  # a device's index, and the parent that filters hang on


@dataclass(frozen=True)
class State:
    """Everything that requests change.

    `once_ingress` has the devices whose ingress queue exists, with or without a qdisc. `qdiscs` and `classes` are in
    order of creation. `filters` has the filters of one block in the order they are asked: chains in order of
    creation, then by pref, the newest of equal ones first. `counters` holds the last number given out, by name.
    `bound` has the filters that hold the class they point at, with its id.
    """

    links: Mapping[int, Link] = field(default_factory=dict)
    qdiscs: Mapping[Place, Qdisc] = field(default_factory=dict)
    classes: Mapping[Place, TcClass] = field(default_factory=dict)
    filters: Mapping[Hook, tuple[Filter, ...]] = field(default_factory=dict)
    actions: Mapping[tuple[str, int], Action] = field(default_factory=dict)
    counters: Mapping[str, int] = field(default_factory=dict)
    once_ingress: frozenset[int] = frozenset()
    bound: Mapping[FilterKey, int] = field(default_factory=dict)

    def link(self, name: str, asked: str = "") -> Link:
        """Return the device of that name.

        Raises:  TcError with ENODEV.
        """
        for link in self.links.values():
            if link.name == name:
                return link
        raise TcError(errno.ENODEV, asked or f"device {name}", f'Cannot find device "{name}"' if name else "")

    def root(self, index: int) -> Qdisc | None:
        """Return the qdisc at the root of a device, unless it is the default one."""
        return next((q for (dev, _), q in self.qdiscs.items() if dev == index and q.parent == 0xFFFFFFFF), None)

    def with_link(self, link: Link) -> State:
        """Return the State with one device added or replaced."""
        return replace(self, links={**self.links, link.index: link})

    def with_qdisc(self, index: int, qdisc: Qdisc) -> State:
        """Return the State with one qdisc added or replaced."""
        return replace(self, qdiscs={**self.qdiscs, (index, qdisc.handle): qdisc})

    def with_class(self, index: int, klass: TcClass) -> State:
        """Return the State with one class added or replaced."""
        return replace(self, classes={**self.classes, (index, klass.classid): klass})

    def with_filters(self, hook: Hook, filters: tuple[Filter, ...]) -> State:
        """Return the State with the filters of one block replaced."""
        every = dict(self.filters)
        if filters:
            every[hook] = filters
        else:
            every.pop(hook, None)
        return replace(self, filters=every)

    def with_ingress_queue(self, index: int) -> State:
        """Return the State in which a device has its ingress queue, which it keeps."""
        return self if index in self.once_ingress else replace(self, once_ingress=self.once_ingress | {index})

    def counted(self, name: str, number: int) -> State:
        """Return the State after `number` of that name was given out."""
        return replace(self, counters={**self.counters, name: number})


def describe(verb: str, thing: TcObject) -> str:
    """Return what was asked, for a message: "filter add dev em1"."""
    kind = {Link: "link", Qdisc: "qdisc", TcClass: "class", Filter: "filter", Action: "action",
            Actions: "action"}[type(thing)]
    name = thing.name if isinstance(thing, Link) else getattr(thing, "dev", "") or getattr(thing, "kind", "")
    return f"{kind} {verb} dev {name}" if kind != "action" else f"{kind} {verb} {name}"

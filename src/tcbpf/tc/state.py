"""The state of net/sched as a frozen value: a change makes a new State and leaves the old one intact.

A verb (link.py, qdisc.py, klass.py, filter.py, action.py) takes a State and the object asked about, and returns the
next State or raises TcError with the kernel's errno and words. The caller stores the next State or drops it, so
that a request happens as a whole or not at all.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace

from tcbpf.control.objects import Action, Actions, Chain, Filter, Link, Qdisc, TcClass, TcObject
from tcbpf.errors import TcError

Place = tuple[int, int]  # a device's index, and a handle on it
FilterKey = tuple[int, int, int, int, int]  # a hook, and chain, pref and handle there
Hook = tuple[int, int]  # a device's index, and the parent that filters hang on; for a shared block 0 and its number
Chains = tuple[tuple[int, bool], ...]  # a block's chains in order of creation, each with whether it was made by itself


@dataclass(frozen=True)
class State:
    """Everything that requests change.

    `once_ingress` has the devices whose ingress queue exists, with or without a qdisc. `qdiscs` and `classes` are in
    order of creation. `filters` has the filters of one block in the order they are asked: by chain as in `chains`, then
    by pref, the newest of equal ones first. `chains` has those with filters and those made by themselves. `counters`
    holds the last number given out, by name. `bound` has the filters that hold the class they point at, with its id.
    """

    links: Mapping[int, Link] = field(default_factory=dict)
    qdiscs: Mapping[Place, Qdisc] = field(default_factory=dict)
    classes: Mapping[Place, TcClass] = field(default_factory=dict)
    filters: Mapping[Hook, tuple[Filter, ...]] = field(default_factory=dict)
    actions: Mapping[tuple[str, int], Action] = field(default_factory=dict)
    counters: Mapping[str, int] = field(default_factory=dict)
    once_ingress: frozenset[int] = frozenset()
    bound: Mapping[FilterKey, int] = field(default_factory=dict)
    chains: Mapping[Hook, Chains] = field(default_factory=dict)

    def link(self, name: str, what: str = "") -> Link:
        """Return the device of that name.

        Raises:  TcError with ENODEV.
        """
        for link in self.links.values():
            if link.name == name:
                return link
        raise TcError(errno.ENODEV, what or f"device {name}", f'Cannot find device "{name}"' if name else "")

    def root(self, index: int) -> Qdisc | None:
        """Return the qdisc at a device's root, or None for the default one."""
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
        """Return the State with the filters of one block replaced; chains that only held filters come and go with them."""
        filled = dict.fromkeys(f.chain for f in filters)
        kept = [row for row in self.chains.get(hook, ()) if row[1] or row[0] in filled]
        new = ((number, False) for number in filled if number not in {row[0] for row in kept})
        state = replace(self, filters={**self.filters, hook: filters})
        return state.with_chains(hook, (*kept, *new))

    def with_chains(self, hook: Hook, chains: Chains) -> State:
        """Return the State with the chains of one block replaced, and the filters in their order."""
        place = {number: at for at, (number, _) in enumerate(chains)}
        mine = sorted((f for f in self.filters.get(hook, ()) if f.chain in place), key=lambda f: place[f.chain])
        filters, every = {**self.filters, hook: tuple(mine)}, {**self.chains, hook: chains}
        if not mine:
            del filters[hook]
        if not chains:
            del every[hook]
        return replace(self, filters=filters, chains=every)

    def only(self, kept: Callable[[Place], bool], *names: str) -> State:
        """Return the State with these of its mappings cut down to the places that are kept, and without the shared
        blocks that no qdisc names any more.
        """
        cut = {name: {at: value for at, value in getattr(self, name).items() if not at[0] or kept(at)} for name in names}
        state = replace(self, **cut)  # type: ignore[arg-type]
        numbers = {number for q in state.qdiscs.values() for number in (q.ingress_block, q.egress_block)}
        gone = [at for at in (*state.filters, *state.chains) if not at[0] and at[1] not in numbers]
        return replace(
            state,
            filters={at: value for at, value in state.filters.items() if at not in gone},
            chains={at: value for at, value in state.chains.items() if at not in gone},
        )

    def with_ingress_queue(self, index: int) -> State:
        """Return the State in which a device has its ingress queue, which it keeps."""
        return self if index in self.once_ingress else replace(self, once_ingress=self.once_ingress | {index})

    def counted(self, name: str, number: int) -> State:
        """Return the State after `number` of that name was given out."""
        return replace(self, counters={**self.counters, name: number})


MAPPINGS = tuple(one.name for one in fields(State) if one.name != "once_ingress")
"""The fields of a State that map keys to values."""


def describe(verb: str, thing: TcObject) -> str:
    """Return the words for a request in a message: "filter add dev em1"."""
    kind = {
        Link: "link",
        Qdisc: "qdisc",
        TcClass: "class",
        Filter: "filter",
        Chain: "chain",
        Action: "action",
        Actions: "action",
    }[type(thing)]
    name = thing.name if isinstance(thing, Link) else getattr(thing, "dev", "") or getattr(thing, "kind", "")
    return f"{kind} {verb} dev {name}" if kind != "action" else f"{kind} {verb} {name}"

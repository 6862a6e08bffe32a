"""Devices of the user datapath; tc/kinds/device has the kinds.

Source:  net/core/rtnetlink.c, drivers/net/{dummy,veth,ifb}.c (v6.12); compared with ip(8) on a live kernel.
"""

from __future__ import annotations

import errno
import os
from dataclasses import replace

from tcbpf.control.objects import Link
from tcbpf.errors import TcError
from tcbpf.tc.kinds.device import LOOPBACK, DeviceKind, kind_of
from tcbpf.tc.state import State

NAME_SIZE = 16


def initial() -> State:
    """Return the State of a new network namespace: a loopback and nothing else."""
    loopback = Link("lo", 1, LOOPBACK.name, "00:00:00:00:00:00", 65536, False)
    return State(links={1: loopback}, counters={"link": 1})


def add(state: State, link: Link, what: str) -> State:
    """Make a device, or both ends of a veth pair."""
    if not kind_of(link).user:
        raise TcError(errno.EOPNOTSUPP, what, "Unknown device type")
    names = [link.name or free_name(state, link.kind)]
    if kind_of(link).paired:
        names.append(link.peer or free_name(state, link.kind, names))
    for name in names:
        check_name(state, name, what)
    if len(set(names)) < len(names):
        raise TcError(errno.EEXIST, what)
    mtu = check_mtu(kind_of(link), link.mtu, what) if link.mtu else 1500
    first = state.counters["link"] + 1
    # The kernel makes the far end first, so it has the lower index.
    order = names[::-1]
    made = [
        Link(
            name,
            first + i,
            link.kind,
            link.address if name == names[0] and link.address else random_address(),
            mtu,
            link.up and name == names[0],
            qdisc="noqueue" if link.up and name == names[0] else "noop",
            options=link.options,
        )
        for i, name in enumerate(order)
    ]
    if len(made) == 2:
        far, near = made
        made = [replace(far, peer=near.name, peer_index=near.index), replace(near, peer=far.name, peer_index=far.index)]
    for one in made:
        state = state.with_link(one)
    return state.counted("link", first + len(made) - 1)


def change(state: State, link: Link, what: str) -> State:
    """Set a device's state, MTU, address or name (`options["name"]`)."""
    old = state.link(link.name, what)
    new = replace(old, up=link.up)
    if link.mtu:
        new = replace(new, mtu=check_mtu(kind_of(old), link.mtu, what))
    if link.address:
        new = replace(new, address=check_address(link.address, what))
    if new.up and new.qdisc == "noop":
        new = replace(new, qdisc="noqueue")
    state = state.with_link(new)
    wanted = str(link.options.get("name") or old.name)
    if wanted != old.name:
        check_name(state, wanted, what)
        state = rename(state, new, wanted)
    return state


def delete(state: State, link: Link, what: str) -> State:
    """Remove a device, its peer, and their qdiscs, classes and filters."""
    old = state.link(link.name, what)
    if kind_of(old).fixed:
        raise TcError(errno.EOPNOTSUPP, what)
    gone = {old.index, old.peer_index} if old.peer_index else {old.index}
    state = replace(state, links={index: value for index, value in state.links.items() if index not in gone})
    return state.only(lambda place: place[0] not in gone, "qdiscs", "classes", "filters", "chains")


def show(state: State, link: Link, what: str) -> tuple[Link, ...]:
    """Return the device named, or all of them in order of index."""
    if link.name:
        return (state.link(link.name, what),)
    return tuple(state.links[index] for index in sorted(state.links))


def rename(state: State, link: Link, name: str) -> State:
    """Rename a device wherever the State names it."""
    index = link.index
    state = state.with_link(replace(link, name=name))
    if link.peer_index in state.links:
        state = state.with_link(replace(state.links[link.peer_index], peer=name))
    return replace(
        state,
        qdiscs={at: replace(q, dev=name) if at[0] == index else q for at, q in state.qdiscs.items()},
        classes={at: replace(c, dev=name) if at[0] == index else c for at, c in state.classes.items()},
        filters={
            hook: tuple(replace(f, dev=name) for f in filters) if hook[0] == index else filters
            for hook, filters in state.filters.items()
        },
    )


def check_name(state: State, name: str, what: str) -> None:
    """Reject a name that is malformed or taken."""
    if not name or len(name) >= NAME_SIZE or name in (".", "..") or any(c in "/:" or c.isspace() for c in name):
        raise TcError(errno.EINVAL, what, "Attribute failed policy validation" if len(name) >= NAME_SIZE else "")
    if any(link.name == name for link in state.links.values()):
        raise TcError(errno.EEXIST, what)


def check_mtu(kind: DeviceKind, mtu: int, what: str) -> int:
    """Return an MTU that the kind takes, or raise."""
    if mtu < kind.min_mtu:
        raise TcError(errno.EINVAL, what, "mtu less than device minimum")
    if kind.max_mtu and mtu > kind.max_mtu:
        raise TcError(errno.EINVAL, what, "mtu greater than device maximum")
    return mtu


def check_address(address: str, what: str) -> str:
    """Return an Ethernet address in ip(8)'s form, or raise."""
    parts = address.lower().split(":")
    try:
        raw = bytes(int(part, 16) for part in parts)
    except ValueError:
        raw = b""
    if len(raw) != 6 or raw[0] & 1:
        raise TcError(errno.EADDRNOTAVAIL, what)
    return raw.hex(":")


def free_name(state: State, prefix: str, taken: list[str] | None = None) -> str:
    """Return the first of prefix0, prefix1, ... that no device has."""
    names = {link.name for link in state.links.values()} | set(taken or ())
    return next(name for number in range(1 << 20) if (name := f"{prefix}{number}") not in names)


def random_address() -> str:
    """Return a locally administered unicast address."""
    raw = bytearray(os.urandom(6))
    raw[0] = raw[0] & 0xFC | 0x02
    return raw.hex(":")

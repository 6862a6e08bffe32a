"""Qdiscs: parents, handles, replacement, removal; tc/kinds/qdisc has the kinds.

Source:  tc_modify_qdisc(), tc_get_qdisc(), qdisc_create(), net/sched/sch_api.c (v6.18); compared with tc(8) on a live
         kernel.
"""

from __future__ import annotations

import errno
import os
from dataclasses import replace

from tcbpf.control.objects import Link, Qdisc, TcClass
from tcbpf.control.request import Op
from tcbpf.errors import TcError
from tcbpf.tc.kinds.qdisc import QDISCS
from tcbpf.tc.state import State
from tcbpf.uapi.tc import TC_H_CLSACT, TC_H_ROOT

INGRESS_HANDLE = 0xFFFF0000
GOLDEN_RATIO_32 = 0x61C88647


def write(state: State, op: Op, request: Qdisc, what: str) -> State:
    """Add, replace, change or link a qdisc, by the kernel's rules for the four."""
    link = state.link(request.dev, what)
    found = sought(state, link, request, what)
    if request.handle and request.parent and (found is None or found.handle != request.handle):
        found = other_handle(state, link, op, request, found, what)
    if found is None:
        if op in (Op.CHANGE, Op.LINK):
            raise TcError(errno.ENOENT, what, "Qdisc not found. To create specify NLM_F_CREATE flag")
        return create(state, link, request, what)
    if not request.handle and request.kind not in ("", found.kind):
        return create(state, link, request, what)  # whatever the verb: the kernel calls it a hole in the interface
    if op is Op.ADD:
        raise TcError(errno.EEXIST, what, "Exclusivity flag on, cannot modify")
    if request.kind not in ("", found.kind):
        raise TcError(errno.EINVAL, what, "Invalid qdisc name: must match existing qdisc")
    return modify(state, link, found, request, what)


def sought(state: State, link: Link, request: Qdisc, what: str) -> Qdisc | None:
    """Return the qdisc at the parent that a request names, or None; a default qdisc does not count."""
    if request.parent == TC_H_CLSACT:
        return state.qdiscs.get((link.index, INGRESS_HANDLE))
    if request.parent == TC_H_ROOT:
        return state.root(link.index)
    if not request.parent:
        if not request.handle:
            raise TcError(errno.EINVAL, what, "Handle cannot be zero")
        found = state.qdiscs.get((link.index, request.handle & 0xFFFF0000))
        if found is None:
            raise TcError(errno.ENOENT, what, "Specified qdisc not found")
        return found
    if (link.index, request.parent & 0xFFFF0000) not in state.qdiscs:
        raise TcError(errno.ENOENT, what, "Failed to find specified qdisc")
    return leaf(state, link, request.parent, what)


def leaf(state: State, link: Link, classid: int, what: str) -> Qdisc | None:
    """Return the qdisc grafted to a class, or None for its default one."""
    if QDISCS[state.qdiscs[link.index, classid & 0xFFFF0000].kind].classes is None:
        raise TcError(errno.EOPNOTSUPP, what, "Parent qdisc is not classful")
    klass = state.classes.get((link.index, classid))
    if klass is None:
        raise TcError(errno.ENOENT, what, "Specified class not found")
    return state.qdiscs.get((link.index, klass.leaf)) if klass.leaf else None


def other_handle(state: State, link: Link, op: Op, request: Qdisc, found: Qdisc | None, what: str) -> Qdisc | None:
    """Resolve a request whose handle is not that of the qdisc at its parent: an existing qdisc, or None to create one."""
    if found is not None and op not in (Op.REPLACE, Op.LINK):
        raise TcError(errno.EEXIST, what, "NLM_F_REPLACE needed to override")
    if request.handle & 0xFFFF:
        raise TcError(errno.EINVAL, what, "Invalid minor handle")
    named = state.qdiscs.get((link.index, request.handle))
    if named is None:
        return None
    if named.parent != request.parent:
        raise TcError(errno.EINVAL, what, "Cannot move an existing qdisc to a different parent")
    if op is Op.ADD:
        raise TcError(errno.EEXIST, what, "Exclusivity flag on, cannot override")
    if request.kind and named.kind != request.kind:
        raise TcError(errno.EINVAL, what, "Specified qdisc kind does not match existing one")
    return named


def create(state: State, link: Link, request: Qdisc, what: str) -> State:
    """Create a qdisc, replacing the one at its parent."""
    kind = QDISCS.get(request.kind)
    if kind is None:
        raise TcError(errno.ENOENT, what, "Specified qdisc kind is unknown")
    at_ingress = bool(kind.hooks)
    if at_ingress != (request.parent == TC_H_CLSACT):
        if at_ingress:
            raise TcError(errno.EOPNOTSUPP, what)
        raise TcError(errno.EINVAL, what, "Specified parent ID is reserved for ingress and clsact Qdiscs")
    if request.ingress_block and "ingress" not in kind.hooks:
        raise TcError(errno.EOPNOTSUPP, what, "Ingress block sharing is not supported")
    if request.egress_block and "egress" not in kind.hooks:
        raise TcError(errno.EOPNOTSUPP, what, "Egress block sharing is not supported")
    handle = request.handle & 0xFFFF0000
    if at_ingress:
        state, handle = state.with_ingress_queue(link.index), INGRESS_HANDLE
    elif not handle:
        number = state.counters.get("handle", 0x8000) + 1
        state, handle = state.counted("handle", number), number << 16
    elif (link.index, handle) in state.qdiscs:
        raise TcError(errno.EEXIST, what)
    if request.parent == TC_H_ROOT:
        old = state.root(link.index)
        state = remove(state, link, old) if old else state
        state = state.with_link(replace(link, qdisc=kind.name))
    elif not at_ingress:
        if any(at[0] == link.index and k.parent == request.parent for at, k in state.classes.items()):
            raise TcError(errno.EINVAL, what)  # a class with children has no qdisc
        old = leaf(state, link, request.parent, what)
        state = remove(state, link, old) if old else state
        klass = state.classes[link.index, request.parent]
        state = state.with_class(link.index, replace(klass, leaf=handle))
    made = Qdisc(
        link.name,
        kind.name,
        handle,
        request.parent,
        {**kind.defaults(link), **request.options},
        refcnt=references(link, request),
        ingress_block=request.ingress_block,
        egress_block=request.egress_block,
    )
    state = state.with_qdisc(link.index, made)
    return bands(state, link, made)


def references(link: Link, qdisc: Qdisc) -> int:
    """Return the refcnt that tc prints: for a root, the number of transmit queues plus one."""
    if qdisc.parent != TC_H_ROOT:
        return 1
    return 1 + (os.cpu_count() or 1 if link.kind == "veth" else 1)


def bands(state: State, link: Link, qdisc: Qdisc) -> State:
    """Create the classes that come with a qdisc, one for each band."""
    for minor in QDISCS[qdisc.kind].bands(qdisc):
        state = state.with_class(link.index, TcClass(link.name, qdisc.kind, qdisc.handle | minor, qdisc.handle))
    return state


def modify(state: State, link: Link, found: Qdisc, request: Qdisc, what: str) -> State:
    """Change an existing qdisc's options."""
    kind = QDISCS[found.kind]
    if not kind.changes and (request.options or kind.pack(request)):
        raise TcError(errno.EINVAL, what, "Change operation not supported by specified qdisc")
    return state.with_qdisc(link.index, replace(found, options={**found.options, **request.options}))


def delete(state: State, request: Qdisc, what: str) -> State:
    """Remove a qdisc with its classes and filters."""
    link = state.link(request.dev, what)
    parent = request.parent
    found, kind = standing(state, link, request, what)
    if not kind:
        raise TcError(errno.ENOENT, what, "Cannot find specified qdisc on specified device")
    if parent and request.handle and (found.handle if found else 0) != request.handle:
        raise TcError(errno.EINVAL, what, "Invalid handle")
    if request.kind and kind != request.kind:
        raise TcError(errno.EINVAL, what, "Invalid qdisc name: must match existing qdisc")
    if not parent:
        raise TcError(errno.EINVAL, what, "Classid cannot be zero")
    if found is None:
        raise TcError(errno.ENOENT, what, "Cannot delete qdisc with handle of zero")
    state = remove(state, link, found)
    if found.handle == INGRESS_HANDLE:
        return state
    if found.parent == TC_H_ROOT:
        return state.with_link(replace(link, qdisc="noqueue" if link.up else "noop"))
    klass = state.classes[link.index, found.parent]
    return state.with_class(link.index, replace(klass, leaf=0))


def standing(state: State, link: Link, request: Qdisc, what: str) -> tuple[Qdisc | None, str]:
    """Return the qdisc that a DELETE names, or None for a default one, and its kind, "" when there is none."""
    parent = request.parent
    if not parent:
        found = state.qdiscs.get((link.index, request.handle & 0xFFFF0000))
        if found is None:
            raise TcError(errno.ENOENT, what, "Failed to find qdisc with specified handle")
        return found, found.kind
    if parent == TC_H_ROOT:
        found = state.root(link.index)
        return found, found.kind if found else link.qdisc
    if parent & 0xFFFF0000 == INGRESS_HANDLE:
        found = state.qdiscs.get((link.index, INGRESS_HANDLE))
        return found, found.kind if found else "noop" if link.index in state.once_ingress else ""
    if (link.index, parent & 0xFFFF0000) not in state.qdiscs:
        raise TcError(errno.ENOENT, what, "Failed to find qdisc with specified classid")
    found = leaf(state, link, parent, what)
    inner = any(at[0] == link.index and k.parent == parent for at, k in state.classes.items())
    return found, found.kind if found else "" if inner else "pfifo"


def remove(state: State, link: Link, qdisc: Qdisc) -> State:
    """Return the State without a qdisc, its classes, their qdiscs, and the filters of all of them."""
    gone, todo = set[int](), [qdisc.handle]
    while todo:
        gone.add(handle := todo.pop())
        todo += [k.leaf for (dev, at), k in state.classes.items() if dev == link.index and at & 0xFFFF0000 == handle and k.leaf]

    def kept(place: tuple[int, int]) -> bool:
        return place[0] != link.index or place[1] & 0xFFFF0000 not in gone

    return state.only(kept, "qdiscs", "classes", "filters", "chains")


def show(state: State, request: Qdisc, what: str) -> tuple[Qdisc, ...]:
    """Return the qdiscs of one device or all: root first, ingress last."""
    links = [state.link(request.dev, what)] if request.dev else [state.links[i] for i in sorted(state.links)]
    found: list[Qdisc] = []
    for link in links:
        mine = [q for (dev, _), q in state.qdiscs.items() if dev == link.index]
        if link.qdisc == "noqueue" and state.root(link.index) is None:
            mine.insert(0, Qdisc(link.name, "noqueue", refcnt=2))
        mine.reverse()
        mine.sort(key=lambda q: (q.handle == INGRESS_HANDLE, q.parent != TC_H_ROOT, bucket(q.handle)))
        found += mine
    return tuple(found)


def bucket(handle: int) -> int:
    """Return a handle's bucket in a device's hash table of qdiscs; a dump goes by bucket, newest first.

    Source:  hash_32(), include/linux/hash.h; qdisc_hash_add(), net/sched/sch_api.c (v6.18).
    """
    return (handle * GOLDEN_RATIO_32 & 0xFFFFFFFF) >> 28

"""Classes of a qdisc: a tree that filters point into; tc/kinds/qdisc has the options of each kind.

Source:  __tc_ctl_tclass(), net/sched/sch_api.c; htb_change_class(), htb_delete(), net/sched/sch_htb.c (v6.18).
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import replace

from tcbpf.control.objects import Link, TcClass
from tcbpf.control.request import Op
from tcbpf.errors import TcError
from tcbpf.tc.kinds.qdisc import QDISCS
from tcbpf.tc.qdisc import remove
from tcbpf.tc.state import State
from tcbpf.uapi.tc import TC_H_ROOT


def write(state: State, op: Op, request: TcClass, what: str) -> State:
    """Add, replace or change a class."""
    link = state.link(request.dev, what)
    qdisc = owner(state, link, request, what)
    classid = qdisc | request.classid & 0xFFFF
    parent = request.parent if request.parent in (0, TC_H_ROOT) else qdisc | request.parent & 0xFFFF
    old = state.classes.get((link.index, classid)) if request.classid else None
    if old is not None and op is Op.ADD:
        raise TcError(errno.EEXIST, what)
    if old is None and op is Op.CHANGE:
        raise TcError(errno.ENOENT, what)
    parent_qdisc = state.qdiscs[link.index, qdisc]
    kind = QDISCS[parent_qdisc.kind].classes
    if kind is None or kind.options is None:
        raise TcError(errno.EOPNOTSUPP, what)
    if not request.kind:
        raise TcError(errno.EINVAL, what)
    options = kind.options(request, parent_qdisc)
    if old is not None:
        if any(at[0] == link.index and k.parent == classid for at, k in state.classes.items()):
            options |= {name: old.options[name] for name in kind.leaf_only}
        return state.with_class(link.index, replace(old, options=options))
    if not request.classid:
        raise TcError(errno.EINVAL, what)
    above = state.classes.get((link.index, parent))
    if above is None:
        parent = TC_H_ROOT  # an unknown parent is taken for the root
    elif depth(state, link, above) >= kind.max_depth - 1:
        raise TcError(errno.EINVAL, what, "tree is too deep")
    elif above.leaf:
        # A leaf that gets children has no qdisc of its own any more.
        state = remove(state, link, state.qdiscs[link.index, above.leaf])
        state = state.with_class(link.index, replace(above, leaf=0))
    return state.with_class(link.index, TcClass(link.name, parent_qdisc.kind, classid, parent, 0, options))


def depth(state: State, link: Link, klass: TcClass) -> int:
    """Count the classes from the root down to one, itself included."""
    above = state.classes.get((link.index, klass.parent))
    return 1 + (depth(state, link, above) if above else 0)


def owner(state: State, link: Link, request: TcClass, what: str) -> int:
    """Return the handle of a class's qdisc, which both majors name; they must agree."""
    majors = {number & 0xFFFF0000 for number in (request.classid, request.parent) if number != TC_H_ROOT} - {0}
    if len(majors) > 1:
        raise TcError(errno.EINVAL, what)
    root = state.root(link.index)
    handle = majors.pop() if majors else root.handle if root else 0
    qdisc = state.qdiscs.get((link.index, handle))
    if qdisc is None:
        raise TcError(errno.ENOENT, what)
    kind = QDISCS[qdisc.kind]
    if kind.classes is None and not kind.hooks:
        raise TcError(errno.EINVAL, what)
    return handle


def delete(state: State, request: TcClass, what: str) -> State:
    """Remove a class that has neither children nor filters that point at it."""
    link = state.link(request.dev, what)
    place = (link.index, owner(state, link, request, what) | request.classid & 0xFFFF)
    old = state.classes.get(place) if request.classid else None
    if old is None:
        raise TcError(errno.ENOENT, what)
    kind = QDISCS[old.kind].classes
    if kind is None or kind.options is None:
        raise TcError(errno.EOPNOTSUPP, what)
    children = any(at[0] == link.index and k.parent == old.classid for at, k in state.classes.items())
    if children or holders(state, link, old.classid):
        raise TcError(errno.EBUSY, what, kind.in_use)
    state = state.only(lambda at: at != place, "classes", "filters", "chains")
    if old.leaf:
        state = remove(state, link, state.qdiscs[link.index, old.leaf])
    return state


def holders(state: State, link: Link, classid: int) -> int:
    """Count the filters that hold a class."""
    held = {key for key, held in state.bound.items() if key[0] == link.index and held == classid}
    return sum((*hook, f.chain, f.pref, f.handle) in held for hook, filters in state.filters.items() for f in filters)


def show(state: State, request: TcClass, what: str) -> tuple[TcClass, ...]:
    """Return a device's classes in the order that the kernel dumps them."""
    link = state.link(request.dev, what)
    found: list[TcClass] = []
    for (dev, handle), qdisc in state.qdiscs.items():
        if dev == link.index:
            mine = [k for at, k in state.classes.items() if at[0] == dev and at[1] & 0xFFFF0000 == handle]
            kind = QDISCS[qdisc.kind].classes
            level = kind.level if kind else None
            found += [level(mine, k) if level else k for k in hashed(mine)]
    if request.parent not in (0, TC_H_ROOT):
        major = request.parent & 0xFFFF0000
        found = [k for k in found if k.classid & 0xFFFF0000 == major]  # a parent stands for its whole qdisc here
    if request.classid:
        found = [k for k in found if k.classid == request.classid]
    return tuple(found)


def hashed(classes: Sequence[TcClass]) -> list[TcClass]:
    """Return classes, given in order of creation, in the order of the kernel's hash table.

    Source:  qdisc_class_hash_init(), _insert(), _grow(), net/sched/sch_api.c.
    """
    buckets: list[list[TcClass]] = [[] for _ in range(4)]
    for count, klass in enumerate(classes, 1):
        _insert(buckets, klass)
        if count * 4 > len(buckets) * 3:
            old, buckets = buckets, [[] for _ in range(len(buckets) * 2)]
            for bucket in old:
                for one in bucket:
                    _insert(buckets, one)
    return [klass for bucket in buckets for klass in bucket]


def _insert(buckets: list[list[TcClass]], klass: TcClass) -> None:
    number = klass.classid
    number ^= number >> 8
    number ^= number >> 4
    buckets[number & (len(buckets) - 1)].insert(0, klass)

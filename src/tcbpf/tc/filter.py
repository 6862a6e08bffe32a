"""Filters: preferences and handles, in the chains of a block.

Source:  tc_new_tfilter(), tc_del_tfilter(), net/sched/cls_api.c; cls_bpf_change(), net/sched/cls_bpf.c (v6.18);
         compared with tc(8) on a live kernel.
"""

from __future__ import annotations

import errno
from dataclasses import replace

from tcbpf.control.objects import SKIP_HW, SKIP_SW, Bpf, Filter
from tcbpf.control.request import Op
from tcbpf.errors import TcError
from tcbpf.tc import action
from tcbpf.tc.block import MAX_CHAIN, has_chain, hook_for_change, hooks_for_dump
from tcbpf.tc.kinds.filter import FILTERS
from tcbpf.tc.kinds.qdisc import QDISCS
from tcbpf.tc.state import Hook, State

FIRST_AUTO_PREF, LEAST_AUTO_PREF = 0xC000, 0x8000


def write(state: State, op: Op, request: Filter, what: str) -> State:
    """Add, replace or change a filter."""
    if not request.block:
        state.link(request.dev, what)
    if not request.pref and op is Op.CHANGE:
        raise TcError(errno.ENOENT, what, "Invalid filter command with priority of zero")
    hook = hook_for_change(state, request, what)
    if request.chain > MAX_CHAIN:
        raise TcError(errno.EINVAL, what, "Specified chain index exceeds upper limit")
    filters = state.filters.get(hook, ())
    chain = [f for f in filters if f.chain == request.chain]
    same = with_pref(chain, request, what)
    protocol = request.protocol or (same[0].protocol if same else 0)
    if not same:
        if not request.kind or not protocol:
            raise TcError(errno.EINVAL, what, "Filter kind and protocol must be specified")
        if op is Op.CHANGE:
            raise TcError(errno.ENOENT, what, "Need both RTM_NEWTFILTER and NLM_F_CREATE to create a new filter")
        if request.kind not in FILTERS or FILTERS[request.kind].build is None:
            raise TcError(errno.ENOENT, what, "TC classifier not found")
    elif request.kind and request.kind != same[0].kind:
        raise TcError(errno.EINVAL, what, "Specified filter kind does not match existing one")
    old = next((f for f in same if f.handle == request.handle), None) if request.handle else None
    if old is None and op is Op.CHANGE:
        raise TcError(errno.ENOENT, what, "Need both RTM_NEWTFILTER and NLM_F_CREATE to create a new filter")
    if old is not None and op is Op.ADD:
        raise TcError(errno.EEXIST, what, "Filter already exists")
    kind = FILTERS[request.kind or same[0].kind]
    options = kind.check(request, what)
    if old is not None and hardware(old.options) != hardware(options):
        raise TcError(errno.EINVAL, what)
    pref = request.pref or auto_pref(chain, what)
    handle = request.handle or free_handle(same)
    state, actions = action.bind(state, request.actions, hardware(options), what)
    # The one block of an ingress qdisc goes by whatever parent the last filter was added with.
    at = state.qdiscs.get((hook[0], hook[1] & 0xFFFF0000))
    parent = 0 if request.block else request.parent if at is not None and QDISCS[at.kind].hooks == ("ingress",) else hook[1]
    made = replace(
        request,
        dev="" if request.block else request.dev,
        parent=parent,
        protocol=protocol,
        pref=pref,
        handle=handle,
        actions=actions,
        kind=kind.name,
        options=options,
    )
    block_now = placed(filters, made, old)
    state = bind(state, hook, made)
    return state.with_filters(hook, tuple(f if f.parent == parent else replace(f, parent=parent) for f in block_now))


def bind(state: State, hook: Hook, made: Filter) -> State:
    """Record that a filter holds its class, if the class exists and belongs to the filter's own qdisc."""
    key, classid = (*hook, made.chain, made.pref, made.handle), made.options.classid if isinstance(made.options, Bpf) else 0
    holds = classid & 0xFFFF0000 == hook[1] & 0xFFFF0000 and (hook[0], classid) in state.classes
    kept = {other: held for other, held in state.bound.items() if other != key}
    return replace(state, bound=kept | {key: classid} if holds else kept)


def with_pref(chain: list[Filter], request: Filter, what: str) -> list[Filter]:
    """Return the filters of the request's preference."""
    same = [f for f in chain if f.pref == request.pref] if request.pref else []
    if same and request.protocol and same[0].protocol != request.protocol:
        raise TcError(errno.EINVAL, what, "Protocol mismatch for filter with specified priority")
    return same


def auto_pref(chain: list[Filter], what: str) -> int:
    """Return the next automatic preference: 49152, then downward."""
    taken = [f.pref for f in chain if f.pref >= LEAST_AUTO_PREF]
    if LEAST_AUTO_PREF in taken:
        raise TcError(errno.ENOSPC, what, "Lowest ID from auto-alloc range already in use")
    return min(taken) - 1 if taken else FIRST_AUTO_PREF


def free_handle(same: list[Filter]) -> int:
    """Return the least handle that no filter of the preference has."""
    taken = {f.handle for f in same}
    return next(handle for handle in range(1, len(taken) + 2) if handle not in taken)


def hardware(options: Bpf | dict[str, object]) -> int:
    """Return a filter's SKIP_HW and SKIP_SW flags; a replacement must have the same."""
    return options.gen_flags & (SKIP_HW | SKIP_SW) if isinstance(options, Bpf) else 0


def placed(filters: tuple[Filter, ...], made: Filter, old: Filter | None) -> tuple[Filter, ...]:
    """Return a block's filters with one inserted: in place of the old one, or before others of its chain and preference."""
    if old is not None:
        return tuple(made if f is old else f for f in filters)
    chains = [f.chain for f in filters]
    if made.chain not in chains:
        return (*filters, made)  # the block's order of chains moves it where it belongs
    at = chains.index(made.chain)
    while at < len(filters) and filters[at].chain == made.chain and filters[at].pref < made.pref:
        at += 1
    return (*filters[:at], made, *filters[at:])


def delete(state: State, request: Filter, what: str) -> State:
    """Remove one filter, all of a preference, or all of a chain."""
    if not request.block:
        state.link(request.dev, what)
    if not request.pref and (request.handle or request.kind or request.protocol):
        raise TcError(errno.ENOENT, what, "Cannot flush filters with protocol, handle or kind set")
    hook = hook_for_change(state, request, what)
    filters = state.filters.get(hook, ())
    chain = [f for f in filters if f.chain == request.chain]
    if not request.pref:
        return state.with_filters(hook, tuple(f for f in filters if f.chain != request.chain))
    if not has_chain(state, hook, request.chain):
        raise TcError(errno.ENOENT, what, "Cannot find specified filter chain")
    same = with_pref(chain, request, what)
    if not same:
        raise TcError(errno.ENOENT, what, "Filter with specified priority/protocol not found")
    if request.kind and request.kind != same[0].kind:
        raise TcError(errno.EINVAL, what, "Specified filter kind does not match existing one")
    gone = [f for f in same if not request.handle or f.handle == request.handle]
    if not gone:
        raise TcError(errno.ENOENT, what, "Specified filter handle not found")
    return state.with_filters(hook, tuple(f for f in filters if not any(f is one for one in gone)))


def get(state: State, request: Filter, what: str) -> tuple[Filter, ...]:
    """Return the one filter named."""
    if not request.block:
        state.link(request.dev, what)
    if not request.pref:
        raise TcError(errno.ENOENT, what, "Invalid filter command with priority of zero")
    hook = hook_for_change(state, request, what)
    chain = [f for f in state.filters.get(hook, ()) if f.chain == request.chain]
    if not has_chain(state, hook, request.chain):
        raise TcError(errno.EINVAL, what, "Cannot find specified filter chain")
    same = with_pref(chain, request, what)
    if not same:
        raise TcError(errno.ENOENT, what, "Filter with specified priority/protocol not found")
    found = tuple(f for f in same if f.handle == request.handle)
    if not found:
        raise TcError(errno.ENOENT, what, "Specified filter handle not found")
    return tuple(action.shown(state, f) for f in found)


def show(state: State, request: Filter, what: str) -> tuple[Filter, ...]:
    """Return the filters that the request selects, each preference led by a row of handle 0."""
    found: list[Filter] = []
    for hook in hooks_for_dump(state, request, what):
        last: tuple[int, int, int] | None = None
        for one in state.filters.get(hook, ()):
            if not selected(one, request):
                continue
            if (one.chain, one.pref, one.protocol) != last:
                last = one.chain, one.pref, one.protocol
                found.append(replace(one, handle=0, options=FILTERS[one.kind].read({}), actions=()))
            found.append(action.shown(state, one))
    return tuple(found)


def selected(one: Filter, request: Filter) -> bool:
    """Tell whether a dump request selects this filter."""
    return (
        (not request.chain or one.chain == request.chain)
        and (not request.pref or one.pref == request.pref)
        and request.protocol in (0, one.protocol)
        and (not request.kind or one.kind == request.kind)
    )

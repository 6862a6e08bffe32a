"""Filters: blocks, chains, preferences and handles.

Source:  tc_new_tfilter(), tc_del_tfilter(), net/sched/cls_api.c; cls_bpf_change(), net/sched/cls_bpf.c (v6.18);
         compared with tc(8) on a live kernel.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from tcbpf.cbpf.insn import Classic
from tcbpf.cbpf.rules import check
from tcbpf.control.objects import NOT_IN_HW, SKIP_HW, SKIP_SW, Bpf, Chain, Filter, Link
from tcbpf.control.request import Op
from tcbpf.errors import FilterError, TcError
from tcbpf.tc import action
from tcbpf.tc.qdisc import INGRESS_HANDLE
from tcbpf.tc.state import Hook, State

CLSACT_INGRESS, CLSACT_EGRESS = 0xFFFFFFF2, 0xFFFFFFF3
FIRST_AUTO_PREF, LEAST_AUTO_PREF = 0xC000, 0x8000
MAX_CHAIN = 0x0FFFFFFF
KINDS = frozenset({"bpf", "matchall"})


def block(state: State, link: Link, parent: int, asked: str) -> Hook:
    """Return the place whose filters a parent stands for."""
    if not parent:
        root = state.root(link.index)
        if root is None:
            raise TcError(errno.EINVAL, asked, "Qdisc not classful")
        parent = root.handle
    qdisc = state.qdiscs.get((link.index, parent & 0xFFFF0000))
    if qdisc is None:
        raise TcError(errno.EINVAL, asked, "Parent Qdisc doesn't exists")
    if qdisc.handle == INGRESS_HANDLE:
        if qdisc.kind == "ingress":
            return link.index, CLSACT_INGRESS  # one block, whatever the minor number
        if parent == INGRESS_HANDLE:
            raise TcError(errno.EINVAL, asked)
        if parent not in (CLSACT_INGRESS, CLSACT_EGRESS):
            raise TcError(errno.ENOENT, asked, "Specified class doesn't exist")
        return link.index, parent
    if qdisc.kind not in ("htb", "prio"):
        raise TcError(errno.EINVAL, asked, "Qdisc not classful")
    if parent & 0xFFFF and (link.index, parent) not in state.classes:
        raise TcError(errno.ENOENT, asked, "Specified class doesn't exist")
    return link.index, parent


def sharing(state: State, hook: Hook) -> Hook:
    """Return the shared block that the filters of a place are in, or the place itself."""
    index, parent = hook
    qdisc = state.qdiscs.get((index, INGRESS_HANDLE)) if parent in (CLSACT_INGRESS, CLSACT_EGRESS) else None
    number = 0 if qdisc is None else qdisc.ingress_block if parent == CLSACT_INGRESS else qdisc.egress_block
    return (0, number) if number else hook


def place_of(state: State, what: Filter | Chain, asked: str) -> Hook:
    """Return the place of the block that a request may change."""
    if what.block:
        if not any(what.block in (q.ingress_block, q.egress_block) for q in state.qdiscs.values()):
            raise TcError(errno.EINVAL, asked, "Block of given index was not found")
        return 0, what.block
    hook = block(state, state.link(what.dev, asked), what.parent, asked)
    if sharing(state, hook) != hook:
        said = "This filter block is shared. Please use the block index to manipulate the filters"
        raise TcError(errno.EOPNOTSUPP, asked, said)
    return hook


def places(state: State, what: Filter | Chain, asked: str) -> Iterator[Hook]:
    """Yield the places that a dump looks at; of what is not there it is empty."""
    if what.block:
        yield 0, what.block
        return
    for link in [state.link(what.dev, asked)] if what.dev else [state.links[index] for index in sorted(state.links)]:
        with suppress(TcError):
            yield sharing(state, block(state, link, what.parent, asked))


def known(state: State, hook: Hook, number: int) -> bool:
    """Tell whether a block has a chain."""
    return any(number == one for one, _ in state.chains.get(hook, ()))


def write(state: State, op: Op, asked_for: Filter, asked: str) -> State:
    """Add, replace or change a filter."""
    if not asked_for.block:
        state.link(asked_for.dev, asked)
    if not asked_for.pref and op is Op.CHANGE:
        raise TcError(errno.ENOENT, asked, "Invalid filter command with priority of zero")
    hook = place_of(state, asked_for, asked)
    if asked_for.chain > MAX_CHAIN:
        raise TcError(errno.EINVAL, asked, "Specified chain index exceeds upper limit")
    filters = state.filters.get(hook, ())
    chain = [f for f in filters if f.chain == asked_for.chain]
    same = with_pref(chain, asked_for, asked)
    protocol = asked_for.protocol or (same[0].protocol if same else 0)
    if not same:
        if not asked_for.kind or not protocol:
            raise TcError(errno.EINVAL, asked, "Filter kind and protocol must be specified")
        if op is Op.CHANGE:
            raise TcError(errno.ENOENT, asked, "Need both RTM_NEWTFILTER and NLM_F_CREATE to create a new filter")
        if asked_for.kind not in KINDS:
            raise TcError(errno.ENOENT, asked, "TC classifier not found")
    elif asked_for.kind and asked_for.kind != same[0].kind:
        raise TcError(errno.EINVAL, asked, "Specified filter kind does not match existing one")
    old = next((f for f in same if f.handle == asked_for.handle), None) if asked_for.handle else None
    if old is None and op is Op.CHANGE:
        raise TcError(errno.ENOENT, asked, "Need both RTM_NEWTFILTER and NLM_F_CREATE to create a new filter")
    if old is not None and op is Op.ADD:
        raise TcError(errno.EEXIST, asked, "Filter already exists")
    options = checked(asked_for, asked)
    if old is not None and hardware(old.options) != hardware(options):
        raise TcError(errno.EINVAL, asked)
    pref = asked_for.pref or auto_pref(chain, asked)
    handle = asked_for.handle or free_handle(same)
    state, actions = action.bind(state, asked_for.actions, hardware(options), asked)
    # The one block of an ingress qdisc goes by whatever parent the last filter was added with.
    at = state.qdiscs.get((hook[0], hook[1] & 0xFFFF0000))
    parent = 0 if asked_for.block else asked_for.parent if at is not None and at.kind == "ingress" else hook[1]
    made = replace(
        asked_for,
        dev="" if asked_for.block else asked_for.dev,
        parent=parent,
        protocol=protocol,
        pref=pref,
        handle=handle,
        actions=actions,
        kind=asked_for.kind or same[0].kind,
        options=options,
    )
    block_now = placed(filters, made, old)
    state = bind(state, hook, made)
    return state.with_filters(hook, tuple(f if f.parent == parent else replace(f, parent=parent) for f in block_now))


def bind(state: State, hook: Hook, made: Filter) -> State:
    """Return the State in which a filter holds the class it points at, if that is there and of the filter's own
    qdisc.
    """
    key, classid = (*hook, made.chain, made.pref, made.handle), made.options.classid if isinstance(made.options, Bpf) else 0
    holds = classid & 0xFFFF0000 == hook[1] & 0xFFFF0000 and (hook[0], classid) in state.classes
    kept = {other: held for other, held in state.bound.items() if other != key}
    return replace(state, bound=kept | {key: classid} if holds else kept)


def with_pref(chain: list[Filter], asked_for: Filter, asked: str) -> list[Filter]:
    """Return the filters of the request's preference."""
    same = [f for f in chain if f.pref == asked_for.pref] if asked_for.pref else []
    if same and asked_for.protocol and same[0].protocol != asked_for.protocol:
        raise TcError(errno.EINVAL, asked, "Protocol mismatch for filter with specified priority")
    return same


def auto_pref(chain: list[Filter], asked: str) -> int:
    """Return the preference before all automatic ones so far: 49152, then downward."""
    taken = [f.pref for f in chain if f.pref >= LEAST_AUTO_PREF]
    if LEAST_AUTO_PREF in taken:
        raise TcError(errno.ENOSPC, asked, "Lowest ID from auto-alloc range already in use")
    return min(taken) - 1 if taken else FIRST_AUTO_PREF


def free_handle(same: list[Filter]) -> int:
    """Return the least handle that no filter of the preference has."""
    taken = {f.handle for f in same}
    return next(handle for handle in range(1, len(taken) + 2) if handle not in taken)


def hardware(options: Bpf | dict[str, object]) -> int:
    """Return which of skip_hw and skip_sw a filter has; a replacement has the same."""
    return options.gen_flags & (SKIP_HW | SKIP_SW) if isinstance(options, Bpf) else 0


def checked(asked_for: Filter, asked: str) -> Bpf | dict[str, object]:
    """Return a filter's options as they are kept, or raise for what cls_bpf refuses."""
    options = asked_for.options
    if not isinstance(options, Bpf):
        return options
    flags = options.gen_flags & (SKIP_HW | SKIP_SW)
    if bool(options.bytecode) == bool(options.id) or flags == SKIP_HW | SKIP_SW:
        raise TcError(errno.EINVAL, asked)
    try:
        if options.bytecode:
            check([Classic(*row) for row in options.bytecode])
    except FilterError:
        raise TcError(errno.EINVAL, asked) from None
    if flags & SKIP_SW:
        raise TcError(errno.EOPNOTSUPP, asked)  # no device here offloads
    return replace(options, prog=None, gen_flags=flags | NOT_IN_HW)


def placed(filters: tuple[Filter, ...], made: Filter, old: Filter | None) -> tuple[Filter, ...]:
    """Return a block's filters with one in its place: the old one's, or first of its preference, in its chain."""
    if old is not None:
        return tuple(made if f is old else f for f in filters)
    chains = [f.chain for f in filters]
    if made.chain not in chains:
        return (*filters, made)  # the block's order of chains moves it where it belongs
    at = chains.index(made.chain)
    while at < len(filters) and filters[at].chain == made.chain and filters[at].pref < made.pref:
        at += 1
    return (*filters[:at], made, *filters[at:])


def delete(state: State, asked_for: Filter, asked: str) -> State:
    """Remove one filter, all of a preference, or all of a chain."""
    if not asked_for.block:
        state.link(asked_for.dev, asked)
    if not asked_for.pref and (asked_for.handle or asked_for.kind or asked_for.protocol):
        raise TcError(errno.ENOENT, asked, "Cannot flush filters with protocol, handle or kind set")
    hook = place_of(state, asked_for, asked)
    filters = state.filters.get(hook, ())
    chain = [f for f in filters if f.chain == asked_for.chain]
    if not asked_for.pref:
        return state.with_filters(hook, tuple(f for f in filters if f.chain != asked_for.chain))
    if not known(state, hook, asked_for.chain):
        raise TcError(errno.ENOENT, asked, "Cannot find specified filter chain")
    same = with_pref(chain, asked_for, asked)
    if not same:
        raise TcError(errno.ENOENT, asked, "Filter with specified priority/protocol not found")
    if asked_for.kind and asked_for.kind != same[0].kind:
        raise TcError(errno.EINVAL, asked, "Specified filter kind does not match existing one")
    gone = [f for f in same if not asked_for.handle or f.handle == asked_for.handle]
    if not gone:
        raise TcError(errno.ENOENT, asked, "Specified filter handle not found")
    return state.with_filters(hook, tuple(f for f in filters if not any(f is one for one in gone)))


def get(state: State, asked_for: Filter, asked: str) -> tuple[Filter, ...]:
    """Return the one filter named."""
    if not asked_for.block:
        state.link(asked_for.dev, asked)
    if not asked_for.pref:
        raise TcError(errno.ENOENT, asked, "Invalid filter command with priority of zero")
    hook = place_of(state, asked_for, asked)
    chain = [f for f in state.filters.get(hook, ()) if f.chain == asked_for.chain]
    if not known(state, hook, asked_for.chain):
        raise TcError(errno.EINVAL, asked, "Cannot find specified filter chain")
    same = with_pref(chain, asked_for, asked)
    if not same:
        raise TcError(errno.ENOENT, asked, "Filter with specified priority/protocol not found")
    found = tuple(f for f in same if f.handle == asked_for.handle)
    if not found:
        raise TcError(errno.ENOENT, asked, "Specified filter handle not found")
    return tuple(action.shown(state, f) for f in found)


def show(state: State, asked_for: Filter, asked: str) -> tuple[Filter, ...]:
    """Return the filters that the request selects, each preference led by a row of handle 0."""
    found: list[Filter] = []
    for hook in places(state, asked_for, asked):
        last: tuple[int, int, int] | None = None
        for one in state.filters.get(hook, ()):
            if not selected(one, asked_for):
                continue
            if (one.chain, one.pref, one.protocol) != last:
                last = one.chain, one.pref, one.protocol
                found.append(replace(one, handle=0, options=Bpf() if one.kind == "bpf" else {}, actions=()))
            found.append(action.shown(state, one))
    return tuple(found)


def selected(one: Filter, asked_for: Filter) -> bool:
    """Tell whether a dump that asks for `asked_for` has this filter."""
    return (
        (not asked_for.chain or one.chain == asked_for.chain)
        and (not asked_for.pref or one.pref == asked_for.pref)
        and asked_for.protocol in (0, one.protocol)
        and (not asked_for.kind or one.kind == asked_for.kind)
    )

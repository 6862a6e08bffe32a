"""Chains of filters, created on their own.

Source:  tc_ctl_chain(), net/sched/cls_api.c (v6.18); compared with tc(8) on a live kernel.
"""

from __future__ import annotations

import errno

from tcbpf.control.objects import Chain
from tcbpf.errors import TcError
from tcbpf.tc.block import MAX_CHAIN, has_chain, hook_for_change, hooks_for_dump
from tcbpf.tc.state import State


def add(state: State, request: Chain, what: str) -> State:
    """Make an empty chain."""
    hook, number = hook_for_change(state, request, what), request.number or 0
    if number > MAX_CHAIN:
        raise TcError(errno.EINVAL, what, "Specified chain index exceeds upper limit")
    if has_chain(state, hook, number):
        raise TcError(errno.EEXIST, what, "Filter chain already exists")
    return state.with_chains(hook, (*state.chains.get(hook, ()), (number, True)))


def delete(state: State, request: Chain, what: str) -> State:
    """Remove a chain and its filters."""
    hook, number = hook_for_change(state, request, what), request.number or 0
    if not has_chain(state, hook, number):
        raise TcError(errno.ENOENT, what, "Cannot find specified filter chain")
    return state.with_chains(hook, tuple(row for row in state.chains[hook] if row[0] != number))


def get(state: State, request: Chain, what: str) -> tuple[Chain, ...]:
    """Return the one chain named."""
    hook, number = hook_for_change(state, request, what), request.number or 0
    if not has_chain(state, hook, number):
        raise TcError(errno.EINVAL, what, "Cannot find specified filter chain")
    return (dumped(state, hook, number),)


def show(state: State, request: Chain, what: str) -> tuple[Chain, ...]:
    """Return the chains of one hook, or of every device's."""
    return tuple(
        dumped(state, hook, number)
        for hook in hooks_for_dump(state, request, what)
        for number, _ in state.chains.get(hook, ())
        if request.number in (None, number)
    )


def dumped(state: State, hook: tuple[int, int], number: int) -> Chain:
    """Return a chain as a dump shows it: under its qdisc, whatever the hook or class."""
    index, parent = hook
    if not index:
        return Chain("", number=number, block=parent)
    return Chain(state.links[index].name, parent & 0xFFFF0000, number)

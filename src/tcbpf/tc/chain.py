"""Chains of filters, made by themselves.

Source:  tc_ctl_chain(), net/sched/cls_api.c (v6.18); compared with tc(8) on a live kernel.
"""

from __future__ import annotations

import errno

from tcbpf.control.objects import Chain
from tcbpf.errors import TcError
from tcbpf.tc.filter import MAX_CHAIN, known, place_of, places
from tcbpf.tc.state import State


def add(state: State, asked_for: Chain, asked: str) -> State:
    """Make an empty chain."""
    hook, number = place_of(state, asked_for, asked), asked_for.number or 0
    if number > MAX_CHAIN:
        raise TcError(errno.EINVAL, asked, "Specified chain index exceeds upper limit")
    if known(state, hook, number):
        raise TcError(errno.EEXIST, asked, "Filter chain already exists")
    return state.with_chains(hook, (*state.chains.get(hook, ()), (number, True)))


def delete(state: State, asked_for: Chain, asked: str) -> State:
    """Remove a chain and its filters."""
    hook, number = place_of(state, asked_for, asked), asked_for.number or 0
    if not known(state, hook, number):
        raise TcError(errno.ENOENT, asked, "Cannot find specified filter chain")
    return state.with_chains(hook, tuple(row for row in state.chains[hook] if row[0] != number))


def get(state: State, asked_for: Chain, asked: str) -> tuple[Chain, ...]:
    """Return the one chain named."""
    hook, number = place_of(state, asked_for, asked), asked_for.number or 0
    if not known(state, hook, number):
        raise TcError(errno.EINVAL, asked, "Cannot find specified filter chain")
    return (dumped(state, hook, number),)


def show(state: State, asked_for: Chain, asked: str) -> tuple[Chain, ...]:
    """Return the chains of a place, or of every device's."""
    return tuple(
        dumped(state, hook, number)
        for hook in places(state, asked_for, asked)
        for number, _ in state.chains.get(hook, ())
        if asked_for.number in (None, number)
    )


def dumped(state: State, hook: tuple[int, int], number: int) -> Chain:
    """Return a chain as a dump has it: below its qdisc, whatever the hook or class."""
    index, parent = hook
    if not index:
        return Chain("", number=number, block=parent)
    return Chain(state.links[index].name, parent & 0xFFFF0000, number)

"""Actions, alone or bound to filters: indices, holders, ages; tc/kinds/action has the kinds.

Source:  tcf_action_init_1(), net/sched/act_api.c (v6.12).
"""

from __future__ import annotations

import errno
import time
from dataclasses import replace

from tcbpf.control.codes import control_code, hw_stats_bits
from tcbpf.control.objects import ACT_SKIP_HW, ACT_SKIP_SW, Action, Filter
from tcbpf.control.request import Op
from tcbpf.errors import TcError
from tcbpf.tc.kinds.action import ACTIONS
from tcbpf.tc.state import State

ACT_SKIP = ACT_SKIP_HW | ACT_SKIP_SW
MAX_OF_A_FILTER = 32  # TCA_ACT_MAX_PRIO


def bind(state: State, actions: tuple[Action, ...], flags: int, what: str) -> tuple[State, tuple[Action, ...]]:
    """Make a filter's actions, and return them with their indices; `flags` are the filter's SKIP_HW and SKIP_SW.

    Raises:  InputError for an unknown word; TcError.
    """
    if len(actions) > MAX_OF_A_FILTER:
        raise TcError(errno.EINVAL, what)
    bound: list[Action] = []
    for one in actions:
        check_words(one)
        if one.flags & ACT_SKIP and (one.flags & ACT_SKIP) >> 1 != flags:
            raise TcError(errno.EINVAL, what, "Mismatch between action and filter offload flags")
        if not (one.index and (one.kind, one.index) in state.actions):
            state, one = made(state, one, what)
        bound.append(one)
    return state, tuple(bound)


def made(state: State, one: Action, what: str) -> tuple[State, Action]:
    """Make an action: the least free index of its kind unless it names one."""
    if one.kind not in ACTIONS:
        raise TcError(errno.ENOENT, what, "Failed to load TC action module")
    if one.flags & ACT_SKIP_SW:
        raise TcError(errno.EINVAL, what)  # no device here offloads
    options = checked(state, one, what)
    taken = {index for kind, index in state.actions if kind == one.kind} | {
        a.index for filters in state.filters.values() for f in filters for a in f.actions if a.kind == one.kind
    }
    index = one.index or next(number for number in range(1, len(taken) + 2) if number not in taken)
    one = replace(one, index=index, options={**options, "since": int(time.clock_gettime(time.CLOCK_BOOTTIME))})
    return replace(state, actions={**state.actions, (one.kind, index): one}), one


def check_words(one: Action) -> None:
    """Refuse an unknown word that any kind of action may have.

    Raises:  InputError.
    """
    control_code(one.control)
    if one.hw_stats_asked:
        hw_stats_bits(one.hw_stats_asked)


def checked(state: State, one: Action, what: str) -> dict[str, object]:
    """Return the options that an action of its kind may have.

    Raises:  TcError; InputError.
    """
    return ACTIONS[one.kind].check(one, {link.name for link in state.links.values()}, what)


def write(state: State, op: Op, one: Action, what: str) -> State:
    """Add, replace or change a standalone action.

    Raises:  InputError for an unknown word; TcError.
    """
    check_words(one)
    there = (one.kind, one.index) in state.actions
    if there and op is Op.ADD:
        raise TcError(errno.EEXIST, what)
    if one.control.startswith("goto chain "):  # of which block?
        raise TcError(errno.EINVAL, what, "can't goto NULL proto/chain")
    if there:
        old = state.actions[one.kind, one.index]
        new = replace(old, control=one.control, options={**old.options, **one.options}, cookie=one.cookie or old.cookie)
        checked(state, new, what)
        return replace(state, actions={**state.actions, (one.kind, one.index): new})
    return made(state, replace(one, hw_stats="disabled"), what)[0]


def flush(state: State, kind: str, what: str) -> State:
    """Remove the standalone actions of a kind, in index order, up to the first that a filter holds."""
    if kind not in ACTIONS:
        raise TcError(errno.EINVAL, what, "Cannot flush unknown TC action")
    left = dict(state.actions)
    for key in sorted(key for key in left if key[0] == kind):
        if holders(state, left[key]):
            if len(left) == len(state.actions):
                raise TcError(errno.EPERM, what)
            break
        del left[key]
    return replace(state, actions=left)


def delete(state: State, one: Action, what: str) -> State:
    """Remove an action that no filter holds, or with no index all of its kind."""
    if not one.index:
        return flush(state, one.kind, what)
    if (one.kind, one.index) not in state.actions:
        raise TcError(errno.ENOENT, what, "TC action with specified index not found" if one.index else "")
    if holders(state, one):
        raise TcError(errno.EPERM, what)
    return replace(state, actions={key: value for key, value in state.actions.items() if key != (one.kind, one.index)})


def holders(state: State, one: Action) -> int:
    """Count the filters that hold an action."""
    return sum(
        (a.kind, a.index) == (one.kind, one.index) for filters in state.filters.values() for f in filters for a in f.actions
    )


def shown(state: State, filter: Filter) -> Filter:
    """Return a filter with the current state of its actions."""
    if not filter.actions:
        return filter
    return replace(filter, actions=tuple(dumped(state, state.actions.get((a.kind, a.index), a)) for a in filter.actions))


def dumped(state: State, one: Action) -> Action:
    """Return an action as a dump shows it, with reference counts and age."""
    now = int(time.clock_gettime(time.CLOCK_BOOTTIME))
    options = dict(one.options)
    age = max(0, now - int(str(options.pop("since", now))))
    bound = holders(state, one)
    return replace(one, options=options, ref=bound + alone(one), bind=bound, installed=age, used=age)


def alone(one: Action) -> bool:
    """Tell whether an action was created on its own, and outlives its last filter."""
    return bool(one.hw_stats)


def show(state: State, one: Action, what: str) -> tuple[Action, ...]:
    """Return all actions of a kind, or the one with the index given."""
    if one.index and one.kind not in ACTIONS:
        raise TcError(errno.EINVAL, what, "Specified TC action kind not found")
    found = [a for (kind, index), a in sorted(state.actions.items()) if kind == one.kind and one.index in (0, index)]
    if one.index and not found:
        raise TcError(errno.ENOENT, what, "TC action with specified index not found")
    return tuple(replace(dumped(state, a), hw_stats="disabled") for a in found)


def swept(state: State, filters_before: State) -> State:
    """Return the State without the actions whose last filter was just removed."""

    def held(of: State) -> set[tuple[str, int]]:
        return {(a.kind, a.index) for filters in of.filters.values() for f in filters for a in f.actions}

    gone = {key for key in held(filters_before) - held(state) if key in state.actions and not alone(state.actions[key])}
    return replace(state, actions={key: a for key, a in state.actions.items() if key not in gone}) if gone else state

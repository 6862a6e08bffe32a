"""The C structs of a State, which the runtime walks for every packet: devices, hooks, chains, filters, actions, classes.

The Plan keeps alive everything that the structs point at. Counters start from zero; `add_counters` adds them to a State.
"""

from __future__ import annotations

import ctypes
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tcbpf.control.codes import control_code
from tcbpf.control.objects import ETH_P_ALL, Action, Bpf, Filter, Link, Qdisc, Stats
from tcbpf.errors import NotSupported
from tcbpf.native.library import constant, struct
from tcbpf.tc.block import CLSACT_EGRESS, CLSACT_INGRESS, shared_block
from tcbpf.tc.kinds.action import ACTIONS
from tcbpf.tc.kinds.device import kind_of
from tcbpf.tc.kinds.filter import FILTERS
from tcbpf.tc.kinds.qdisc import QDISCS
from tcbpf.tc.qdisc import INGRESS_HANDLE
from tcbpf.tc.state import State
from tcbpf.uapi.tc import TC_H_ROOT

Programs = Callable[[Bpf], int]
"""Returns the address of the struct tcbpf_prog of a filter's or action's program."""

HARD_HEADER = 14


@dataclass(frozen=True)
class Links:
    """Resolves what filters and actions refer to: devices by name, and programs."""

    state: State
    programs: Programs

    def index(self, name: str) -> int:
        """Return the index of a device.

        Raises:  TcError with ENODEV.
        """
        return self.state.link(name).index

    def program(self, options: Bpf) -> int:
        """Return the address of a program's struct."""
        return self.programs(options)


@dataclass
class Plan:
    """The structs of one State. `devices` holds struct tcbpf_dev by index, `net` is the struct tcbpf_net of them all."""

    devices: dict[int, Any] = field(default_factory=dict)
    net: Any = None
    hooks: dict[tuple[int, str], Any] = field(default_factory=dict)  # by device and "ingress", "egress", "root"
    filters: list[tuple[tuple[int, int], Filter, Any]] = field(default_factory=list)
    actions: dict[tuple[str, int], Any] = field(default_factory=dict)
    classes: dict[tuple[int, int], Any] = field(default_factory=dict)
    kept: list[object] = field(default_factory=list)

    def pointers(self, structs: Sequence[Any]) -> int:
        """Return the address of an array of pointers to structs."""
        array = (ctypes.c_uint64 * max(1, len(structs)))(*(ctypes.addressof(one) for one in structs))
        self.kept += [array, *structs]
        return ctypes.addressof(array)


def build(state: State, programs: Programs) -> Plan:
    """Return the structs of a State; `programs` is asked once for every filter or action with a program."""
    plan = Plan()
    for link in state.links.values():
        plan.devices[link.index] = device(plan, link)
    for link in state.links.values():
        one = plan.devices[link.index]
        if link.peer_index in plan.devices:
            one.peer = ctypes.addressof(plan.devices[link.peer_index])
        for (index, _), qdisc in state.qdiscs.items():
            if index == link.index:
                attach(plan, state, link, qdisc, programs)
    plan.net = struct("tcbpf_net")()
    plan.net.devs, plan.net.n_devs = plan.pointers(list(plan.devices.values())), len(plan.devices)
    return plan


def device(plan: Plan, link: Link) -> Any:
    """Return the struct of a device, nothing attached to it yet."""
    one = struct("tcbpf_dev")()
    one.ifindex, one.mtu, one.hard_header_len = link.index, link.mtu, HARD_HEADER
    kind = kind_of(link)
    one.kind = constant(f"DEV_{kind.name.upper()}" if kind.user or kind.fixed else "DEV_DUMMY")
    one.flags = constant("DEV_UP") if link.up else 0
    one.address[:] = bytes.fromhex(link.address.replace(":", ""))
    plan.kept.append(one)
    return one


def attach(plan: Plan, state: State, link: Link, qdisc: Qdisc, programs: Programs) -> None:
    """Attach a qdisc's hooks to its device."""
    one = plan.devices[link.index]
    if qdisc.handle == INGRESS_HANDLE:
        one.ingress = ctypes.addressof(hook(plan, state, link, "ingress", CLSACT_INGRESS, programs))
        if "egress" in QDISCS[qdisc.kind].hooks:
            one.egress = ctypes.addressof(hook(plan, state, link, "egress", CLSACT_EGRESS, programs))
    elif qdisc.parent == TC_H_ROOT:
        one.root = ctypes.addressof(hook(plan, state, link, "root", qdisc.handle, programs))
        mine = [k for (index, _), k in state.classes.items() if index == link.index and k.classid & 0xFFFF0000 == qdisc.handle]
        for klass in mine:
            made = plan.classes[link.index, klass.classid] = struct("tcbpf_class")()
            made.classid = klass.classid
        one.classes = plan.pointers([plan.classes[link.index, klass.classid] for klass in mine])
        one.n_classes, one.default_class = len(mine), QDISCS[qdisc.kind].default_class(qdisc)


def hook(plan: Plan, state: State, link: Link, name: str, parent: int, programs: Programs) -> Any:
    """Return the struct of one hook with the chains of its block."""
    made = plan.hooks[link.index, name] = struct("tcbpf_hook")()
    filters = state.filters.get(shared_block(state, (link.index, parent)), ())
    chains = []
    for number in sorted({f.chain for f in filters}):
        chain = struct("tcbpf_chain")()
        mine = [filter_struct(plan, state, (link.index, parent), f, programs) for f in filters if f.chain == number]
        chain.index, chain.n_filters, chain.filters = number, len(mine), plan.pointers(mine)
        chains.append(chain)
    made.chains, made.n_chains = plan.pointers(chains), len(chains)
    return made


def filter_struct(plan: Plan, state: State, place: tuple[int, int], filter: Filter, programs: Programs) -> Any:
    """Return the struct of one filter."""
    made = struct("tcbpf_filter")()
    made.pref, made.handle = filter.pref, filter.handle
    made.protocol = 0 if filter.protocol == ETH_P_ALL else socket.htons(filter.protocol)
    kind = FILTERS[filter.kind]
    if kind.build is None:
        raise NotSupported(f"the user datapath has no filter {filter.kind}")
    made.kind = constant(f"CLS_{kind.name.upper()}")
    kind.build(made, filter, Links(state, programs))
    actions = [action_struct(plan, state, a, programs) for a in filter.actions]
    made.actions, made.n_actions = plan.pointers(actions), len(actions)
    plan.filters.append((place, filter, made))
    return made


def action_struct(plan: Plan, state: State, bound: Action, programs: Programs) -> Any:
    """Return the struct of an action, one for all filters that share it."""
    action = state.actions.get((bound.kind, bound.index), bound)
    if (found := plan.actions.get((action.kind, action.index))) is not None:
        return found
    made = plan.actions[action.kind, action.index] = struct("tcbpf_action")()
    made.control = control_code(action.control)
    kind = ACTIONS.get(action.kind)
    if kind is None:
        raise NotSupported(f"the user datapath has no action {action.kind}")
    made.kind = constant(f"ACT_{kind.name.upper()}")
    kind.build(made, action, Links(state, programs))
    return made


def add_counters(plan: Plan, state: State) -> State:
    """Add the counters of the Plan's structs to the qdiscs, classes and actions of a State that still exist."""
    qdiscs, classes, actions = dict(state.qdiscs), dict(state.classes), dict(state.actions)
    for (index, name), one in plan.hooks.items():
        root = state.root(index)
        place = (index, INGRESS_HANDLE if name != "root" else root.handle if root else 0)
        if place in qdiscs:
            qdiscs[place] = replace(
                qdiscs[place], stats=added(qdiscs[place].stats, one, overlimits=one.overlimits, drops=one.drops)
            )
    for place, one in plan.classes.items():
        if place in classes:
            classes[place] = replace(classes[place], stats=added(classes[place].stats, one))
    for key, one in plan.actions.items():
        if key in actions:
            actions[key] = replace(
                actions[key], stats=added(actions[key].stats, one, overlimits=one.overlimits, drops=one.drops)
            )
    return replace(state, qdiscs=qdiscs, classes=classes, actions=actions)


def added(stats: Stats, one: Any, *, overlimits: int = 0, drops: int = 0) -> Stats:
    """Return counters with a struct's added."""
    return replace(
        stats,
        bytes=stats.bytes + one.bytes,
        packets=stats.packets + one.packets,
        drops=stats.drops + drops,
        overlimits=stats.overlimits + overlimits,
    )

"""A State as the structs that the runtime walks for every packet: devices, hooks, chains, filters, actions, classes.

Everything the structs point at is kept alive by the Plan. Counters start from zero; `add_counters` adds them to a State.
"""

from __future__ import annotations

import ctypes
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tcbpf.control.codes import control_code
from tcbpf.control.objects import ETH_P_ALL, SKIP_SW, TC_H_ROOT, Action, Bpf, Filter, Link, Qdisc, Stats
from tcbpf.errors import NotSupported
from tcbpf.native.library import struct
from tcbpf.tc.block import CLSACT_EGRESS, CLSACT_INGRESS, shared_block
from tcbpf.tc.kinds.qdisc import QDISCS
from tcbpf.tc.qdisc import INGRESS_HANDLE
from tcbpf.tc.state import State

Programs = Callable[[Bpf], int]
"""Gives the address of the struct tcbpf_prog of a filter's or action's program."""

DEV_KINDS = {"dummy": 1, "veth": 2, "ifb": 3, "lo": 4}
DEV_UP = 1
HARD_HEADER = 14
CLS_BPF, CLS_MATCHALL = 1, 2
DIRECT, FILTER_SKIP_SW = 1, 2
ACT_GACT, ACT_MIRRED, ACT_VLAN, ACT_SKBEDIT, ACT_BPF = 1, 2, 3, 4, 5
MIRRED_MODES = {("egress", "redirect"): 1, ("egress", "mirror"): 2, ("ingress", "redirect"): 3, ("ingress", "mirror"): 4}
VLAN_MODES = {"pop": 1, "push": 2, "modify": 3}
SKBEDIT = {"priority": 1, "queue_mapping": 2, "mark": 4, "ptype": 8, "mask": 16}


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
    one.kind, one.flags = DEV_KINDS.get(link.kind, DEV_KINDS["dummy"]), DEV_UP if link.up else 0
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
    if isinstance(filter.options, Bpf):
        options = filter.options
        made.kind, made.classid, made.prog = CLS_BPF, options.classid, programs(options)
        made.flags = DIRECT * options.direct_action | FILTER_SKIP_SW * bool(options.gen_flags & SKIP_SW)
    else:
        made.kind, made.classid = CLS_MATCHALL, int(str(filter.options.get("classid", 0)))
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
    options = action.options
    match action.kind:
        case "gact":
            made.kind = ACT_GACT
        case "mirred":
            made.kind = ACT_MIRRED
            made.mode = MIRRED_MODES[str(options.get("direction", "egress")), str(options.get("action", "redirect"))]
            made.ifindex = state.link(str(options["dev"])).index
        case "vlan":
            made.kind, made.mode = ACT_VLAN, VLAN_MODES[str(options.get("action", "push"))]
            made.vlan_id, made.vlan_proto = number(options, "id"), socket.htons(number(options, "protocol", 0x8100))
            made.vlan_prio, made.vlan_prio_set = number(options, "priority"), "priority" in options
        case "skbedit":
            made.kind = ACT_SKBEDIT
            made.set = sum(flag for word, flag in SKBEDIT.items() if word in options)
            made.priority, made.mark = number(options, "priority"), number(options, "mark")
            made.mask, made.queue = number(options, "mask", 0xFFFFFFFF), number(options, "queue_mapping")
            made.ptype = number(options, "ptype")
        case "bpf":
            made.kind = ACT_BPF
            made.prog = programs(Bpf(id=number(options, "id"), bytecode=tuple(options.get("bytecode", ()))))  # type: ignore[arg-type]
        case kind:
            raise NotSupported(f"the user datapath has no action {kind}")
    return made


def number(options: Mapping[str, object], word: str, default: int = 0) -> int:
    """Return an option that is a number."""
    return int(str(options.get(word, default)), 0)


def add_counters(plan: Plan, state: State) -> State:
    """Return the State with what the Plan's structs counted added to its qdiscs, classes and actions, where they
    still are.
    """
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

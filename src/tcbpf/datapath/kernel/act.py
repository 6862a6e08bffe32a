"""Actions on rtnetlink's wire; tc/kinds/action packs and reads their options.

Source:  include/uapi/linux/pkt_cls.h; tcf_action_dump_1(), net/sched/act_api.c.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

from tcbpf.control.attributes import attr, attrs, nest, pairs, string, text, u32
from tcbpf.control.codes import HW_STATS, control_code, control_word, hw_stats_bits
from tcbpf.control.objects import Action
from tcbpf.datapath.kernel.names import Names
from tcbpf.datapath.kernel.sch import read_stats
from tcbpf.tc.kinds.action import ACTIONS
from tcbpf.uapi import tc as uapi

TCA_ACT_TAB = 1  # linux/rtnetlink.h, which gives it no BTF name
_GEN = struct.Struct("=IIiii")  # tc_gen: index, capab, action, refcnt, bindcnt
_LARGEST = 8  # bytes that follow struct tc_gen, where a dump leaves the parameters out
_BITFIELD = struct.Struct("=II")  # struct nla_bitfield32: value, selector


def actions_attr(kind: int, actions: tuple[Action, ...], names: Names) -> bytes:
    """Return the attribute `kind` that holds actions in order.

    Raises:  InputError for options that the kind has not.
    """
    return nest(kind, *(nest(order, *_action(action, names)) for order, action in enumerate(actions, 1)))


def named(actions: tuple[Action, ...]) -> bytes:
    """Return the attribute that names actions by kind and index, or all of a kind."""
    rows = (
        nest(order, text(uapi.TCA_ACT_KIND, one.kind), *([u32(uapi.TCA_ACT_INDEX, one.index)] if one.index else []))
        for order, one in enumerate(actions, 1)
    )
    return nest(TCA_ACT_TAB, *rows)


def _marks(action: Action) -> Iterator[bytes]:
    """Yield the attributes that every kind of action may have."""
    if action.cookie:
        yield attr(uapi.TCA_ACT_COOKIE, action.cookie)
    if action.hw_stats_asked:
        bits = hw_stats_bits(action.hw_stats_asked)
        yield attr(uapi.TCA_ACT_HW_STATS, _BITFIELD.pack(bits, bits))
    if action.flags:
        yield attr(uapi.TCA_ACT_FLAGS, _BITFIELD.pack(action.flags, action.flags))


def _action(action: Action, names: Names) -> tuple[bytes, ...]:
    """Return the attributes of one action; one of a kind that is not known has no options, and the kernel refuses it."""
    gen = _GEN.pack(action.index, 0, control_code(action.control), 0, 0)
    kind = ACTIONS.get(action.kind)
    rows = kind.pack(action, gen, names) if kind else []
    return text(uapi.TCA_ACT_KIND, action.kind), nest(uapi.TCA_ACT_OPTIONS, *rows), *_marks(action)


def read_actions(raw: bytes, names: Names) -> tuple[Action, ...]:
    """Return the actions of an attribute, in order."""
    return tuple(_read(attrs(payload), names) for _, payload in sorted(pairs(raw), key=lambda pair: pair[0]))


def _read(found: dict[int, bytes], names: Names) -> Action:
    kind, rows = string(found.get(uapi.TCA_ACT_KIND)), attrs(found.get(uapi.TCA_ACT_OPTIONS, b""))
    times = rows.get(1)
    params = rows.get(2, bytes(_GEN.size + _LARGEST))
    index, _, code, ref, bind = _GEN.unpack_from(params)
    of = ACTIONS.get(kind)
    options = of.read(rows, params[_GEN.size :], names) if of else {}
    installed, used, _, first = struct.unpack_from("=4Q", times) if times and len(times) >= 32 else (0, 0, 0, 0)
    hz = os.sysconf("SC_CLK_TCK")
    return Action(
        kind=kind,
        index=index,
        control=control_word(code),
        options=options,
        stats=read_stats(found, uapi.TCA_ACT_STATS),
        ref=ref,
        bind=bind,
        installed=installed // hz if installed else -1,
        used=used // hz if used else -1,
        hw_stats="" if uapi.TCA_ACT_USED_HW_STATS not in found else "disabled",
        first_used=first // hz if first else -1,
        cookie=found.get(uapi.TCA_ACT_COOKIE, b""),
        flags=_bits(found.get(uapi.TCA_ACT_FLAGS)),
        hw_stats_asked=_asked(found.get(uapi.TCA_ACT_HW_STATS)),
    )


def _bits(raw: bytes | None) -> int:
    """Return the value of a bit field."""
    value, selector = _BITFIELD.unpack_from(raw) if raw else (0, 0)
    return int(value & selector)


def _asked(raw: bytes | None) -> str:
    return "" if raw is None else next(word for word, bits in HW_STATS.items() if bits == _bits(raw) or not bits)

"""Actions on rtnetlink's wire.

Source:  include/uapi/linux/tc_act/tc_{mirred,gact,bpf}.h; include/uapi/linux/pkt_cls.h.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterator
from typing import Any

from tcbpf.control.attributes import attr, attrs, nest, number, pairs, string, text, u16, u32
from tcbpf.control.codes import control_code, control_word
from tcbpf.control.objects import Action
from tcbpf.datapath.kernel.names import Names
from tcbpf.datapath.kernel.sch import read_stats
from tcbpf.errors import InputError
from tcbpf.uapi import tc as uapi

TCA_ACT_TAB = 1  # linux/rtnetlink.h, which gives it no BTF name
_GEN = struct.Struct("=IIiii")  # tc_gen: index, capab, action, refcnt, bindcnt
MIRRED = {
    ("egress", "redirect"): uapi.TCA_EGRESS_REDIR,
    ("egress", "mirror"): uapi.TCA_EGRESS_MIRROR,
    ("ingress", "redirect"): uapi.TCA_INGRESS_REDIR,
    ("ingress", "mirror"): uapi.TCA_INGRESS_MIRROR,
}
_BITFIELD = struct.Struct("=II")  # struct nla_bitfield32: value, selector
_HW_STATS = {"immediate": uapi.TCA_ACT_HW_STATS_IMMEDIATE, "delayed": uapi.TCA_ACT_HW_STATS_DELAYED, "disabled": 0}
VLAN_MODES = {"pop": 1, "push": 2, "modify": 3}  # linux/tc_act/tc_vlan.h
_FIELDS = {
    "vlan": {"id": (3, "=H"), "protocol": (4, ">H"), "priority": (6, "=B")},
    "skbedit": {"priority": (3, "=I"), "queue_mapping": (4, "=H"), "mark": (5, "=I"), "ptype": (7, "=H"), "mask": (8, "=I")},
}
"""Attribute and form of the options of kinds that are made of numbers: linux/tc_act/tc_{vlan,skbedit}.h, which not every
kernel's BTF has.
"""


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
        bits = _HW_STATS[action.hw_stats_asked]
        yield attr(uapi.TCA_ACT_HW_STATS, _BITFIELD.pack(bits, bits))
    if action.flags:
        yield attr(uapi.TCA_ACT_FLAGS, _BITFIELD.pack(action.flags, action.flags))


def _action(action: Action, names: Names) -> tuple[bytes, ...]:
    gen = _GEN.pack(action.index, 0, control_code(action.control), 0, 0)
    options = action.options
    if action.kind == "mirred":
        way = (str(options.get("direction", "egress")), str(options.get("action", "redirect")))
        if way not in MIRRED:
            raise InputError(f"mirred {way[0]} {way[1]}", hint="egress or ingress, mirror or redirect")
        deed = MIRRED[way] if options else 0  # without options it is one that is there already, to be shared
        rows = [attr(uapi.TCA_MIRRED_PARMS, gen + struct.pack("=iI", deed, names.index(str(options.get("dev", "")))))]
    elif action.kind == "gact":
        rows = [attr(uapi.TCA_GACT_PARMS, gen)]
    elif action.kind in _FIELDS:
        mode = VLAN_MODES[str(options.get("action", "pop"))].to_bytes(4, sys.byteorder) if action.kind == "vlan" else b""
        rows = [attr(2, gen + mode)]
        rows += [
            attr(number, struct.pack(form, options[word]))
            for word, (number, form) in _FIELDS[action.kind].items()
            if word in options
        ]
    elif action.kind != "bpf":
        rows = []  # the kernel says that it has no such kind
    else:
        rows = [attr(uapi.TCA_ACT_BPF_PARMS, gen)]
        prog: Any = options.get("prog")
        bytecode = options.get("bytecode")
        if prog is not None:
            rows += [u32(uapi.TCA_ACT_BPF_FD, prog.fileno()), text(uapi.TCA_ACT_BPF_NAME, str(options.get("name", "")))]
        elif isinstance(bytecode, tuple):
            code = b"".join(struct.pack("=HBBI", *row) for row in bytecode)
            rows += [u16(uapi.TCA_ACT_BPF_OPS_LEN, len(bytecode)), attr(uapi.TCA_ACT_BPF_OPS, code)]
    return text(uapi.TCA_ACT_KIND, action.kind), nest(uapi.TCA_ACT_OPTIONS, *rows), *_marks(action)


def read_actions(raw: bytes, names: Names) -> tuple[Action, ...]:
    """Return the actions of an attribute, in order."""
    return tuple(_read(attrs(payload), names) for _, payload in sorted(pairs(raw), key=lambda pair: pair[0]))


def _read(found: dict[int, bytes], names: Names) -> Action:
    kind, rows = string(found.get(uapi.TCA_ACT_KIND)), attrs(found.get(uapi.TCA_ACT_OPTIONS, b""))
    times = rows.get(1)
    options: dict[str, object] = {}
    params = rows.get(2, bytes(_GEN.size + 8))
    index, _, code, ref, bind = _GEN.unpack_from(params)
    if kind == "mirred":
        way, device = struct.unpack_from("=iI", params, _GEN.size)
        direction, deed = next((words for words, number in MIRRED.items() if number == way), ("egress", "redirect"))
        options = {"direction": direction, "action": deed, "dev": names.name(device)}
    elif kind == "bpf":
        options = {
            "name": string(rows.get(uapi.TCA_ACT_BPF_NAME)),
            "id": number(rows.get(uapi.TCA_ACT_BPF_ID)),
            "tag": rows.get(uapi.TCA_ACT_BPF_TAG, b""),
            "bytecode": tuple(struct.iter_unpack("=HBBI", rows.get(uapi.TCA_ACT_BPF_OPS, b""))),
        }
    elif kind in _FIELDS:
        if kind == "vlan":
            mode = number(params[_GEN.size : _GEN.size + 4])
            options["action"] = next((word for word, code in VLAN_MODES.items() if code == mode), str(mode))
        options |= {word: struct.unpack(form, rows[place])[0] for word, (place, form) in _FIELDS[kind].items() if place in rows}
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
    return "" if raw is None else next(word for word, bits in _HW_STATS.items() if bits == _bits(raw) or not bits)

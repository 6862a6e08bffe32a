"""Filters on rtnetlink's wire; tc/kinds/filter packs and reads their options.

Source:  include/uapi/linux/pkt_cls.h; tcf_fill_node(), net/sched/cls_api.c.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from dataclasses import replace
from typing import Any

from tcbpf.control.attributes import TCA_CHAIN, TCA_KIND, TCA_OPTIONS, attrs, nest, number, string, text, u32
from tcbpf.control.objects import Action, Bpf, Chain, Filter
from tcbpf.datapath.kernel import syscall
from tcbpf.datapath.kernel.act import actions_attr, read_actions
from tcbpf.datapath.kernel.names import Names
from tcbpf.datapath.kernel.sch import HEAD
from tcbpf.errors import NotSupported, SysError
from tcbpf.tc.kinds.filter import FILTERS
from tcbpf.tc.kinds.filter.kind import FilterOptions
from tcbpf.uapi import bpf as bpf_uapi

IN_BLOCK = -1  # TCM_IFINDEX_MAGIC_BLOCK: the parent is a block's number


def filter_attrs(made: Filter, names: Names, *, options: bool) -> bytes:
    """Return the attributes of a filter request; `options` for one that makes or changes the filter.

    Raises:  NotSupported for the options of a kind that tc/kinds/filter has not; InputError for wrong ones.
    """
    rows = [text(TCA_KIND, made.kind)] if made.kind else []
    if made.chain:
        rows.append(u32(TCA_CHAIN, made.chain))
    if options:
        kind = FILTERS.get(made.kind)
        if kind is not None:
            actions = [actions_attr(kind.actions, made.actions, names)] if made.actions else []
            rows.append(nest(TCA_OPTIONS, *kind.pack(made), *actions))
        elif made.kind and (made.options or made.actions):
            raise NotSupported(f"options of filter kind {made.kind} are not on the kernel datapath yet")
    return b"".join(rows)


def read_filter(raw: bytes, names: Names) -> Filter:
    """Return the filter of one message; handle 0 stands for the head of its pref."""
    _, index, handle, parent, info = HEAD.unpack_from(raw)
    found = attrs(raw[HEAD.size :])
    name, rows = string(found.get(TCA_KIND)), attrs(found.get(TCA_OPTIONS, b""))
    kind, actions = FILTERS.get(name), tuple[Action, ...]()
    options: FilterOptions = {"unread": len(rows)} if rows else {}
    if kind is not None:
        options = kind.read(rows)
        if isinstance(options, Bpf) and options.id:
            options = replace(options, **_describe(options.id))
        if kind.actions in rows:
            actions = read_actions(rows[kind.actions], names)
    block = parent if index == IN_BLOCK else 0
    return Filter(
        dev="" if block else names.name(index),
        parent=0 if block else parent,
        block=block,
        kind=name,
        protocol=socket.ntohs(info & 0xFFFF),
        pref=info >> 16,
        chain=number(found.get(TCA_CHAIN)),
        handle=handle,
        options=options,
        actions=actions,
    )


def read_chain(raw: bytes, names: Names) -> Chain:
    """Return the chain of one message."""
    _, index, _, parent, _ = HEAD.unpack_from(raw)
    chain = number(attrs(raw[HEAD.size :]).get(TCA_CHAIN))
    return Chain("", number=chain, block=parent) if index == IN_BLOCK else Chain(names.name(index), parent, chain)


def _describe(id: int) -> dict[str, Any]:
    """Return the fields of Bpf that bpf(2) knows of a program, or none where it may not be asked."""
    with suppress(SysError):
        fd = syscall.fd_by_id(bpf_uapi.BPF_PROG_GET_FD_BY_ID, id)
        try:
            info = syscall.prog_info(fd)
        finally:
            os.close(fd)
        return {
            "jited": info.jited_prog_len > 0,
            "prog_name": info.name.decode(errors="replace"),
            "load_time": int(info.load_time),
            "uid": int(info.created_by_uid),
            "btf_id": int(info.btf_id),
        }
    return {}

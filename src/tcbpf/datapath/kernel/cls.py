"""Filters on rtnetlink's wire.

Source:  include/uapi/linux/pkt_cls.h; net/sched/cls_bpf.c.
"""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress
from typing import Any

from tcbpf.control.attributes import TCA_CHAIN, TCA_KIND, TCA_OPTIONS, attr, attrs, nest, number, string, text, u16, u32
from tcbpf.control.objects import SKIP_HW, SKIP_SW, Bpf, Chain, Filter
from tcbpf.datapath.kernel import syscall
from tcbpf.datapath.kernel.act import actions_attr, read_actions
from tcbpf.datapath.kernel.names import Names
from tcbpf.datapath.kernel.sch import HEAD
from tcbpf.errors import InputError, NotSupported, SysError
from tcbpf.uapi import bpf as bpf_uapi
from tcbpf.uapi import tc as uapi


def filter_attrs(made: Filter, names: Names, *, options: bool) -> bytes:
    """Return the attributes of a filter request; `options` for one that makes or changes the filter.

    Raises:  NotSupported for the options of other kinds than bpf and matchall.
    """
    rows = [text(TCA_KIND, made.kind)] if made.kind else []
    if made.chain:
        rows.append(u32(TCA_CHAIN, made.chain))
    if options:
        if made.kind in _OPTIONS:
            rows.append(nest(TCA_OPTIONS, *_OPTIONS[made.kind](made, names)))
        elif made.kind and (made.options or made.actions):
            raise NotSupported(f"options of filter kind {made.kind} are not on the kernel datapath yet")
    return b"".join(rows)


def _bpf(made: Filter, names: Names) -> list[bytes]:
    options = made.options
    if not isinstance(options, Bpf):
        raise InputError("a bpf filter takes Bpf options")
    rows = []
    if options.prog is not None:
        rows += [u32(uapi.TCA_BPF_FD, options.prog.fileno()), text(uapi.TCA_BPF_NAME, options.name)]  # type: ignore[attr-defined]
    elif options.bytecode:
        code = b"".join(struct.pack("=HBBI", *row) for row in options.bytecode)
        rows += [u16(uapi.TCA_BPF_OPS_LEN, len(options.bytecode)), attr(uapi.TCA_BPF_OPS, code)]
    if options.classid:
        rows.append(u32(uapi.TCA_BPF_CLASSID, options.classid))
    if options.direct_action:
        rows.append(u32(uapi.TCA_BPF_FLAGS, uapi.TCA_BPF_FLAG_ACT_DIRECT))
    if options.gen_flags & (SKIP_HW | SKIP_SW):
        rows.append(u32(uapi.TCA_BPF_FLAGS_GEN, options.gen_flags & (SKIP_HW | SKIP_SW)))
    if made.actions:
        rows.append(actions_attr(uapi.TCA_BPF_ACT, made.actions, names))
    return rows


def _matchall(made: Filter, names: Names) -> list[bytes]:
    options = made.options
    if not isinstance(options, dict):
        raise InputError("a matchall filter takes no Bpf options")
    rows = [u32(uapi.TCA_MATCHALL_CLASSID, int(str(options["classid"])))] if "classid" in options else []
    return rows + ([actions_attr(uapi.TCA_MATCHALL_ACT, made.actions, names)] if made.actions else [])


def _u32(made: Filter, names: Names) -> list[bytes]:
    options: Any = made.options
    keys = options.get("keys", ())
    ends = "classid" in options or made.actions
    sel = _SEL.pack(uapi.TC_U32_TERMINAL if ends else 0, 0, len(keys), 0, 0, 0, 0, 0)
    sel += b"".join(struct.pack(">II", mask, value) + struct.pack("=ii", off, 0) for value, mask, off in keys)
    rows = [u32(uapi.TCA_U32_CLASSID, int(options["classid"]))] if "classid" in options else []
    rows += [actions_attr(uapi.TCA_U32_ACT, made.actions, names)] if made.actions else []
    return [*rows, *([attr(uapi.TCA_U32_SEL, sel)] if keys else [])]


IN_BLOCK = -1  # TCM_IFINDEX_MAGIC_BLOCK: the parent is a block's number
_OPTIONS = {"bpf": _bpf, "matchall": _matchall, "u32": _u32}
_SEL = struct.Struct("=BBBxHHhhI")  # tc_u32_sel: flags, offshift, nkeys, offmask, off, offoff, hoff, hmask


def read_filter(raw: bytes, names: Names) -> Filter:
    """Return the filter of one message; handle 0 stands for the head of its pref."""
    _, index, handle, parent, info = HEAD.unpack_from(raw)
    found = attrs(raw[HEAD.size :])
    kind, rows = string(found.get(TCA_KIND)), attrs(found.get(TCA_OPTIONS, b""))
    options: Bpf | dict[str, object] = _read_bpf(rows) if kind == "bpf" else {}
    if kind == "matchall" and uapi.TCA_MATCHALL_CLASSID in rows:
        options = {"classid": number(rows[uapi.TCA_MATCHALL_CLASSID])}
    elif kind == "u32" and rows:
        options = _read_u32(rows)
    elif kind not in ("bpf", "matchall") and rows:
        options = {"unread": len(rows)}
    holder = {"bpf": uapi.TCA_BPF_ACT, "matchall": uapi.TCA_MATCHALL_ACT, "u32": uapi.TCA_U32_ACT}.get(kind)
    actions = read_actions(rows[holder], names) if holder in rows else ()
    block = parent if index == IN_BLOCK else 0
    return Filter(
        dev="" if block else names.name(index),
        parent=0 if block else parent,
        block=block,
        kind=kind,
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


def _read_u32(rows: dict[int, bytes]) -> dict[str, object]:
    """Return the options of a dumped u32 filter: a hash table's divisor, or a key's table, class and matches."""
    if uapi.TCA_U32_DIVISOR in rows:
        return {"divisor": number(rows[uapi.TCA_U32_DIVISOR])}
    options: dict[str, object] = {"ht": number(rows.get(uapi.TCA_U32_HASH))}
    if uapi.TCA_U32_CLASSID in rows:
        options["classid"] = number(rows[uapi.TCA_U32_CLASSID])
    if uapi.TCA_U32_FLAGS in rows:
        options["gen_flags"] = number(rows[uapi.TCA_U32_FLAGS])
    sel = rows.get(uapi.TCA_U32_SEL, b"")
    if len(sel) >= _SEL.size:
        flags, _, count, *_ = _SEL.unpack_from(sel)
        options["terminal"] = bool(flags & uapi.TC_U32_TERMINAL)
        places = range(_SEL.size, min(_SEL.size + count * 16, len(sel)), 16)
        options["keys"] = tuple(
            (value, mask, struct.unpack_from("=i", sel, at + 8)[0])
            for at in places
            for mask, value in (struct.unpack_from(">II", sel, at),)
        )
    return options


def _read_bpf(rows: dict[int, bytes]) -> Bpf:
    """Return the options of a dumped bpf filter, with what bpf(2) tells of its program where it may be asked."""
    number_of = number(rows.get(uapi.TCA_BPF_ID))
    described = _describe(number_of) if number_of else {}
    tag = rows.get(uapi.TCA_BPF_TAG, b"")
    return Bpf(
        bytecode=tuple(struct.iter_unpack("=HBBI", rows.get(uapi.TCA_BPF_OPS, b""))),
        name=string(rows.get(uapi.TCA_BPF_NAME)),
        classid=number(rows.get(uapi.TCA_BPF_CLASSID)),
        direct_action=bool(number(rows.get(uapi.TCA_BPF_FLAGS)) & uapi.TCA_BPF_FLAG_ACT_DIRECT),
        gen_flags=number(rows.get(uapi.TCA_BPF_FLAGS_GEN)),
        id=number_of,
        tag=tag,
        **described,
    )


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

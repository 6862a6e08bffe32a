"""Requests to rtnetlink: the values of `control` as messages, and the answers as values again."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

from tcbpf.control.attributes import TCA_CHAIN, attrs, u32
from tcbpf.control.objects import Action, Actions, Chain, Filter, Link, Qdisc, TcClass, TcObject
from tcbpf.control.request import Op, Request
from tcbpf.datapath.kernel import act, cls, link, sch
from tcbpf.datapath.kernel.names import Names
from tcbpf.datapath.kernel.netlink import FLAGS, Rtnetlink
from tcbpf.errors import NotSupported, TcError
from tcbpf.uapi import netlink as uapi
from tcbpf.uapi.tc import TC_H_ROOT

_TCAMSG = bytes(4)  # struct tcamsg: a family of 0
_NO_SUCH_KIND = frozenset({"Failed to load TC action module", "TC classifier not found", "Specified qdisc kind is unknown"})


class Lacking(TcError, NotSupported):
    """The kernel was asked for a kind of qdisc, filter or action that it has not, and said so."""


def apply(rtnl: Rtnetlink, request: Request) -> tuple[TcObject, ...]:
    """Do one request and return the objects of the answer.

    Raises:  TcError; NotSupported where the kernel has no such kind.
    """
    what = request.object
    asked = f"{request.op.value} {describe(what)}"
    if isinstance(what, Link):
        return link.apply(rtnl, request.op, what, asked)
    names = Names(rtnl)
    if isinstance(what, (Action, Actions)):
        return _action(names, request.op, what, asked)
    base, body, decode = _traffic(names, request.op, what)
    kind = base + (1 if request.op is Op.DELETE else 2 if request.op in (Op.SHOW, Op.GET) else 0)
    try:
        answers = _ask(rtnl, kind, FLAGS[request.op], body, asked)
    except TcError as error:
        if error.errno == errno.ENODEV and not error.extack and request.op is Op.SHOW:
            return ()
        raise
    return tuple(row for _, raw in answers if (row := decode(raw)) is not None)


def _ask(rtnl: Rtnetlink, kind: int, flags: int, body: bytes, asked: str) -> list[tuple[int, bytes]]:
    """Ask, and raise Lacking where the kernel says that it has no such kind."""
    try:
        return rtnl.ask(kind, flags, body, asked=asked)
    except TcError as error:
        if error.extack.rstrip(".") in _NO_SUCH_KIND:
            raise Lacking(error.errno or 0, asked, error.extack) from None
        raise


def _action(names: Names, op: Op, what: Action | Actions, asked: str) -> tuple[Action, ...]:
    """Do one request on actions that stand alone. SHOW takes all of the kind, GET and DELETE the one of that index; DELETE
    with no index removes them in their order up to the first that a filter holds.
    """
    rows = what.rows if isinstance(what, Actions) else (what,)
    if op is Op.SHOW:
        answers = _ask(names.rtnl, uapi.RTM_GETACTION, uapi.NLM_F_DUMP, _TCAMSG + act.named(rows), asked)
    elif op in (Op.GET, Op.DELETE):
        kind = uapi.RTM_GETACTION if op is Op.GET else uapi.RTM_DELACTION
        flags = 0 if all(row.index for row in rows) else uapi.NLM_F_ROOT  # all of the kind
        answers = _ask(names.rtnl, kind, flags, _TCAMSG + act.named(rows), asked)
    else:
        body = _TCAMSG + act.actions_attr(act.TCA_ACT_TAB, rows, names)
        answers = _ask(names.rtnl, uapi.RTM_NEWACTION, FLAGS[op], body, asked)
    if op not in (Op.SHOW, Op.GET):
        return ()
    found = (attrs(raw[len(_TCAMSG) :]).get(act.TCA_ACT_TAB, b"") for _, raw in answers)
    return tuple(row for raw in found for row in act.read_actions(raw, names))


def describe(what: TcObject) -> str:
    """Return a short name of an object for messages."""
    if isinstance(what, Actions):
        return "actions"
    kind = {Link: "device", Qdisc: "qdisc", TcClass: "class", Filter: "filter", Chain: "chain", Action: "action"}[type(what)]
    name = (
        what.name
        if isinstance(what, Link)
        else what.kind
        if isinstance(what, Action)
        else f"{getattr(what, 'kind', '')} on {what.dev}"
    )
    return f"{kind} {name}".replace("  ", " ")


Decode = Callable[[bytes], TcObject | None]


def _traffic(names: Names, op: Op, what: Qdisc | TcClass | Filter | Chain) -> tuple[int, bytes, Decode]:
    """Return (message base, request body, how to read an answer) for a qdisc, class, filter or chain."""
    index = names.index(what.dev)
    if isinstance(what, Chain):
        head = _in_place(what, index, 0, 0)
        number = what.number or 0 if op is not Op.SHOW else what.number
        return (
            uapi.RTM_NEWCHAIN,
            head + (u32(TCA_CHAIN, number) if number is not None else b""),
            (lambda raw: cls.read_chain(raw, names)),
        )
    if isinstance(what, Qdisc):
        head = sch.HEAD.pack(0, index, what.handle, what.parent if op is not Op.SHOW else 0, 0)
        options = sch.qdisc_attrs(what) if op is not Op.SHOW else b""

        def qdisc(raw: bytes) -> Qdisc | None:
            row = sch.read_qdisc(raw, names)
            return None if op is Op.SHOW and what.dev and row.dev != what.dev else row

        return uapi.RTM_NEWQDISC, head + options, qdisc
    if isinstance(what, TcClass):
        parent = 0 if op is Op.SHOW and what.parent == TC_H_ROOT else what.parent
        head = sch.HEAD.pack(0, index, what.classid, parent, 0)
        options = sch.class_attrs(what) if op is not Op.SHOW else b""
        return uapi.RTM_NEWTCLASS, head + options, lambda raw: sch.read_class(raw, names)
    info = what.pref << 16 | socket.htons(what.protocol)
    head = _in_place(what, index, what.handle, info)

    def filter(raw: bytes) -> Filter | None:
        row = cls.read_filter(raw, names)
        return None if op is Op.SHOW and what.kind not in ("", row.kind) else row

    body = cls.filter_attrs(what, names, options=op in (Op.ADD, Op.REPLACE, Op.CHANGE))
    return uapi.RTM_NEWTFILTER, head + body, filter


def _in_place(what: Filter | Chain, index: int, handle: int, info: int) -> bytes:
    """Return the head of a message about what is in a block: a qdisc's, or one that goes by its number."""
    if what.block:
        return sch.HEAD.pack(0, cls.IN_BLOCK, handle, what.block, info)
    return sch.HEAD.pack(0, index, handle, what.parent, info)

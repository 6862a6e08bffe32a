"""Requests to rtnetlink: the values of `control` as messages, and the answers as values again."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Iterator

from tcbpf.control.attributes import attr, attrs, nest, number, string, text, u32
from tcbpf.control.objects import TC_H_ROOT, Action, Actions, Chain, Filter, Link, Qdisc, TcClass, TcObject
from tcbpf.control.request import Op, Request
from tcbpf.datapath.kernel import act, cls, sch
from tcbpf.datapath.kernel.netlink import Rtnetlink
from tcbpf.errors import NotSupported, TcError
from tcbpf.uapi import netlink as uapi

FLAGS = {
    Op.ADD: uapi.NLM_F_CREATE | uapi.NLM_F_EXCL,
    Op.REPLACE: uapi.NLM_F_CREATE | uapi.NLM_F_REPLACE,
    Op.CHANGE: 0,
    Op.LINK: uapi.NLM_F_REPLACE,
    Op.DELETE: 0,
    Op.GET: 0,
    Op.SHOW: uapi.NLM_F_DUMP,
}

TCMSG = struct.Struct("=BxxxiIII")  # family, ifindex, handle, parent, info
_IFINFO = struct.Struct("=BxHiII")  # family, type, index, flags, change
_TCAMSG = bytes(4)  # struct tcamsg: a family of 0
_ANY_LINK = _IFINFO.pack(0, 0, 0, 0, 0)
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
        return _link(rtnl, request.op, what, asked)
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


class Names:
    """Device names and indices of the namespace, looked up when first asked for."""

    def __init__(self, rtnl: Rtnetlink) -> None:
        self.rtnl = rtnl
        self._by_index: dict[int, str] | None = None

    def index(self, name: str) -> int:
        """Return the index of a device.

        Raises:  TcError with ENODEV.
        """
        if not name:
            return 0
        try:
            (_, raw), *_ = self.rtnl.ask(uapi.RTM_GETLINK, 0, _ANY_LINK + text(uapi.IFLA_IFNAME, name), asked="find device")
        except TcError as error:
            if error.errno in (errno.ENODEV, errno.ERANGE, errno.EINVAL):
                raise TcError(errno.ENODEV, f"find device {name}", f'Cannot find device "{name}"') from None
            raise
        return int(_IFINFO.unpack_from(raw)[2])

    def name(self, index: int) -> str:
        """Return the name of a device index, or "if" and the number for one that went away."""
        if self._by_index is None:
            rows = self.rtnl.ask(uapi.RTM_GETLINK, uapi.NLM_F_DUMP, _ANY_LINK, asked="list devices")
            self._by_index = {_IFINFO.unpack_from(raw)[2]: string(attrs(raw[16:]).get(uapi.IFLA_IFNAME)) for _, raw in rows}
        return self._by_index.get(index, f"if{index}")


Decode = Callable[[bytes], TcObject | None]


def _traffic(names: Names, op: Op, what: Qdisc | TcClass | Filter | Chain) -> tuple[int, bytes, Decode]:
    """Return (message base, request body, how to read an answer) for a qdisc, class, filter or chain."""
    index = names.index(what.dev)
    if isinstance(what, Chain):
        head = _in_place(what, index, 0, 0)
        number = what.number or 0 if op is not Op.SHOW else what.number
        return (
            uapi.RTM_NEWCHAIN,
            head + (u32(sch.TCA_CHAIN, number) if number is not None else b""),
            (lambda raw: cls.read_chain(raw, names)),
        )
    if isinstance(what, Qdisc):
        head = TCMSG.pack(0, index, what.handle, what.parent if op is not Op.SHOW else 0, 0)
        options = sch.qdisc_attrs(what) if op is not Op.SHOW else b""

        def qdisc(raw: bytes) -> Qdisc | None:
            row = sch.read_qdisc(raw, names)
            return None if op is Op.SHOW and what.dev and row.dev != what.dev else row

        return uapi.RTM_NEWQDISC, head + options, qdisc
    if isinstance(what, TcClass):
        parent = 0 if op is Op.SHOW and what.parent == TC_H_ROOT else what.parent
        head = TCMSG.pack(0, index, what.classid, parent, 0)
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
        return TCMSG.pack(0, cls.IN_BLOCK, handle, what.block, info)
    return TCMSG.pack(0, index, handle, what.parent, info)


def _link(rtnl: Rtnetlink, op: Op, link: Link, asked: str) -> tuple[Link, ...]:
    """Do one request on a device."""
    names = Names(rtnl)
    if op in (Op.SHOW, Op.GET):
        if link.name:
            names.index(link.name)
        rows = rtnl.ask(uapi.RTM_GETLINK, uapi.NLM_F_DUMP, _ANY_LINK, asked=asked)
        found = tuple(_read_link(raw, names) for _, raw in rows)
        return tuple(row for row in found if link.name in ("", row.name))
    if op is Op.DELETE:
        rtnl.ask(uapi.RTM_DELLINK, 0, _IFINFO.pack(0, 0, names.index(link.name), 0, 0), asked=asked)
        return ()
    up = uapi.IFF_UP if link.up else 0
    if op is Op.CHANGE:
        head, rest = _IFINFO.pack(0, 0, names.index(link.name), up, uapi.IFF_UP), b"".join(_link_values(link))
    else:
        head = _IFINFO.pack(0, 0, 0, up, up)
        rest = b"".join([text(uapi.IFLA_IFNAME, link.name), *_link_values(link), nest(uapi.IFLA_LINKINFO, *_link_info(link))])
    try:
        rtnl.ask(uapi.RTM_NEWLINK, FLAGS[op], head + rest, asked=asked)
    except TcError as error:
        if error.errno == errno.EOPNOTSUPP:
            raise NotSupported(f"this kernel has no {link.kind} devices") from None
        raise
    return ()


def _link_values(link: Link) -> Iterator[bytes]:
    """Yield the attributes that a new and a changed device share."""
    if renamed := link.options.get("name"):
        yield text(uapi.IFLA_IFNAME, str(renamed))
    if link.mtu:
        yield u32(uapi.IFLA_MTU, link.mtu)
    if link.address:
        yield attr(uapi.IFLA_ADDRESS, bytes.fromhex(link.address.replace(":", "")))


def _link_info(link: Link) -> Iterator[bytes]:
    """Yield kind and data of a new device."""
    yield text(uapi.IFLA_INFO_KIND, link.kind)
    if link.kind == "veth" and link.peer:
        peer = _ANY_LINK + text(uapi.IFLA_IFNAME, link.peer)
        yield nest(uapi.IFLA_INFO_DATA, attr(uapi.VETH_INFO_PEER, peer))
    elif link.kind == "vxlan":
        port = int(str(link.options.get("dstport", 4789)))
        rows = [attr(uapi.IFLA_VXLAN_PORT, struct.pack(">H", port))]
        if link.options.get("external"):
            rows += [attr(uapi.IFLA_VXLAN_COLLECT_METADATA, b"\1"), attr(uapi.IFLA_VXLAN_LEARNING, b"\0")]
        if "id" in link.options:
            rows.append(u32(uapi.IFLA_VXLAN_ID, int(str(link.options["id"]))))
        yield nest(uapi.IFLA_INFO_DATA, *rows)


def _read_link(raw: bytes, names: Names) -> Link:
    """Return the device of one message."""
    _, kind, index, flags, _ = _IFINFO.unpack_from(raw)
    found = attrs(raw[_IFINFO.size :])
    info = attrs(found.get(uapi.IFLA_LINKINFO, b""))
    name, peer_index = string(found.get(uapi.IFLA_IFNAME)), number(found.get(uapi.IFLA_LINK))
    sort = string(info.get(uapi.IFLA_INFO_KIND)) or ("lo" if kind == 772 else "ether")
    peer = names.name(peer_index) if sort == "veth" and peer_index else ""
    return Link(
        name=name,
        index=index,
        kind=sort,
        address=found.get(uapi.IFLA_ADDRESS, b"").hex(":"),
        mtu=number(found.get(uapi.IFLA_MTU)),
        up=bool(flags & uapi.IFF_UP),
        peer=peer,
        peer_index=peer_index if peer else 0,
        qdisc=string(found.get(uapi.IFLA_QDISC)),
    )

"""Devices on rtnetlink's wire.

Source:  include/uapi/linux/if_link.h; ip-link(8).
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

from tcbpf.control.attributes import attr, attrs, nest, number, string, text, u32
from tcbpf.control.objects import Link
from tcbpf.control.request import Op
from tcbpf.datapath.kernel.names import ANY_LINK, IFINFO, Names
from tcbpf.datapath.kernel.netlink import FLAGS, Rtnetlink
from tcbpf.errors import NotSupported, TcError
from tcbpf.tc.kinds.device import DEVICES, ETHER, LOOPBACK, kind_of
from tcbpf.uapi import netlink as uapi
from tcbpf.uapi.packet import ARPHRD_LOOPBACK


def apply(rtnl: Rtnetlink, op: Op, link: Link, asked: str) -> tuple[Link, ...]:
    """Do one request on a device."""
    names = Names(rtnl)
    if op in (Op.SHOW, Op.GET):
        if link.name:
            names.index(link.name)
        rows = rtnl.ask(uapi.RTM_GETLINK, uapi.NLM_F_DUMP, ANY_LINK, asked=asked)
        found = tuple(_read(raw, names) for _, raw in rows)
        return tuple(row for row in found if link.name in ("", row.name))
    if op is Op.DELETE:
        rtnl.ask(uapi.RTM_DELLINK, 0, IFINFO.pack(0, 0, names.index(link.name), 0, 0), asked=asked)
        return ()
    up = uapi.IFF_UP if link.up else 0
    if op is Op.CHANGE:
        head, rest = IFINFO.pack(0, 0, names.index(link.name), up, uapi.IFF_UP), b"".join(_values(link))
    else:
        head = IFINFO.pack(0, 0, 0, up, up)
        rest = b"".join([text(uapi.IFLA_IFNAME, link.name), *_values(link), nest(uapi.IFLA_LINKINFO, *_info(link))])
    try:
        rtnl.ask(uapi.RTM_NEWLINK, FLAGS[op], head + rest, asked=asked)
    except TcError as error:
        if error.errno == errno.EOPNOTSUPP:
            raise NotSupported(f"this kernel has no {link.kind} devices") from None
        raise
    return ()


def _values(link: Link) -> Iterator[bytes]:
    """Yield the attributes that a new and a changed device share."""
    if renamed := link.options.get("name"):
        yield text(uapi.IFLA_IFNAME, str(renamed))
    if link.mtu:
        yield u32(uapi.IFLA_MTU, link.mtu)
    if link.address:
        yield attr(uapi.IFLA_ADDRESS, bytes.fromhex(link.address.replace(":", "")))


def _info(link: Link) -> Iterator[bytes]:
    """Yield kind and data of a new device."""
    yield text(uapi.IFLA_INFO_KIND, link.kind)
    if rows := kind_of(link).pack(link):
        yield nest(uapi.IFLA_INFO_DATA, *rows)


def _read(raw: bytes, names: Names) -> Link:
    """Return the device of one message."""
    _, kind, index, flags, _ = IFINFO.unpack_from(raw)
    found = attrs(raw[IFINFO.size :])
    info = attrs(found.get(uapi.IFLA_LINKINFO, b""))
    name, peer_index = string(found.get(uapi.IFLA_IFNAME)), number(found.get(uapi.IFLA_LINK))
    sort = string(info.get(uapi.IFLA_INFO_KIND)) or (LOOPBACK if kind == ARPHRD_LOOPBACK else ETHER).name
    known = DEVICES.get(sort, ETHER)
    peer = names.name(peer_index) if known.paired and peer_index else ""
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

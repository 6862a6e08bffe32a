"""Every kind of network device, one row each.

Source:  drivers/net/{dummy,ifb,loopback,veth}.c, drivers/net/vxlan/ (v6.18); ip-link(8).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from tcbpf.control.attributes import attr, text, u32
from tcbpf.control.objects import TX_QUEUE_LEN, Link
from tcbpf.uapi import netlink as uapi

_IFINFO_SIZE = 16  # of struct ifinfomsg


@dataclass(frozen=True, slots=True)
class DeviceKind:
    """One kind of device.

    user      tells whether the user datapath makes such devices.
    paired    tells whether there are two, each the other's peer.
    fixed     tells whether it is always there, and is neither made nor removed.
    min_mtu, max_mtu  bound its MTU on the user datapath, 0 for no bound.
    flags     are those that ip(8) prints before the states.
    pack      returns the attributes of IFLA_INFO_DATA of a new one.
    """

    name: str
    user: bool = False
    paired: bool = False
    fixed: bool = False
    min_mtu: int = 0
    max_mtu: int = 65535
    flags: tuple[str, ...] = ("BROADCAST", "MULTICAST")
    tx_queue_len: int = TX_QUEUE_LEN
    pack: Callable[[Link], list[bytes]] = lambda link: []


def pack_veth(link: Link) -> list[bytes]:
    """Return the name of the peer, when it is said."""
    return [attr(uapi.VETH_INFO_PEER, bytes(_IFINFO_SIZE) + text(uapi.IFLA_IFNAME, link.peer))] if link.peer else []


def pack_vxlan(link: Link) -> list[bytes]:
    """Return port and id, or that each packet brings its own."""
    rows = [attr(uapi.IFLA_VXLAN_PORT, struct.pack(">H", int(str(link.options.get("dstport", 4789)))))]
    if link.options.get("external"):
        rows += [attr(uapi.IFLA_VXLAN_COLLECT_METADATA, b"\1"), attr(uapi.IFLA_VXLAN_LEARNING, b"\0")]
    if "id" in link.options:
        rows.append(u32(uapi.IFLA_VXLAN_ID, int(str(link.options["id"]))))
    return rows


LOOPBACK = DeviceKind("lo", fixed=True, max_mtu=0, flags=("LOOPBACK",))
ETHER = DeviceKind("ether")  # of hardware, and what is not known here

DEVICES = {
    kind.name: kind
    for kind in (
        LOOPBACK,
        ETHER,
        DeviceKind("dummy", user=True, max_mtu=0, flags=("BROADCAST", "NOARP")),
        DeviceKind("veth", user=True, paired=True, min_mtu=68, pack=pack_veth),
        DeviceKind("ifb", user=True, min_mtu=68, flags=("BROADCAST", "NOARP"), tx_queue_len=32),
        DeviceKind("vxlan", pack=pack_vxlan),
    )
}


def kind_of(link: Link) -> DeviceKind:
    """Return the kind of a device."""
    return DEVICES.get(link.kind, ETHER)

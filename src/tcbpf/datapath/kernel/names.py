"""Device names and indices of a network namespace.

Source:  include/uapi/linux/rtnetlink.h, if_link.h.
"""

from __future__ import annotations

import errno
import struct

from tcbpf.control.attributes import attrs, string, text
from tcbpf.datapath.kernel.netlink import Rtnetlink
from tcbpf.errors import TcError
from tcbpf.uapi import netlink as uapi

IFINFO = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change
ANY_LINK = IFINFO.pack(0, 0, 0, 0, 0)


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
            (_, raw), *_ = self.rtnl.ask(uapi.RTM_GETLINK, 0, ANY_LINK + text(uapi.IFLA_IFNAME, name), asked="find device")
        except TcError as error:
            if error.errno in (errno.ENODEV, errno.ERANGE, errno.EINVAL):
                raise TcError(errno.ENODEV, f"find device {name}", f'Cannot find device "{name}"') from None
            raise
        return int(IFINFO.unpack_from(raw)[2])

    def name(self, index: int) -> str:
        """Return the name of a device index, or "if" and the number for one that went away."""
        if self._by_index is None:
            rows = self.rtnl.ask(uapi.RTM_GETLINK, uapi.NLM_F_DUMP, ANY_LINK, asked="list devices")
            found = ((IFINFO.unpack_from(raw)[2], attrs(raw[IFINFO.size :])) for _, raw in rows)
            self._by_index = {number: string(values.get(uapi.IFLA_IFNAME)) for number, values in found}
        return self._by_index.get(index, f"if{index}")

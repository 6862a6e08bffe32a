"""Which datapath a command gets: --datapath, TCBPF_DATAPATH, or user."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tcbpf.errors import InputError

if TYPE_CHECKING:
    from tcbpf.datapath.base import Datapath


def open_datapath(name: str = "", *, home: str = "") -> Datapath:
    """Return the datapath `name` ("user", "kernel", or "" for the environment's choice).

    Raises:  InputError for another name; NotSupported or SysError when the kernel's cannot be had.
    """
    name = name or os.environ.get("TCBPF_DATAPATH", "") or "user"
    if name == "user":
        from tcbpf.datapath.user import User
        return User(home=home)
    if name == "kernel":
        from tcbpf.datapath.kernel import Kernel
        return Kernel()
    raise InputError(f"no datapath {name!r}", hint="user or kernel")

"""Choose a command's datapath: --datapath, TCBPF_DATAPATH, or user."""

from __future__ import annotations

import os

from tcbpf.errors import InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tcbpf.datapath.base import Datapath


def open_datapath(name: str = "", *, home: str = "", netns: str = "", lasting: bool = False) -> Datapath:
    """Return the datapath `name` ("user", "kernel", or "" for the environment's choice).

    `home` is the user datapath's directory, `netns` the network namespace that the kernel's acts in. A `lasting`
    datapath without a home keeps its state in the user's own; another is gone when it is closed.

    Raises:  InputError for another name, or a namespace where there are none.
    """
    name = chosen_name(name)
    if name == "user":
        if netns:
            raise InputError(
                f"network namespace {netns!r}: only the kernel datapath has them",
                hint="--datapath kernel, or --home DIR for devices of their own",
            )
        from tcbpf.datapath.user import User

        return User(home=home or (default_home() if lasting else ""))
    if name == "kernel":
        from tcbpf.datapath.kernel import Kernel

        return Kernel(netns=netns)
    raise InputError(f"no datapath {name!r}", hint="user or kernel")


def default_home() -> str:
    """Return the directory of the user datapath's lasting state: TCBPF_HOME, else the user's state directory."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.environ.get("TCBPF_HOME") or os.path.join(state, "tcbpf")


def chosen_name(name: str = "") -> str:
    """Return the datapath's name that `name` (from --datapath), else the environment, chooses."""
    return name or os.environ.get("TCBPF_DATAPATH", "") or "user"

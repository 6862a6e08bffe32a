"""The live Linux kernel as a datapath: bpf(2) and rtnetlink.

What a method needs is imported when it is called: a `tc qdisc show` has no use for maps, programs and objects.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from tcbpf.errors import SysError

if TYPE_CHECKING:
    from tcbpf.control.objects import TcObject
    from tcbpf.control.request import Request
    from tcbpf.datapath.base import Prog, Run
    from tcbpf.datapath.kernel.netlink import Rtnetlink
    from tcbpf.datapath.kernel.progs import KernelProg
    from tcbpf.datapath.loader import Loaded
    from tcbpf.maps.map import Map
    from tcbpf.obj.program import MapSpec, Object, Program


class Kernel:
    """The live kernel. `netns` names the network namespace (as in /var/run/netns, or a path) that `apply` acts in.

    Raises:  SysError with EPERM where privilege is missing, saying which.
    """

    name = "kernel"

    def __init__(self, *, netns: str = "") -> None:
        self.netns = netns or os.environ.get("TCBPF_NETNS", "")
        self.warnings: list[str] = []  # the kernel's sentences beside a success, until read
        self._loaded: list[tuple[Object, Loaded]] = []
        self._rtnl: Rtnetlink | None = None

    @property
    def maps(self) -> Mapping[str, Map]:
        """The maps made or adopted by `load`, by name."""
        return {name: found for _, loaded in self._loaded for name, found in loaded.maps.items()}

    def load(self, obj: Object, *, section: str = "", program: str = "", pin_root: str = "") -> Prog:
        """Link one program of `obj` and load it; programs of one Object share its maps."""
        from tcbpf.datapath.loader import load

        shared = {name: found for known, loaded in self._loaded if known is obj for name, found in loaded.maps.items()}
        loaded = load(self, obj, section=section, program=program, pin_root=pin_root, maps=shared)
        self._loaded.append((obj, loaded))
        return loaded.prog

    def map_create(self, spec: MapSpec) -> Map:
        """Make a map."""
        from tcbpf.datapath.kernel.maps import create
        from tcbpf.maps.map import Map

        return Map(create(spec))

    def prog_load(self, program: Program, *, log_level: int = 0) -> KernelProg:
        """Verify and load a program; maps that are still specifications are made."""
        from tcbpf.datapath.kernel.progs import load
        from tcbpf.datapath.loader import new_map
        from tcbpf.maps.map import Map

        live = [entry if isinstance(entry, Map) else new_map(self, entry.spec) for entry in program.maps]
        return load(program, live, log_level=log_level)

    def prog_run(self, prog: Prog, packet: bytes, ctx: Mapping[str, Any] | None = None, repeat: int = 1) -> Run:
        """Run a program on one packet."""
        return prog.run(packet, ctx, repeat)

    def obj_pin(self, path: str, obj: Map | Prog) -> None:
        """Pin a map or a program below the bpf fs, which is mounted when it is not."""
        from tcbpf.datapath.kernel import bpffs, syscall
        from tcbpf.maps.map import Map

        bpffs.prepare(path)
        syscall.obj_pin(obj.raw.fileno() if isinstance(obj, Map) else obj.fileno(), path)

    def obj_unpin(self, path: str) -> None:
        """Remove a pin."""
        try:
            os.unlink(path)
        except OSError as error:
            raise SysError(error.errno or errno.EIO, f"unpin {path}") from None

    def obj_get(self, path: str) -> Map | Prog:
        """Open what is pinned at `path`."""
        from tcbpf.datapath.kernel import bpffs, syscall
        from tcbpf.datapath.kernel.maps import adopt
        from tcbpf.datapath.kernel.progs import KernelProg
        from tcbpf.maps.map import Map

        fd = syscall.obj_get(path)
        kind = bpffs.kind_of(fd)
        if kind == "map":
            return Map(adopt(fd))
        if kind == "prog":
            return KernelProg(fd)
        os.close(fd)
        raise SysError(errno.EINVAL, f"open a pin {path}", f"it is a {kind}, neither a map nor a program")

    def apply(self, request: Request) -> tuple[TcObject, ...]:
        """Do one request of traffic control or on a device, through rtnetlink."""
        from tcbpf.datapath.kernel import rtnl
        from tcbpf.datapath.kernel.netlink import Rtnetlink

        if self._rtnl is None:
            self._rtnl = Rtnetlink(self.netns, self.warnings)
        return rtnl.apply(self._rtnl, request)

    def progs(self) -> Sequence[KernelProg]:
        """Return all programs of the kernel."""
        from tcbpf.datapath.kernel import syscall
        from tcbpf.datapath.kernel.progs import KernelProg
        from tcbpf.uapi import bpf as uapi

        return [KernelProg(fd) for fd in syscall.open_all(uapi.BPF_PROG_GET_NEXT_ID, uapi.BPF_PROG_GET_FD_BY_ID)]

    def all_maps(self) -> Sequence[Map]:
        """Return all maps of the kernel."""
        from tcbpf.datapath.kernel import syscall
        from tcbpf.datapath.kernel.maps import adopt
        from tcbpf.maps.map import Map
        from tcbpf.uapi import bpf as uapi

        return [Map(adopt(fd)) for fd in syscall.open_all(uapi.BPF_MAP_GET_NEXT_ID, uapi.BPF_MAP_GET_FD_BY_ID)]

    def trace_pipe(self) -> Iterator[str]:
        """Yield what bpf_trace_printk() writes, line by line, of the whole machine."""
        from tcbpf.datapath.kernel.trace import trace_pipe

        return trace_pipe()

    def close(self) -> None:
        """Drop what only this object holds."""
        for _, loaded in self._loaded:
            for prog in (loaded.prog, *loaded.tails.values()):
                prog.close()
            for found in loaded.maps.values():
                found.raw.close()
        self._loaded.clear()
        if self._rtnl is not None:
            self._rtnl.close()
            self._rtnl = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

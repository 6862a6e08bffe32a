"""The live Linux kernel as a datapath: bpf(2) and rtnetlink.

Methods import their modules when they are called: `tc qdisc show` needs no maps, programs or objects.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tcbpf.datapath.loading import Loading
from tcbpf.errors import InputError, SysError, TcError

if TYPE_CHECKING:
    from tcbpf.control.objects import TcObject
    from tcbpf.control.request import Request
    from tcbpf.datapath.base import Prog, Replayed
    from tcbpf.datapath.kernel.maps import KernelMap
    from tcbpf.datapath.kernel.netlink import Rtnetlink
    from tcbpf.datapath.kernel.progs import KernelProg
    from tcbpf.maps.map import Map
    from tcbpf.obj.program import MapSpec, Program


class Kernel(Loading["KernelProg"]):
    """The live kernel. `netns` names the network namespace (as in /var/run/netns, or a path) that `apply` acts in.

    Raises:  SysError with EPERM where privilege is missing, saying which.
    """

    name = "kernel"

    def __init__(self, *, netns: str = "") -> None:
        super().__init__()
        self.netns = netns or os.environ.get("TCBPF_NETNS", "")
        self._rtnl: Rtnetlink | None = None

    def _create(self, spec: MapSpec) -> KernelMap:
        from tcbpf.datapath.kernel.maps import create

        return create(spec)

    def _load(self, program: Program, log_level: int) -> KernelProg:
        from tcbpf.datapath.kernel.progs import load
        from tcbpf.maps.map import Map

        return load(program, [entry for entry in program.maps if isinstance(entry, Map)], log_level=log_level)

    def obj_pin(self, path: str, obj: Map | Prog) -> None:
        """Pin a map or a program below the bpf fs, which is mounted when it is not."""
        from tcbpf.datapath.kernel import bpffs, syscall
        from tcbpf.maps.map import Map

        self.check_open()
        bpffs.prepare(path)
        syscall.obj_pin(obj.raw.fileno() if isinstance(obj, Map) else obj.fileno(), path)

    def obj_unpin(self, path: str) -> None:
        """Remove a pin.

        Raises:  SysError: EACCES for a file outside of a bpf fs; ENOENT.
        """
        from tcbpf.datapath.kernel import bpffs

        self.check_open()
        if os.path.lexists(path) and not bpffs.is_bpffs(os.path.dirname(path) or "."):
            raise SysError(errno.EACCES, f"unpin {path}", "it is not a pin: no bpf fs is there")
        try:
            os.unlink(path)
        except OSError as error:
            raise SysError(error.errno or errno.EIO, f"unpin {path}") from None

    def obj_get(self, path: str) -> Map | Prog:
        """Open the map or program pinned at `path`."""
        from tcbpf.datapath.kernel import bpffs, syscall
        from tcbpf.datapath.kernel.maps import adopt
        from tcbpf.datapath.kernel.progs import KernelProg
        from tcbpf.maps.map import Map

        self.check_open()
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

        self.check_open()
        if self._rtnl is None:
            self._rtnl = Rtnetlink(self.netns, self.warnings)
        try:
            return rtnl.apply(self._rtnl, request)
        except TcError as error:
            if error.errno == errno.EPERM and os.geteuid() != 0:
                error.hint = "It takes root or CAP_NET_ADMIN; --datapath user takes neither."
            raise

    def replay(self, path: str, dev: str, *, ingress: bool, out: str | None = None, limit: int = 0) -> Replayed:
        """Refuse: the kernel's devices take packets, not captures.

        Raises:  InputError.
        """
        raise InputError(
            "a replay drives devices of the user datapath",
            where="replay",
            hint="--datapath user; on the kernel, send the packets with a tool such as tcpreplay",
        )

    def map_by_id(self, id: int) -> Map:
        """Open the map of a number.

        Raises:  SysError with ENOENT.
        """
        from tcbpf.datapath.kernel import syscall
        from tcbpf.datapath.kernel.maps import adopt
        from tcbpf.maps.map import Map
        from tcbpf.uapi import bpf as uapi

        self.check_open()
        return Map(adopt(syscall.fd_by_id(uapi.BPF_MAP_GET_FD_BY_ID, id)))

    def prog_by_id(self, id: int) -> KernelProg:
        """Open the program of a number.

        Raises:  SysError with ENOENT.
        """
        from tcbpf.datapath.kernel import syscall
        from tcbpf.datapath.kernel.progs import KernelProg
        from tcbpf.uapi import bpf as uapi

        self.check_open()
        return KernelProg(syscall.fd_by_id(uapi.BPF_PROG_GET_FD_BY_ID, id))

    def progs(self) -> Sequence[KernelProg]:
        """Return all programs of the kernel."""
        from tcbpf.datapath.kernel import syscall
        from tcbpf.datapath.kernel.progs import KernelProg
        from tcbpf.uapi import bpf as uapi

        self.check_open()
        return [KernelProg(fd) for fd in syscall.open_all(uapi.BPF_PROG_GET_NEXT_ID, uapi.BPF_PROG_GET_FD_BY_ID)]

    def all_maps(self) -> Sequence[Map]:
        """Return all maps of the kernel."""
        from tcbpf.datapath.kernel import syscall
        from tcbpf.datapath.kernel.maps import adopt
        from tcbpf.maps.map import Map
        from tcbpf.uapi import bpf as uapi

        self.check_open()
        return [Map(adopt(fd)) for fd in syscall.open_all(uapi.BPF_MAP_GET_NEXT_ID, uapi.BPF_MAP_GET_FD_BY_ID)]

    def trace_pipe(self) -> Iterator[str]:
        """Yield the lines of bpf_trace_printk() of the whole machine as they come."""
        from tcbpf.datapath.kernel.trace import trace_pipe

        self.check_open()
        return trace_pipe()

    def close(self) -> None:
        """Drop the objects that only this datapath holds."""
        super().close()
        if self._rtnl is not None:
            self._rtnl.close()
            self._rtnl = None

"""The user datapath: the kernel side, whole, in this process, without root.

Without a home it lives and dies with the object. With one it is a directory that processes share:

    state.db    devices, qdiscs, classes, filters, actions, and the numbers given out
    maps/N      the file of map N, mapped by whoever uses it
    progs/N     the file of program N
    bpf/        the bpf fs; a pin is a hard link
    trace       lines of bpf_trace_printk() that are still to be read
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcbpf.datapath.loading import Loading
from tcbpf.datapath.user.store import FileStore, MemoryStore, Store
from tcbpf.datapath.user.temp_home import TempHome
from tcbpf.errors import InputError, SysError
from tcbpf.maps.map import Map
from tcbpf.tables.opcodes import LD_IMM64, PSEUDO_MAP_FD, PSEUDO_MAP_IDX, PSEUDO_MAP_IDX_VALUE, PSEUDO_MAP_VALUE

if TYPE_CHECKING:
    from tcbpf.control.objects import Bpf, TcObject
    from tcbpf.control.request import Request
    from tcbpf.datapath.base import Prog, Replayed
    from tcbpf.datapath.user.maps import UserMap
    from tcbpf.datapath.user.objects import Objects
    from tcbpf.datapath.user.prog import UserProg
    from tcbpf.datapath.user.runtime import Runtime
    from tcbpf.obj.program import HasSpec, MapSpec, Program
    from tcbpf.tc.state import State
    from tcbpf.vm.executable import Options


class User(Loading["UserProg"]):
    """The kernel side in this process; `home` (or TCBPF_HOME) names a directory whose state outlives it.

    Raises:  SysError when the home cannot be used.
    """

    name = "user"

    def __init__(self, home: str = "", *, options: Options | None = None) -> None:
        super().__init__()
        home = home or os.environ.get("TCBPF_HOME", "")
        self._options, self._home, self._temp_home = options, home, TempHome()
        self.store: Store = open_store(Path(home)) if home else MemoryStore()

    @cached_property
    def home(self) -> Path:
        """The directory of maps, programs, pins and trace."""
        return Path(self._home) if self._home else self._temp_home.path

    @cached_property
    def options(self) -> Options:
        """The options to compile programs with; from the environment when none were given."""
        from tcbpf.vm.executable import Options

        return self._options or Options.from_environment()

    @cached_property
    def objects(self) -> Objects:
        """The maps and programs."""
        from tcbpf.datapath.user.objects import Objects

        return Objects(self.home, self.store)

    @cached_property
    def runtime(self) -> Runtime:
        """The services for running programs."""
        from tcbpf.datapath.user.runtime import Runtime
        from tcbpf.native.library import constant

        return Runtime(self.home, {constant("HOST_PROG"): self._open_called, constant("HOST_MAP"): self._open_inner})

    def _open_called(self, id: int) -> tuple[int, UserProg]:
        """Open a program that another one tail-calls, and compile it; address 0 when no engine runs its type."""
        from tcbpf.datapath.user.prog import runs_here

        found = self.prog_by_id(id)
        return (found.executable.address if runs_here(found.type) else 0), found

    def _open_inner(self, id: int) -> tuple[int, UserMap]:
        """Open a map that a running program found in a map of maps."""
        found = self.objects.open_map(id)
        return found.file.address, found

    def _create(self, spec: MapSpec) -> UserMap:
        return self.objects.create_map(spec)

    def _load(self, program: Program, log_level: int) -> UserProg:
        from tcbpf.datapath.user.prog import UserProg

        program = self._by_index(program)
        for entry in program.maps:
            self._check_own(program, entry)
        return UserProg.load(self.objects, self.runtime, self.options, program, log_level)

    def _by_index(self, program: Program) -> Program:
        """Return the program with the maps that it names by descriptor (BPF_LD_MAP_FD) among its maps; other numbers stay."""
        index = {PSEUDO_MAP_FD: PSEUDO_MAP_IDX, PSEUDO_MAP_VALUE: PSEUDO_MAP_IDX_VALUE}
        insns, maps, places = list(program.insns), list(program.maps), dict[int, int]()
        for pc, insn in enumerate(insns):
            if insn.code != LD_IMM64 or insn.src not in index:
                continue
            if insn.imm not in places:
                with contextlib.suppress(OSError, InputError):
                    fd = os.open(f"/proc/self/fd/{insn.imm}", os.O_RDWR | os.O_CLOEXEC)  # its own: the program is no user
                    maps.append(Map(self.objects.adopt_map(fd)))
                    places[insn.imm] = len(maps) - 1
            if insn.imm in places:
                insns[pc] = insn._replace(src=index[insn.src], imm=places[insn.imm])
        return replace(program, insns=tuple(insns), maps=tuple(maps)) if places else program

    def _check_own(self, program: Program, entry: HasSpec) -> None:
        from tcbpf.datapath.user.maps import UserMap

        if not isinstance(entry, Map) or not isinstance(entry.raw, UserMap):
            raise InputError(
                f"map {entry.spec.name} is not of the user datapath",
                where=program.name,
                hint="make it with map_create of the same datapath",
            )

    def obj_pin(self, path: str, obj: Map | Prog) -> None:
        """Pin a map or a program."""
        from tcbpf.datapath.user import bpffs

        self.check_open()
        bpffs.pin(self.objects.root, path, obj.raw.fileno() if isinstance(obj, Map) else obj.fileno())

    def obj_unpin(self, path: str) -> None:
        """Remove a pin."""
        from tcbpf.datapath.user import bpffs

        self.check_open()
        bpffs.unpin(self.objects.root, path, self.objects.is_object)
        self.objects.empty(*self.objects.maps.ids())

    def obj_get(self, path: str) -> Map | Prog:
        """Open the map or program pinned at `path`.

        Raises:  SysError: ENOENT; EACCES for a file that is neither a map nor a program.
        """
        from tcbpf.datapath.user import bpffs

        self.check_open()
        fd = bpffs.open_pin(self.objects.root, path)
        files = self.objects.progs if self.objects.is_program(fd) else self.objects.maps
        fd = files.hold(fd)
        try:
            return self._adopt_prog(fd) if files is self.objects.progs else Map(self.objects.adopt_map(fd))
        except InputError as error:
            raise SysError(errno.EACCES, f"open {path}", error.what) from None

    def map_by_id(self, id: int) -> Map:
        """Open the map of a number.

        Raises:  SysError with ENOENT.
        """
        self.check_open()
        return Map(self.objects.open_map(id))

    def prog_by_id(self, id: int) -> UserProg:
        """Open the program of a number.

        Raises:  SysError with ENOENT.
        """
        self.check_open()
        return self._adopt_prog(self.objects.progs.open(id))

    def _adopt_prog(self, fd: int) -> UserProg:
        from tcbpf.datapath.user.prog import UserProg

        return UserProg.adopt(self.objects, self.runtime, self.options, fd)

    def apply(self, request: Request) -> tuple[TcObject, ...]:
        """Do one request of traffic control or on a device, all of it or nothing."""
        from tcbpf.datapath.user.attach import apply

        self.check_open()
        return apply(self.store, self._described, request)

    def _described(self, options: Bpf, type: str) -> Bpf:
        from tcbpf.datapath.user.attach import described

        return described(self.objects, options, type, jited=self.options.engine == "jit")

    def replay(self, path: str, dev: str, *, ingress: bool, out: str | None = None, limit: int = 0) -> Replayed:
        """Receive (`ingress`) or transmit a capture's packets on a device, which counts as up.

        `out` names a directory for what reached each device's stack (DEV-ingress.pcapng) and what left it
        (DEV-egress.pcapng).

        Raises:  TcError with ENODEV; InputError for a damaged capture; OSError for a full disk, and then `out` has
                 nothing new.
        """
        from tcbpf.datapath.user.replay import Programs, send_capture

        self.check_open()
        programs = Programs(self.prog_by_id, self.prog_load)
        return send_capture(self.store, self.runtime, programs, path, dev, ingress=ingress, out=out, limit=limit)

    def progs(self) -> Sequence[UserProg]:
        """Return all programs of the home."""
        self.check_open()
        self._sweep()
        return [found for id in self.objects.progs.ids() if (found := self._if_there(self.prog_by_id, id)) is not None]

    def all_maps(self) -> Sequence[Map]:
        """Return all maps of the home."""
        self.check_open()
        self._sweep()
        return [found for id in self.objects.maps.ids() if (found := self._if_there(self.map_by_id, id)) is not None]

    @staticmethod
    def _if_there(open: Any, id: int) -> Any:
        with contextlib.suppress(SysError):
            return open(id)
        return None

    def state(self) -> State:
        """Return the current State of net/sched."""
        self.check_open()
        return self.store.read()

    def trace_pipe(self) -> Iterator[str]:
        """Yield the lines of bpf_trace_printk() as they come; a line is read once."""
        self.check_open()
        return self.runtime.trace.pipe()

    def close(self) -> None:
        """Drop the objects that only this datapath holds."""
        if self._closed:
            return
        super().close()
        if "runtime" in self.__dict__:
            self.runtime.close()
        if self._home:
            self._sweep()
        self._temp_home.remove()
        self.store.close()

    def _sweep(self) -> None:
        """Remove the objects that nothing holds; do nothing in a home that has none."""
        if "objects" in self.__dict__ or (self.home / "progs").exists() or (self.home / "maps").exists():
            self.objects.sweep()


def open_store(home: Path) -> Store:
    """Return the store of a home, which is made when it is not there.

    Raises:  SysError.
    """
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise SysError(error.errno or errno.EIO, f"home {home}") from None
    return FileStore(home / "state.db")

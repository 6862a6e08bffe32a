"""The user datapath: the whole kernel side in this process, without root.

Without a home it lives and dies with the object. With one it is a directory that processes share:

    state.db    devices, qdiscs, classes, filters, actions, and the numbers given out
    maps/N      the file of map N, mapped by whoever uses it
    progs/N     the file of program N
    bpf/        the bpf fs; a pin is a hard link
    trace       what bpf_trace_printk() wrote and nobody has read
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tcbpf.datapath import loader
from tcbpf.datapath.base import Prog, Run
from tcbpf.datapath.user import temp_home as private
from tcbpf.datapath.user.store import FileStore, MemoryStore, Store
from tcbpf.errors import InputError, SysError
from tcbpf.maps.map import Map
from tcbpf.obj.program import MapSpec, Object, Program

if TYPE_CHECKING:
    from tcbpf.control.objects import TcObject
    from tcbpf.control.request import Request
    from tcbpf.datapath.user.host import Host
    from tcbpf.datapath.user.objects import Objects
    from tcbpf.datapath.user.prog import UserProg
    from tcbpf.tc.state import State
    from tcbpf.vm.executable import Options


class User:
    """The kernel side in this process; `home` (or TCBPF_HOME) names a directory whose state outlives it.

    Raises:  SysError when the home cannot be used.
    """

    name = "user"

    def __init__(self, home: str = "", *, options: Options | None = None) -> None:
        home = home or os.environ.get("TCBPF_HOME", "")
        self._options, self._home, self._private = options, home, private.Directory()
        self.store: Store = open_store(Path(home)) if home else MemoryStore()
        self._loaded: list[tuple[Object, loader.Loaded]] = []

    @cached_property
    def home(self) -> Path:
        """The directory of what is kept in files."""
        return Path(self._home) if self._home else self._private.path

    @cached_property
    def options(self) -> Options:
        """How programs are compiled: as the environment says, where nothing else does."""
        from tcbpf.vm.executable import Options

        return self._options or Options.from_environment()

    @cached_property
    def objects(self) -> Objects:
        """The maps and programs."""
        from tcbpf.datapath.user.objects import Objects

        return Objects(self.home, self.store)

    @cached_property
    def host(self) -> Host:
        """What running programs are given."""
        from tcbpf.datapath.user.host import Host

        return Host(self)

    @property
    def maps(self) -> Mapping[str, Map]:
        """The maps made or adopted by `load`, by name."""
        return {name: found for _, loaded in self._loaded for name, found in loaded.maps.items()}

    def load(self, obj: Object, *, section: str = "", program: str = "", pin_root: str = "") -> Prog:
        """Link one program of `obj` and load it; programs of one Object share its maps."""
        shared = {name: found for known, loaded in self._loaded if known is obj for name, found in loaded.maps.items()}
        loaded = loader.load(self, obj, section=section, program=program, pin_root=pin_root, maps=shared)
        self._loaded.append((obj, loaded))
        return loaded.prog

    def map_create(self, spec: MapSpec) -> Map:
        """Make a map.

        Raises:  MapError with the errno of bpf(BPF_MAP_CREATE).
        """
        return Map(self.objects.create_map(spec))

    def prog_load(self, program: Program, *, log_level: int = 0) -> UserProg:
        """Verify and keep a program; maps that are still specifications are made.

        Raises:  VerifierError; NotSupported, by name, for a helper that the runtime lacks.
        """
        from tcbpf.datapath.user.prog import UserProg

        program = self._by_index(program)
        live = tuple(
            self._live(program, entry if isinstance(entry, Map) else loader.new_map(self, entry.spec)) for entry in program.maps
        )
        return UserProg.load(self, replace(program, maps=live), log_level=log_level)

    def _by_index(self, program: Program) -> Program:
        """Return the program with the maps that it names by descriptor, BPF_LD_MAP_FD, among its maps; what is none stays."""
        from tcbpf.datapath.user import progfile as p

        index = {p.PSEUDO_MAP_FD: p.PSEUDO_MAP_IDX, p.PSEUDO_MAP_VALUE: p.PSEUDO_MAP_IDX_VALUE}
        insns, maps, places = list(program.insns), list(program.maps), dict[int, int]()
        for pc, insn in enumerate(insns):
            if insn.code != p.LD_IMM64 or insn.src not in index:
                continue
            if insn.imm not in places:
                with contextlib.suppress(OSError, InputError):
                    fd = os.open(f"/proc/self/fd/{insn.imm}", os.O_RDWR | os.O_CLOEXEC)  # its own: the program is no user
                    maps.append(Map(self.objects.adopt_map(fd)))
                    places[insn.imm] = len(maps) - 1
            if insn.imm in places:
                insns[pc] = insn._replace(src=index[insn.src], imm=places[insn.imm])
        return replace(program, insns=tuple(insns), maps=tuple(maps)) if places else program

    def _live(self, program: Program, entry: Map) -> Map:
        from tcbpf.datapath.user.maps import UserMap

        if not isinstance(entry.raw, UserMap):
            raise InputError(
                f"map {entry.spec.name} is not of the user datapath",
                where=program.name,
                hint="make it with map_create of the same datapath",
            )
        return entry

    def prog_run(self, prog: Prog, packet: bytes, ctx: Mapping[str, Any] | None = None, repeat: int = 1) -> Run:
        """Run a program on one packet."""
        return prog.run(packet, ctx, repeat)

    def obj_pin(self, path: str, obj: Map | Prog) -> None:
        """Pin a map or a program."""
        from tcbpf.datapath.user import bpffs

        bpffs.pin(self.objects.root, path, obj.raw.fileno() if isinstance(obj, Map) else obj.fileno())

    def obj_unpin(self, path: str) -> None:
        """Remove a pin."""
        from tcbpf.datapath.user import bpffs

        bpffs.unpin(self.objects.root, path)
        self.objects.empty(*self.objects.maps.ids())

    def obj_get(self, path: str) -> Map | Prog:
        """Open what is pinned at `path`.

        Raises:  SysError: ENOENT; EACCES for a file that is neither a map nor a program.
        """
        from tcbpf.datapath.user import bpffs
        from tcbpf.datapath.user.prog import UserProg

        fd = bpffs.open_pin(self.objects.root, path)
        shelf = self.objects.progs if self.objects.is_program(fd) else self.objects.maps
        fd = shelf.hold(fd)
        try:
            return UserProg.adopt(self, fd) if shelf is self.objects.progs else Map(self.objects.adopt_map(fd))
        except InputError as error:
            raise SysError(errno.EACCES, f"open {path}", error.what) from None

    def map_by_id(self, id: int) -> Map:
        """Open the map of a number.

        Raises:  SysError with ENOENT.
        """
        return Map(self.objects.open_map(id))

    def prog_by_id(self, id: int) -> UserProg:
        """Open the program of a number.

        Raises:  SysError with ENOENT.
        """
        from tcbpf.datapath.user.prog import UserProg

        return UserProg.adopt(self, self.objects.progs.open(id))

    def apply(self, request: Request) -> tuple[TcObject, ...]:
        """Do one request of traffic control or on a device, all of it or nothing."""
        from tcbpf.datapath.user.attach import apply

        return apply(self, request)

    def progs(self) -> Sequence[UserProg]:
        """Return all programs of the home."""
        self._sweep()
        return [found for id in self.objects.progs.ids() if (found := self._if_there(self.prog_by_id, id)) is not None]

    def all_maps(self) -> Sequence[Map]:
        """Return all maps of the home."""
        self._sweep()
        return [found for id in self.objects.maps.ids() if (found := self._if_there(self.map_by_id, id)) is not None]

    @staticmethod
    def _if_there(open: Any, id: int) -> Any:
        with contextlib.suppress(SysError):
            return open(id)
        return None

    def state(self) -> State:
        """Return what net/sched knows now."""
        return self.store.read()

    def trace_pipe(self) -> Iterator[str]:
        """Yield what bpf_trace_printk() writes, line by line; a line is read once."""
        return self.host.trace.pipe()

    def close(self) -> None:
        """Drop what only this object holds."""
        for _, loaded in self._loaded:
            for prog in (loaded.prog, *loaded.tails.values()):
                prog.close()
            for found in loaded.maps.values():
                found.raw.close()
        self._loaded.clear()
        if "host" in self.__dict__:
            self.host.close()
        if self._home:
            self._sweep()
        self._private.remove()
        self.store.close()

    def _sweep(self) -> None:
        """Remove what nothing holds any more, where there are objects at all."""
        if "objects" in self.__dict__ or (self.home / "progs").exists() or (self.home / "maps").exists():
            self.objects.sweep()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def open_store(home: Path) -> Store:
    """Return the store of a home, which is made when it is not there.

    Raises:  SysError.
    """
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise SysError(error.errno or errno.EIO, f"home {home}") from None
    return FileStore(home / "state.db")

"""Loading, the same on both datapaths: make maps with their contents, load objects, and drop them at the end."""

from __future__ import annotations

import errno
from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from tcbpf.errors import SysError

if TYPE_CHECKING:
    from tcbpf.datapath.base import Prog, Run
    from tcbpf.datapath.loader import Loaded
    from tcbpf.maps.map import Map, RawMap
    from tcbpf.obj.program import MapSpec, Object, Program

P = TypeVar("P", bound="Prog")


class Loading(Generic[P]):
    """The part of a datapath that is the same whatever its kernel. P is its class of programs.

    Imports stand in the methods: a command that only asks for qdiscs has no use for maps, programs and objects.
    """

    name: str

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self._loaded: list[tuple[Object, Loaded[P]]] = []
        self._closed = False

    def check_open(self) -> None:
        """Refuse a call after `close`.

        Raises:  SysError with EBADF.
        """
        if self._closed:
            raise SysError(errno.EBADF, f"use the {self.name} datapath", "it was closed")

    @abstractmethod
    def _create(self, spec: MapSpec) -> RawMap:
        """Make an empty map."""

    @abstractmethod
    def _load(self, program: Program, log_level: int) -> P:
        """Verify, compile and keep a program over live maps."""

    @abstractmethod
    def obj_pin(self, path: str, obj: Map | Prog) -> None:
        """Pin a map or a program."""

    @abstractmethod
    def obj_get(self, path: str) -> Map | Prog:
        """Open the map or program pinned at `path`."""

    @property
    def maps(self) -> Mapping[str, Map]:
        """The maps made or adopted by `load`, by name."""
        return {name: found for _, loaded in self._loaded for name, found in loaded.maps.items()}

    def load(self, obj: Object, *, section: str = "", program: str = "", pin_root: str = "") -> P:
        """Link one program of `obj` and load it; programs of one Object share its maps."""
        from tcbpf.datapath.loader import load

        self.check_open()
        shared = {name: found for known, loaded in self._loaded if known is obj for name, found in loaded.maps.items()}
        loaded = load(self, obj, section=section, program=program, pin_root=pin_root, maps=shared)
        self._loaded.append((obj, loaded))
        self._forget()
        return loaded.prog

    def _forget(self) -> None:
        """Let go of programs that were closed and whose maps others of their names have replaced in `maps`."""
        kept, names = list[tuple["Object", "Loaded[P]"]](), set[str]()
        for obj, loaded in reversed(self._loaded):
            if loaded.prog.fileno() >= 0 or not loaded.maps.keys() <= names:
                kept.append((obj, loaded))
            names |= loaded.maps.keys()
        self._loaded = kept[::-1]

    def map_create(self, spec: MapSpec) -> Map:
        """Make a map with its initial contents, frozen where the specification says so.

        Raises:  MapError with the errno of bpf(BPF_MAP_CREATE).
        """
        from tcbpf.maps.map import Map

        self.check_open()
        made = Map(self._create(spec))
        if spec.contents is not None:
            made.raw.update(bytes(4), spec.contents.ljust(spec.value_size, b"\0"))
        if spec.frozen:
            made.raw.freeze()
        return made

    def prog_load(self, program: Program, *, log_level: int = 0) -> P:
        """Verify, compile and keep a program; maps that are still specifications are made.

        Raises:  VerifierError; NotSupported, by name, for a helper or an engine that is not there.
        """
        from dataclasses import replace

        from tcbpf.datapath.plan import sized
        from tcbpf.maps.map import Map

        self.check_open()
        live = tuple(entry if isinstance(entry, Map) else self.map_create(sized(entry.spec)) for entry in program.maps)
        return self._load(replace(program, maps=live), log_level)

    def prog_run(self, prog: P, packet: bytes, ctx: Mapping[str, Any] | None = None, repeat: int = 1) -> Run:
        """Run a program on one packet."""
        return prog.run(packet, ctx, repeat)

    def close(self) -> None:
        """Drop the programs and maps that were loaded."""
        self._closed = True
        for _, loaded in self._loaded:
            for prog in (loaded.prog, *loaded.tails.values()):
                prog.close()
            for found in loaded.maps.values():
                found.raw.close()
        self._loaded.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

"""The protocol between the front end and a kernel. `User` and `Kernel` implement it; nothing above asks which it has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Self

from tcbpf.datapath.result import PcapStats as PcapStats

if TYPE_CHECKING:
    from tcbpf.control.objects import TcObject
    from tcbpf.control.request import Request
    from tcbpf.maps.map import Map
    from tcbpf.obj.program import MapSpec, Object, Program


@dataclass(frozen=True, slots=True)
class Run:
    """The result of running a program once.

    Units:   duration_ns is the mean of `repeat` runs. ctx holds every field of __sk_buff that the datapath reports, by
             name; `verdict` is r0 as a signed 32-bit number.
    """

    verdict: int
    packet: bytes
    ctx: Mapping[str, Any] = field(default_factory=dict)
    duration_ns: int = 0


@dataclass(frozen=True)
class Replayed:
    """The result of a replay.

    Units:   verdicts counts packets by the TC_ACT that the device's hook ended with; `devices` has the counters of
             every device that a packet reached, by name; `lost` counts packets that reached no device, by cause.
    """

    packets: int
    bytes: int
    verdicts: Mapping[int, int]
    duration_ns: int
    devices: Mapping[str, Mapping[str, int]]
    lost: Mapping[str, int]


class Prog(Protocol):
    """A loaded program of a datapath: verified, and compiled where the datapath compiles."""

    @property
    def id(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def tag(self) -> bytes: ...
    @property
    def jited(self) -> bool: ...
    @property
    def maps(self) -> tuple[Map, ...]: ...
    @property
    def insns_processed(self) -> int: ...
    @property
    def log(self) -> str: ...
    def run(self, packet: bytes, ctx: Mapping[str, Any] | None = None, repeat: int = 1, *, timeout: float = 0) -> Run: ...
    def run_pcap(self, path: str, *, out: str | None = None, limit: int = 0, timeout: float = 0) -> PcapStats: ...
    def assembly(self) -> str:
        """Return the machine code that runs, in this processor's assembly text.

        Raises:  NotSupported for a program without machine code, or whose machine code cannot be read.
        """
        ...

    def fileno(self) -> int: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...


class Datapath(Protocol):
    """A kernel: maps, programs, pins and traffic control. A context manager; closing drops the objects that only it holds.

    Raises:  VerifierError from prog_load; MapError, TcError, SysError with the kernel's errno; NotSupported as probed.
    """

    name: str  # "user" or "kernel", for messages
    warnings: list[str]  # sentences beside a success, until they are read

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...

    @property
    def maps(self) -> Mapping[str, Map]:
        """The maps made or adopted by `load`, by name."""
        ...

    def load(self, obj: Object, *, section: str = "", program: str = "", pin_root: str = "") -> Prog:
        """Link one program of `obj` (by section or function name; the only one when neither is said) and load it.

        The work is `datapath.loader.load`'s, the same for both datapaths.
        """
        ...

    def map_create(self, spec: MapSpec) -> Map:
        """Make a map, with its initial contents, frozen where the specification says so."""
        ...

    def map_by_id(self, id: int) -> Map: ...
    def prog_load(self, program: Program, *, log_level: int = 0) -> Prog:
        """Verify and compile a program, and keep it; maps that are still specifications are made."""
        ...

    def prog_by_id(self, id: int) -> Prog: ...
    def prog_run(self, prog: Any, packet: bytes, ctx: Mapping[str, Any] | None = None, repeat: int = 1) -> Run: ...
    def obj_pin(self, path: str, obj: Map | Prog) -> None:
        """Pin an object; directories of the path that are missing are made.

        Paths are the kernel's words on both datapaths: /sys/fs/bpf/... names a place in the datapath's own bpf fs.
        """
        ...

    def obj_unpin(self, path: str) -> None:
        """Remove a pin; the object lives while something else holds it."""
        ...

    def obj_get(self, path: str) -> Map | Prog: ...
    def apply(self, request: Request) -> tuple[TcObject, ...]: ...
    def replay(self, path: str, dev: str, *, ingress: bool, out: str | None = None, limit: int = 0) -> Replayed:
        """Receive (`ingress`) or transmit a capture's packets on a device, which counts as up.

        `out` names a directory for what reached each device's stack (DEV-ingress.pcapng) and what left it
        (DEV-egress.pcapng).

        Raises:  InputError for a damaged capture, or a datapath that replays none; TcError with ENODEV; OSError for a
                 full disk, and then `out` has nothing new.
        """
        ...

    def progs(self) -> Sequence[Prog]: ...
    def all_maps(self) -> Sequence[Map]: ...
    def trace_pipe(self) -> Iterator[str]: ...
    def close(self) -> None: ...

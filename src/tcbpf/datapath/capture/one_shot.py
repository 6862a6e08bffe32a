"""A program on trial: run over captures with maps of its own, and gone. What a trial needs is kept from one to the next.

From a source to machine code every step of the line is a function of its input. `Ready` is what is left at the end: it is made
of a Verified and nothing else, and kept under the name of all that went in, so that a second trial neither compiles nor
verifies, and imports nothing that does.
"""

from __future__ import annotations

import ctypes
import os

from tcbpf import cache
from tcbpf.datapath.capture.loop import run_capture
from tcbpf.datapath.capture.reader import ETHERNET
from tcbpf.native.env import Env, current_cpu
from tcbpf.native.mapmemory import Picture, possible_cpus
from tcbpf.native.skb import Skb
from tcbpf.vm.jit.cache import cpu
from tcbpf.vm.jit.image import Image
from tcbpf.vm.jit.pages import Pages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from tcbpf.datapath.result import PcapStats
    from tcbpf.obj.program import Program

KIND = "programs"
_LOOP = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)


class Ready:
    """A verified program as machine code inside the packet loop, how its maps look when they are new, and the notes on it."""

    def __init__(
        self,
        name: str,
        type: str,
        classic: bool,
        writes: bool,
        maps: tuple[Picture, ...],
        loop: Image,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.name, self.type, self.classic, self.writes = name, type, classic, writes
        self.maps, self.loop, self.notes = maps, loop, notes

    def plain(self) -> tuple[object, ...]:
        """Return it as a cache keeps it."""
        maps = tuple((picture.name, picture.size, picture.pieces) for picture in self.maps)
        return self.name, self.type, self.classic, self.writes, maps, self.loop.plain(), self.notes


def find(made_from: bytes, link: Callable[[], tuple[Program, tuple[str, ...]]]) -> Ready | None:
    """Return what a trial of a program needs, kept or made; None when the program needs a home (see `capture.make`).

    `link` returns the program and the notes on it; `made_from` is all that they are a function of, this package and the running
    kernel aside.

    Raises:  what linking, verifying and compiling raise.
    """
    kernel = os.uname()
    here = f"{kernel.release} {kernel.version} {possible_cpus()}".encode()
    name = cache.name_of(cache.identity(), cpu(), here, made_from)
    kept = cache.load(KIND, name)
    if kept is not None:
        if not kept:
            return None
        title, type, classic, writes, maps, loop, notes = kept
        return Ready(title, type, classic, writes, tuple(Picture(*picture) for picture in maps), Image(*loop), notes)
    from tcbpf.datapath.capture.build import make

    made = make(*link())
    cache.store(KIND, name, made.plain() if made else ())
    return made


class Trial:
    """A program that is ready, over new maps.

    Raises:  MapError for a map that there is no memory for.
    """

    def __init__(self, ready: Ready) -> None:
        self.ready, self.name, self.type = ready, ready.name, ready.type
        self._maps = [picture.develop() for picture in ready.maps]
        self._table = (ctypes.c_void_p * max(len(self._maps), 1))(*(made.address for made in self._maps))
        self._pages = Pages(ready.loop)

    def run_pcap(self, path: str, *, out: str | None = None, limit: int = 0, link_type: int = ETHERNET) -> PcapStats:
        """Run on every packet of a capture, as `Prog.run_pcap` does."""
        env, loop = Env(cpu=current_cpu()), _LOOP(self._pages.entries["loop"])
        return run_capture(
            path,
            lambda at: int(loop(at, env.address, self._table)),
            Skb(),
            type=self.type,
            writes=self.ready.writes,
            classic=self.ready.classic,
            out=out,
            limit=limit,
            link_type=link_type,
        )

    def close(self) -> None:
        """Drop code and maps."""
        self._pages.close()
        for made in self._maps:
            made.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

"""One-shot runs: load a program, run it over captures with private maps, discard it.

From a source to machine code every step of the line is a function of its input. `Prepared` is the result of the last step: it
is made of a Verified and nothing else, and cached under the digest of all that went in, so that a second run neither compiles
nor verifies, and imports no module that does.
"""

from __future__ import annotations

import ctypes
import os

from tcbpf import cache
from tcbpf.cpus import possible_cpus
from tcbpf.datapath.capture.loop import run_capture, taken
from tcbpf.datapath.capture.prepared import Prepared
from tcbpf.native.env import Env, current_cpu
from tcbpf.native.skb import Skb
from tcbpf.vm.jit.cache import cpu
from tcbpf.vm.jit.pages import Pages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from tcbpf.datapath.result import PcapStats
    from tcbpf.obj.program import Program

KIND = "programs"
_LOOP = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)


def prepare(made_from: bytes, link: Callable[[], tuple[Program, tuple[str, ...]]]) -> Prepared | None:
    """Return a program prepared for one-shot runs, from the cache or built; None when it needs a home (see `build`).

    `link` returns the program and the notes on it; `made_from` is all that they are a function of, this package and the running
    kernel aside.

    Raises:  the errors of linking, verifying and compiling.
    """
    kernel = os.uname()
    here = f"{kernel.release} {kernel.version} {possible_cpus()}".encode()
    name = cache.name_of(cache.identity(), cpu(), here, made_from)
    kept = cache.load(KIND, name)
    if kept is not None:
        if not kept:
            return None
        return Prepared.from_cache(kept)
    from tcbpf.datapath.capture.build import build  # here: a cached program needs no compiler and no verifier

    made = build(*link())
    cache.store(KIND, name, made.to_cache() if made else ())
    return made


class OneShot:
    """A prepared program over new maps.

    Raises:  MapError for a map that there is no memory for.
    """

    def __init__(self, prepared: Prepared) -> None:
        self.prepared, self.name, self.type = prepared, prepared.name, prepared.type
        self._maps = [template.instantiate() for template in prepared.maps]
        self._table = (ctypes.c_void_p * max(len(self._maps), 1))(*(made.address for made in self._maps))
        self._pages = Pages(prepared.loop)

    def run_pcap(self, path: str, *, out: str | None = None, limit: int = 0, timeout: float = 0) -> PcapStats:
        """Run on every packet of a capture, as `Prog.run_pcap` does."""

        def of_device(link: int) -> OneShot:
            taken(path, link)
            return self

        def run(env: Env) -> PcapStats:
            return run_one_shots(path, of_device, type=self.type, classic=self.prepared.classic, out=out, limit=limit, env=env)

        env = Env(cpu=current_cpu())
        if not (timeout or self.prepared.unbounded):
            return run(env)
        from tcbpf.native.watch import Watch, default_limit

        with Watch(env, timeout=timeout or default_limit(), name=self.name):
            return run(env)

    def chunk(self, env: Env) -> Callable[[int], int]:
        """Return what runs the packet loop, a struct at an address, on one chunk."""
        loop = _LOOP(self._pages.entries["loop"])
        return lambda at: int(loop(at, env.address, self._table))

    def close(self) -> None:
        """Drop code and maps."""
        self._pages.close()
        for made in self._maps:
            made.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def run_one_shots(
    path: str,
    one: Callable[[int], OneShot],
    *,
    type: str,
    classic: bool,
    out: str | None = None,
    limit: int = 0,
    env: Env | None = None,
) -> PcapStats:
    """Run on every packet of a capture the program for its link type.

    Raises:  what `run_capture` raises.
    """
    env = env or Env(cpu=current_cpu())

    def choose(link: int) -> tuple[Callable[[int], int], bool]:
        chosen = one(link)
        return chosen.chunk(env), chosen.prepared.writes

    return run_capture(path, choose, Skb(), type=type, classic=classic, out=out, limit=limit)

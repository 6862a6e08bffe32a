"""What an engine makes of a Verified program, and the one function that chooses the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from tcbpf.errors import NotSupported
from tcbpf.verifier.verified import Verified

if TYPE_CHECKING:
    from tcbpf.native.runtime import Env, MapFile, Skb


COMPILED = frozenset({"tail_call", "loop", "for_each_map_elem"})
"""Helpers that the engines make themselves: they jump, or call back."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to compile. harden: net.core.bpf_jit_harden's 0, 1, 2 (1 blinds programs loaded without privilege, 2 all)."""

    engine: str = "jit"                      # "jit" or "interp"
    harden: int = 0
    cache: bool = True                       # keep machine code on disk, by content
    count: bool = False                      # count executed instructions


class Executable(Protocol):
    """A program that can run. One executable serves one set of maps."""

    @property
    def verified(self) -> Verified: ...
    @property
    def jited(self) -> bool: ...
    @property
    def address(self) -> int:
        """Address of its struct tcbpf_prog, for the packet loop, filters and tail calls."""
        ...

    @property
    def loop(self) -> int:
        """Address of the packet loop with the program in it, u64 (struct tcbpf_loop *, env, maps); 0 for the interpreter."""
        ...

    @property
    def maps_address(self) -> int:
        """Address of the map table that machine code takes."""
        ...

    def run(self, skb: Skb, env: Env) -> int:
        """Run once on `skb` and return r0 (64 bits)."""
        ...

    def close(self) -> None: ...


def compile(verified: Verified, maps: Sequence[MapFile], options: Options = Options()) -> Executable:
    """Return `verified` as an executable over `maps`, which are in the order of verified.program.maps.

    Raises:  NotSupported when this machine has no JIT (use engine "interp"), or when only the live kernel can run it.
    """
    if verified.kernel_only:
        raise NotSupported(f"{verified.program.name}: {verified.kernel_only[0]}: --datapath kernel")
    if options.engine == "interp":
        from tcbpf.vm.interp import Interp

        return Interp(verified, maps, options)
    from tcbpf.vm.jit import Jit

    return Jit(verified, maps, options)

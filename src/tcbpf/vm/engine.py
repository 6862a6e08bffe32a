"""The contract of an engine: its options, the helpers that it implements itself, and what it makes of a Verified program."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

from tcbpf.errors import InputError
from tcbpf.tables.helpers import HELPERS
from tcbpf.tables.insns import Kind
from tcbpf.verifier.verified import Verified
from tcbpf.vm.cfg import slots_of

if TYPE_CHECKING:
    from tcbpf.native.runtime import Env, Skb


COMPILED = frozenset(row.name for row in HELPERS if row.engine)
"""Helpers the engines implement, because they change control flow or call back into the program."""


def unbounded(verified: Verified) -> bool:
    """Tell whether the verifier knows no bound of how long a program runs: it calls back, iterates or calls tails."""
    return loop_sites(verified) > 0 or "tail_call" in verified.helpers


def loop_sites(verified: Verified) -> int:
    """Count the places where a program goes round more often than the verifier did; two may stand one in another."""
    again = {row.id for row in HELPERS if row.name in ("loop", "for_each_map_elem")}
    insns = verified.program.insns
    kinds = [(op.kind, insn.imm) for insn, op in zip(insns, slots_of(insns), strict=True) if op]
    calls = sum(kind is Kind.MAY_GOTO or (kind is Kind.CALL and number in again) for kind, number in kinds)
    return calls + sum(is_next(aux.kfunc) for aux in verified.aux)


def is_next(kfunc: str) -> bool:
    """Tell whether a kernel function goes on to an iterator's next element."""
    return kfunc.startswith("bpf_iter_") and kfunc.endswith("_next")


@dataclass(frozen=True, slots=True)
class Options:
    """How to compile. harden: net.core.bpf_jit_harden's 0, 1, 2 (1 blinds programs loaded without privilege, 2 all)."""

    engine: str = "jit"  # "jit" or "interp"
    harden: int = 0
    cache: bool = True  # keep machine code on disk, by content
    count: bool = False  # count executed instructions

    @classmethod
    def from_environment(cls) -> Self:
        """Return what TCBPF_JIT_ENABLE and TCBPF_JIT_HARDEN say, which take the numbers of net.core.bpf_jit_enable and _harden.

        Raises:  InputError for another number.
        Source:  Documentation/admin-guide/sysctl/net.rst.
        Differs: there is no bpf_jit_enable 2, which writes machine code to the kernel's log.
        """
        engine = {"": "jit", "0": "interp", "1": "jit"}.get(enable := os.environ.get("TCBPF_JIT_ENABLE", ""))
        if engine is None:
            raise InputError(f"no number {enable!r}", where="TCBPF_JIT_ENABLE", hint="0, the interpreter, or 1, machine code")
        harden = {"": 0, "0": 0, "1": 1, "2": 2}.get(asked := os.environ.get("TCBPF_JIT_HARDEN", ""))
        if harden is None:
            raise InputError(
                f"no number {asked!r}",
                where="TCBPF_JIT_HARDEN",
                hint="0, 1 to blind constants without CAP_BPF, or 2 to blind them always",
            )
        return cls(engine=engine, harden=harden)


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

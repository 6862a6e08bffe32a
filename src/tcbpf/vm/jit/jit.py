"""The machine code engine: Verified in, executable pages out, by way of the cache.

What the code may depend on is in the cache's key: the instructions, what the verifier learned of them, the maps' shapes, the
options, the runtime, the CPU and these sources. llvmlite is imported only when there is something to compile.
"""

from __future__ import annotations

import ctypes
import marshal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from tcbpf.errors import NotSupported
from tcbpf.isa.insn import encode
from tcbpf.native.library import bitcode, constant, library, offset_of, size_of, stamp, struct
from tcbpf.tables.progs import PROG_TYPES
from tcbpf.verifier.verified import Region, Verified
from tcbpf.vm.jit import cache as code_cache
from tcbpf.vm.jit.image import Image
from tcbpf.vm.jit.pages import ENTRY, Pages

if TYPE_CHECKING:
    from tcbpf.native.mapmemory import MapMemory
    from tcbpf.native.runtime import Env, MapFile, Skb
    from tcbpf.vm.engine import Options

_REGIONS = {region: i for i, region in enumerate(Region)}


class Jit:
    """A program as machine code, over one set of maps."""

    jited = True

    def __init__(self, verified: Verified, maps: Sequence[MapFile], options: Options) -> None:
        self.verified, self.maps = verified, tuple(maps)
        self._code = Code(verified, [shape_of(made) for made in maps], options)
        self._pages = Pages(self._code.image("prog"))
        self._loop: Pages | None = None
        self._table = (ctypes.c_void_p * max(len(maps), 1))(*(m.address for m in maps))
        self.prog = struct("tcbpf_prog")()
        self.prog.fn = self._pages.entries["prog"]
        self.prog.maps, self.prog.n_maps = ctypes.addressof(self._table), len(maps)
        self.prog.type = PROG_TYPES[verified.program.type].number
        self.prog.flags = constant("PROG_WRITES") if verified.writes_packet else 0
        self._entry = ENTRY(self._pages.entries["prog"])

    @property
    def address(self) -> int:
        """Address of its struct tcbpf_prog."""
        return int(ctypes.addressof(self.prog))

    @property
    def loop(self) -> int:
        """Address of the packet loop with this program in it; compiled when it is first asked for."""
        if self._loop is None:
            self._loop = Pages(self._code.image("loop"))
        return int(self._loop.entries["loop"])

    @property
    def maps_address(self) -> int:
        """Address of the table of maps that the code takes."""
        return ctypes.addressof(self._table)

    @property
    def code(self) -> bytes:
        """The machine code, as it lies in memory."""
        return ctypes.string_at(self._pages.start, self._pages.text_size)

    def run(self, skb: Skb, env: Env) -> int:
        """Run once and return r0."""
        _tail_calls(env.address).value = 0
        return int(self._entry(skb.address, env.address, self.maps_address))

    def close(self) -> None:
        """Give the pages back."""
        self._pages.close()
        if self._loop is not None:
            self._loop.close()


def shape_of(made: MapMemory) -> bytes:
    """Return the struct tcbpf_shape of a map: as far as code depends on it."""
    return ctypes.string_at(made.address + offset_of("tcbpf_map", "s"), size_of("tcbpf_shape"))


def _tail_calls(env: int) -> ctypes.c_uint32:
    return ctypes.c_uint32.from_address(env + _tail_calls_at())


@cache
def _tail_calls_at() -> int:
    return offset_of("tcbpf_env", "tail_calls")


_bitcode, _stamp = cache(bitcode), cache(stamp)


@dataclass(frozen=True)
class Code:
    """What machine code is made from."""

    verified: Verified
    shapes: Sequence[bytes]
    options: Options

    def image(self, entry: str) -> Image:
        """Return the code of one entry, "prog" or "loop", from the cache when it is there.

        Raises:  NotSupported without a JIT, or for a helper that the runtime lacks.
        """
        options, hard = self.options, self._hard()
        if hard or not options.cache:  # blinded code is new each time, or it would not be blind
            return self._compile(entry, hard)
        about = f"{entry} {options.count}".encode()
        name = code_cache.key(about, encode(self.verified.program.insns), self._facts(), *self.shapes, _stamp())
        image = code_cache.load(name)
        if image is None:
            image = self._compile(entry, hard)
            code_cache.store(name, image)
        return image

    def text(self) -> tuple[str, str, str]:
        """Return what is compiled, as text: the program's IR, the optimised IR with the runtime in it, the machine code."""
        from tcbpf.vm.jit import llvm

        written = self._module("prog", self._hard())
        return written, *llvm.compile_text(written, ["prog"], _bitcode())

    def _facts(self) -> bytes:
        """Return what the verifier learned, as far as code depends on it."""
        verified = self.verified
        aux = [(a.seen, _REGIONS[a.region], a.field.off if a.field else -1, a.map, a.inlined) for a in verified.aux]
        subprogs = [(s.start, s.end, s.stack_depth) for s in verified.subprogs]
        return verified.program.type.encode() + marshal.dumps((aux, subprogs, verified.program.kfuncs))

    def _compile(self, entry: str, hard: bool) -> Image:
        from tcbpf.vm.jit import llvm
        from tcbpf.vm.jit.elf_image import link

        return link(llvm.compile_object(self._module(entry, hard), [entry], _bitcode()), [entry])

    def _hard(self) -> bool:
        """Tell whether constants are blinded."""
        return self.options.harden > 1 or (self.options.harden == 1 and not _privileged())

    def _module(self, entry: str, hard: bool) -> str:
        """Return the IR of one entry, blinded when it is to be hard."""
        from tcbpf.vm.jit import blind, ir

        counted = offset_of("tcbpf_env", "insns") if self.options.count else -1
        source = ir.own(self.verified, self.shapes, _has, counted)
        if hard:
            blinded = blind.blind(self.verified.program.insns)
            subprogs = [blinded.moved(subprog) for subprog in self.verified.subprogs]
            source = replace(source, insns=blinded.insns, origin=blinded.origin, subprogs=subprogs)
        return ir.module(source, entry == "loop")


def _has(name: str) -> bool:
    """Whether the runtime defines a function; its library and its bitcode are one source."""
    return hasattr(library(), name)


def _privileged() -> bool:
    """Whether this process may load programs: CAP_BPF or CAP_SYS_ADMIN, as bpf_jit_harden 1 asks.

    Source:  include/uapi/linux/capability.h.
    """
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) & (1 << 39 | 1 << 21))
    raise NotSupported("/proc/self/status names no capabilities")

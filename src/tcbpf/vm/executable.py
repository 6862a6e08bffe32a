"""Compile a Verified program: the one function that chooses the engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tcbpf.errors import NotSupported
from tcbpf.verifier.verified import Verified
from tcbpf.vm.engine import COMPILED as COMPILED
from tcbpf.vm.engine import Executable as Executable
from tcbpf.vm.engine import Options as Options

if TYPE_CHECKING:
    from tcbpf.native.runtime import MapFile


def compile(verified: Verified, maps: Sequence[MapFile], options: Options = Options()) -> Executable:
    """Return `verified` as an executable over `maps`, which are in the order of verified.program.maps.

    Raises:  NotSupported when this machine has no JIT (use engine "interp"), or when only the live kernel can run it.
    """
    if verified.kernel_only:
        raise NotSupported(f"{verified.program.name}: {verified.kernel_only[0]}: --datapath kernel")
    if options.engine == "interp":
        from tcbpf.vm.interp.interp import Interp

        return Interp(verified, maps, options)
    from tcbpf.vm.jit.jit import Jit

    return Jit(verified, maps, options)

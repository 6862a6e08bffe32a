"""`tcbpf cbpf dbg`: the debugger of classic filters at a prompt, its metadata read by the engine."""

from __future__ import annotations

from collections.abc import Callable

from tcbpf.cbpf import Filter, as_program, assemble
from tcbpf.cbpf.dbg import COMMANDS, Debugger
from tcbpf.cbpf.step import Extension
from tcbpf.cli.prompt import converse
from tcbpf.datapath.base import Datapath
from tcbpf.datapath.choose import open_datapath
from tcbpf.net.pcap import read
from tcbpf.tables.cbpf import U32


def debug(program: Filter, capture: str, read_filter: Callable[[str], Filter]) -> int:
    """Run commands until `quit` or the end of the input.

    Returns: 0; 2 when a command from standard input failed.
    """
    with open_datapath("user") as dp:
        debugger = Debugger(read_filter, lambda path: list(read(path, link_type=None)), metadata(dp))
        if program:
            debugger.take(program)
        if capture:
            list(debugger.execute(f"load pcap {capture}"))
        return converse(debugger, COMMANDS, "cbpf_dbg")


def metadata(dp: Datapath) -> Callable[[bytes], Extension]:
    """Return a reader of a packet's extensions: a filter of that one load, run by the engine."""

    def of(packet: bytes) -> Extension:
        def extension(word: str, a: int, x: int) -> int:
            program = assemble(f"ld #{a}\nldx #{x}\nld {word}\nret a")
            with dp.prog_load(as_program(program)) as prog:
                return prog.run(packet).verdict & U32

        return extension

    return of

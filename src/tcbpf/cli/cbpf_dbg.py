"""The prompt of `tcbpf cbpf dbg`: commands from a terminal, with history and completion, or from standard input."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tcbpf.cbpf import Classic, Filter, as_program
from tcbpf.cbpf.dbg import COMMANDS, Debugger
from tcbpf.cbpf.step import Extension
from tcbpf.datapath.base import Datapath
from tcbpf.errors import TcbpfError
from tcbpf.tables.cbpf import EXTENSIONS, SKF_AD_OFF, U32

HISTORY = 1000


def debug(program: Filter, capture: str, read_filter: Callable[[str], Filter]) -> int:
    """Carry out commands until `quit` or the end of the input.

    Returns: 0; from standard input 2 when a command could not be carried out.
    """
    from tcbpf.datapath.choose import open_datapath
    from tcbpf.net.pcap import read
    with open_datapath("user") as dp:
        debugger = Debugger(read_filter, lambda path: [packet.data for packet in read(path)], metadata(dp))
        if program:
            debugger.take(program)
        if capture:
            list(debugger.execute(f"load pcap {capture}"))
        if not sys.stdin.isatty():
            return max([obey(debugger, line) for line in iter_lines(debugger)], default=0)
        with prompt():
            for line in iter_lines(debugger, "> "):
                obey(debugger, line)
        return 0


def metadata(dp: Datapath) -> Callable[[bytes], Extension]:
    """Return what reads the extensions of a packet: the engine itself, by a filter that does nothing else."""
    def of(packet: bytes) -> Extension:
        def extension(word: str, a: int, x: int) -> int:
            load = Classic(0x20, 0, 0, SKF_AD_OFF + EXTENSIONS[word].off)
            with dp.prog_load(as_program((Classic(0x00, 0, 0, a), Classic(0x01, 0, 0, x), load, Classic(0x16)))) as prog:
                return prog.run(packet).verdict & U32
        return extension
    return of


def iter_lines(debugger: Debugger, prompt: str = "") -> Iterator[str]:
    """Yield lines until there are no more, or the debugger is done; an interrupt only ends the line."""
    while not debugger.done:
        try:
            yield input(prompt)
        except EOFError:
            return
        except KeyboardInterrupt:
            if not prompt:
                raise
            print()


def obey(debugger: Debugger, line: str) -> int:
    """Carry out one command, and say why not when that cannot be done."""
    try:
        for shown in debugger.execute(line):
            print(shown)
    except (TcbpfError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


@contextmanager
def prompt() -> Iterator[None]:
    """Give the terminal's lines a history that outlives the session, and complete the names of commands."""
    import readline
    path = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "tcbpf" / "cbpf_dbg_history"
    readline.set_history_length(HISTORY)
    readline.set_completer(lambda text, n: dict(enumerate(f"{name} " for name in COMMANDS if name.startswith(text))).get(n))
    readline.parse_and_bind("tab: complete")
    with suppress(OSError):
        readline.read_history_file(path)
    yield
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        readline.write_history_file(path)

"""The prompt of the debuggers: commands from a terminal, with history and completion, or from standard input."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from tcbpf.errors import TcbpfError

HISTORY = 1000


class Debugger(Protocol):
    """A session that takes commands until it is done."""

    @property
    def done(self) -> bool: ...
    def execute(self, line: str) -> Iterator[str]: ...


def converse(debugger: Debugger, commands: Collection[str], name: str) -> int:
    """Run commands until the debugger is done or the input ends; `name` is the history's.

    Returns: 0; 2 when a command from standard input failed.
    """
    if not sys.stdin.isatty():
        return max([obey(debugger, line) for line in iter_lines(debugger)], default=0)
    with terminal(commands, name):
        for line in iter_lines(debugger, "> "):
            obey(debugger, line)
    return 0


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
    """Run one command and print its output; on failure print the reason and return 2."""
    try:
        for shown in debugger.execute(line):
            print(shown)
    except (TcbpfError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


@contextmanager
def terminal(commands: Iterable[str], name: str) -> Iterator[None]:
    """Give the terminal's lines a history that outlives the session, and complete the names of commands."""
    import readline

    path = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "tcbpf" / f"{name}_history"
    readline.set_history_length(HISTORY)
    readline.set_completer(lambda text, n: dict(enumerate(f"{word} " for word in commands if word.startswith(text))).get(n))
    readline.parse_and_bind("tab: complete")
    with suppress(OSError):
        readline.read_history_file(path)
    yield
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        readline.write_history_file(path)

"""`tc exec bpf`: graft a program into a tail-call map, hand maps to another process, read the trace.

Source:  tc/e_bpf.c and lib/bpf_legacy.c of iproute2: the socket's message is theirs. Paper, "Front End".
"""

from __future__ import annotations

import errno
import os
import sys
from itertools import takewhile
from typing import TYPE_CHECKING

from tcbpf.cli.tc.load import UNLOADED, UNPARSED, bpffs_path, load_object, open_pinned, owner_types, pin_report, read_source
from tcbpf.cli.tc.map_socket import receive_fds
from tcbpf.control.args import LOCAL, USAGE, Options, Quit, Words, c_number, matches
from tcbpf.errors import SysError

if TYPE_CHECKING:
    from tcbpf.cli.tc.request import Opener
    from tcbpf.datapath.base import Datapath, Prog
    from tcbpf.maps.map import Map

EXEC_USAGE = """\
Usage: tc exec bpf graft MAP_FILE [ key KEY ] object-file FILE [ type cls|act ] [ section NAME ] [ verbose ]
       tc exec bpf graft MAP_FILE key KEY object-pinned FILE
       tc exec bpf import UDS [ run CMD ... ]
       tc exec bpf dbg
"""
NO_KEY = 256 - errno.EINVAL  # tc's exit status is its negative errno


def run(opener: Opener, words: Words, options: Options) -> int:
    """Run one `tc exec` command."""
    if not words:
        raise Quit(USAGE, 'No command given, try "tc exec help".')
    if matches(words.next, "help"):
        sys.stderr.write(EXEC_USAGE)
        return 0
    kind = words.take()
    if kind != "bpf":
        raise Quit(USAGE, f'Executing "{kind}" is not known, it is bpf', EXEC_USAGE.rstrip())
    if not words:
        return 0
    word = words.take()
    if matches(word, "import"):
        return receive_maps(words)
    if matches(word, "graft"):
        return graft(opener, words)
    if matches(word, "dbg") or matches(word, "debug"):
        return trace(opener)
    if matches(word, "run"):
        raise Quit(USAGE, "bpf: No import parameter provided!", EXEC_USAGE.rstrip())
    raise Quit(USAGE, *([] if matches(word, "help") else [f'What is "{word}"?']), EXEC_USAGE.rstrip())


def graft(opener: Opener, words: Words) -> int:
    """Put a program into a slot of a pinned program array, atomically."""
    path, key = words.take(), None
    if words.accept("key", prefix=True):
        key = _key(words)
    words.require()
    try:
        return put_program(opener, words, path, key)
    except Quit as quit:  # what a filter says of its program, a graft does not
        said = takewhile(lambda line: line not in (UNPARSED, UNLOADED), quit.lines)
        raise Quit(USAGE if quit.status == LOCAL else quit.status, *said) from None


def _key(words: Words) -> int:
    value = c_number(words.take())
    if value is None or value > 0xFFFFFFFF:
        raise Quit(USAGE, 'Illegal "key"')
    return value


def put_program(opener: Opener, words: Words, path: str, key: int | None) -> int:
    """Load or open the program that the words name, and put it into a slot of the array pinned at `path`.

    Raises:  Quit.
    """
    if matches(words.next, "bytecode"):
        raise Quit(LOCAL, f'What mode is "{words.next}"?')
    source = read_source(words, typed=True)
    if words:
        raise Quit(LOCAL, f'What is "{words.next}"?', EXEC_USAGE.rstrip())
    dp, section = opener(), source.section
    if source.mode == "pinned":
        prog: Prog = open_pinned(dp, source)
    else:
        loaded, section = load_object(dp, source)
        prog = loaded.prog
    if key is None:
        from tcbpf.obj.link import tail_section

        place = tail_section(section)
        if place is None:
            raise Quit(NO_KEY, "Couldn't infer map key from section name! Please provide 'key' argument!")
        key = place[1]
    array = program_array(dp, path)
    try:
        array.raw.update(key.to_bytes(4, "little"), prog.fileno().to_bytes(4, "little"))
    except SysError as error:
        from tcbpf.tables.progs import PROG_TYPES

        wanted, owner = PROG_TYPES[prog.type].number, array.raw.owner_type
        said = [owner_types(wanted, owner)] if owner not in (0, wanted) else []
        detail = f" ({error.detail})" if error.detail else ""
        raise Quit(LOCAL, *said, f"Map update failed: {error.strerror}{detail}") from None
    return 0


def program_array(dp: Datapath, path: str) -> Map:
    """Return the program array pinned at `path`.

    Raises:  Quit.
    """
    from tcbpf.datapath.loader import differences
    from tcbpf.maps.map import Map
    from tcbpf.obj.program import MapSpec

    try:
        found = dp.obj_get(bpffs_path(path))
    except SysError as error:
        raise Quit(LOCAL, f"Couldn't retrieve pinned map '{path}': {error.strerror}") from None
    if not isinstance(found, Map):
        raise Quit(NO_KEY, f"Map '{path}' self-check failed! It is a program.")
    if rows := differences(MapSpec("", "prog_array", 4, 4, found.spec.max_entries, found.spec.flags), found.spec):
        raise Quit(NO_KEY, *pin_report(rows), f"Map '{path}' self-check failed!")
    return found


def trace(opener: Opener) -> int:
    """Print the programs' trace output until interrupted."""
    try:
        lines = opener().trace_pipe()
        print("Running! Hang up with ^C!\n", file=sys.stderr, flush=True)
        for line in lines:
            print(line, file=sys.stderr, flush=True)
    except SysError as error:
        raise Quit(LOCAL, f"Couldn't open trace pipe: {error}") from None
    return 0


def receive_maps(words: Words) -> int:
    """Receive maps at a socket, then run a command (by default a shell) with their descriptors in its environment."""
    path = words.take()
    command = [os.environ.get("SHELL", "/bin/sh")]
    if words:
        if not words.accept("run"):
            raise Quit(USAGE, f'What is "{words.next}"?', EXEC_USAGE.rstrip())
        command = words.rest() or command
    fds, entries = receive_fds(path)
    environment = dict(os.environ, BPF_NUM_MAPS=str(len(entries)))
    for fd, entry in zip(fds, entries, strict=True):
        os.set_inheritable(fd, True)
        environment[f"BPF_MAP{entry}"] = str(fd)
    try:
        os.execvpe(command[0], command, environment)
    except OSError as error:
        raise Quit(LOCAL, f"Cannot run {command[0]}: {error.strerror}") from None

"""`tcbpf dbg`: bpf_dbg's commands for eBPF: a program, instruction by instruction, forwards and backwards, the packet in hand.

Source:  tools/bpf/bpf_dbg.c (v6.12) for the commands' names; `next`, `stack`, `context` and `map` are added for eBPF.
"""

from __future__ import annotations

import argparse
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tcbpf.cbpf.dbg import MAX_BREAKPOINTS, full_name, number_of
from tcbpf.cli.arguments import add_program, read_ctx, read_object, unpinned
from tcbpf.cli.dbg.show import Breakpoint, View
from tcbpf.cli.output import one_line, verdict_name
from tcbpf.cli.prompt import converse
from tcbpf.datapath import loader
from tcbpf.datapath.loader import Loaded
from tcbpf.datapath.user import User
from tcbpf.datapath.user.prog import UserProg
from tcbpf.errors import InputError
from tcbpf.net.pcap import read
from tcbpf.vm.executable import Options
from tcbpf.vm.interp.history import History
from tcbpf.vm.interp.interp import Interp

if TYPE_CHECKING:
    from tcbpf.native.env import Env

HELP = """\
load obj FILE [S]    take a program: a C source or an object file, and its section
load pcap FILE       take a capture
select N             go to packet N and start over
run [N]              run over the rest of the packets, or N of them, and count; stops at breakpoints
step [[+-]N]         do N instructions, backwards with -; enters functions and callbacks
next [N]             do N instructions, functions and callbacks as one
breakpoint [N | [FILE]:LINE | FUNCTION[+N] | reset]
                     stop before an instruction, a source line, a function, here or in a tail-called
                     program; without one, list them
disassemble [N]      the program with its source, or instruction N
dump                 the program as a C array
stack                the frames' memory
context [FIELD=N..]  the context; or what packets start with from now on
map [NAME]           the maps; or one's elements
quit"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_program(parser)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "commands:\n\n" + HELP
    parser.add_argument("capture", nargs="?", metavar="CAPTURE", help="a pcap or pcapng file")
    parser.add_argument("--ctx", default="", metavar="FIELD=N,...", help="context fields that every packet starts with")


def main(args: argparse.Namespace) -> int:
    """Debug: at a prompt, or by the commands of standard input."""
    with User(options=Options(engine="interp")) as dp:
        debugger = Debugger(dp)
        debugger.take(args.program, section=args.section, name=args.name)
        debugger.fields = read_ctx(args.ctx)
        if args.capture:
            debugger.take_capture(args.capture)
        status = converse(debugger, COMMANDS, "dbg")
        debugger.close()
        return status


@dataclass(slots=True)
class Debugger:
    """One debugging session; `execute` takes a command line and yields its output. Maps keep their values across packets.

    Raises:  InputError for a command that cannot run; the session's state is unchanged.
    """

    dp: User
    packets: Sequence[bytes] = ()
    selected: int = 0  # index of the packet
    fields: dict[str, Any] = field(default_factory=dict)
    loaded: Loaded[UserProg] | None = None
    breakpoints: list[Breakpoint] = field(default_factory=list)
    env: Env | None = None
    history: History | None = None  # None while nothing ran on the packet
    stopped: tuple[int, int] | None = None  # packet and step where `run` stopped, and will not stop again
    verdicts: Counter[int] = field(default_factory=Counter)  # of a run that has not ended
    done: bool = False

    def execute(self, line: str) -> Iterator[str]:
        """Run one command, named in full or by an unambiguous prefix."""
        try:
            words = shlex.split(line)
        except ValueError as error:
            raise InputError(str(error), where=line) from None
        if words:
            yield from COMMANDS[full_name(words[0], COMMANDS)](self, words[1:])

    # --- what is debugged ---

    def take(self, path: str, *, section: str = "", name: str = "") -> None:
        """Load a program, with maps of its own, and stand before its first instruction."""
        loaded = loader.load(self.dp, unpinned(read_object(path)), section=section, program=name)
        self.close()
        self.loaded, self.breakpoints, self.history = loaded, [], None

    def close(self) -> None:
        """Let go of the program, of those it tail-calls, and of its maps."""
        if self.loaded is not None:
            for prog in self.progs():
                prog.close()
            for found in self.loaded.maps.values():
                found.raw.close()
        self.loaded = self.history = None

    def progs(self) -> list[UserProg]:
        """Return the loaded program and those it may tail-call."""
        assert self.loaded is not None
        return [self.loaded.prog, *self.loaded.tails.values()]

    def take_capture(self, path: str) -> None:
        """Take the packets of a capture."""
        packets = [packet.data for packet in read(path)]
        if not packets:
            raise InputError("no packets", where=path)
        self.packets = packets
        self.go_to(0)

    def need(self) -> tuple[UserProg, bytes]:
        """Return the program and the packet.

        Raises:  InputError when one is missing.
        """
        if self.loaded is None:
            raise InputError("no program loaded", hint="load obj FILE")
        if not self.packets:
            raise InputError("no pcap file loaded", hint="load pcap FILE")
        return self.progs()[0], self.packets[self.selected]

    def ready(self) -> History:
        """Return the machine; create it, before the first instruction, if the packet has not run yet."""
        prog, packet = self.need()
        if self.history is None:
            engine, env, skb = prog.executable, self.dp.runtime.env(), self.dp.runtime.skb()
            assert isinstance(engine, Interp)
            self.env = env  # on one CPU for the whole packet, wherever this thread goes
            skb.load(packet, self.fields, link_header=prog.link_header)
            env.struct.tail_calls = 0
            self.history = History(engine.machine(skb, env))
        return self.history

    def view(self) -> View:
        """Return the view of the machine."""
        return View(self.ready(), [prog.verified.program for prog in self.progs()], self.breakpoints)

    # --- commands ---

    def load(self, words: list[str]) -> Iterator[str]:
        """Load a program or a capture."""
        match words:
            case ["obj", path, *section] if len(section) < 2:
                self.take(path, section="".join(section))
            case ["pcap", path]:
                self.take_capture(path)
            case _:
                raise InputError("load what?", hint="load obj FILE [SECTION], load pcap FILE")
        yield from ()

    def select(self, words: list[str]) -> Iterator[str]:
        """Choose a packet, counted from 1."""
        number = number_of("".join(words), default=1)
        if not 1 <= number <= len(self.packets):
            raise InputError(f"no packet {number}", hint=f"1 to {len(self.packets)}")
        self.go_to(number - 1)
        yield from ()

    def run(self, words: list[str]) -> Iterator[str]:
        """Run packet after packet until a breakpoint or the end, and count verdicts."""
        left = number_of("".join(words), default=len(self.packets))
        if left < 1 and words:
            raise InputError(f"{left} packets", hint="run N with N at least 1")
        if self.ready().machine.done:
            self.go_on()
        while True:
            history = self.ready()
            while not history.machine.done:
                if self.stops() and self.stopped != (self.selected, len(history)):
                    self.stopped = (self.selected, len(history))
                    yield from self.view().all()
                    return
                if self.breakpoints or left == 1 or self.selected + 1 == len(self.packets):
                    history.forward()  # breakpoints may stop it, and the last packet stays: both can be stepped back
                else:
                    history.machine.one()
                yield from self.printed()
            self.verdicts[self.view().verdict] += 1
            left -= 1
            if not left or self.selected + 1 == len(self.packets):
                break
            self.go_on()
        yield "  ".join(f"{verdict_name(verdict) or verdict}:{n}" for verdict, n in sorted(self.verdicts.items()))
        self.verdicts.clear()

    def go_on(self) -> None:
        """Stand before the next packet's first instruction."""
        if self.selected + 1 == len(self.packets):
            raise InputError("the last packet has run", hint="select N goes back")
        self.go_to(self.selected + 1)

    def go_to(self, index: int) -> None:
        """Stand before a packet's first instruction."""
        self.selected, self.history, self.stopped = index, None, None

    def step(self, words: list[str]) -> Iterator[str]:
        """Run N instructions, or undo them."""
        history, count = self.ready(), number_of("".join(words), default=1)
        for _ in range(abs(count)):
            if count < 0:
                if not history.back():
                    break
            elif not history.machine.done:
                history.forward()
                yield from self.printed()
        yield from self.view().all()

    def next(self, words: list[str]) -> Iterator[str]:
        """Run N instructions, and every function they call to its end."""
        history = self.ready()
        machine = history.machine
        for _ in range(number_of("".join(words), default=1)):
            depth, first = len(machine.frames), True
            while not machine.done and (first or (len(machine.frames) > depth and not self.stops())):
                history.forward()
                yield from self.printed()
                first = False
        yield from self.view().all()

    def breakpoint(self, words: list[str]) -> Iterator[str]:
        """Set, list or forget breakpoints."""
        view = self.view()
        if words == ["reset"]:
            self.breakpoints = []
        elif words:
            program, pc = view.find(words[0])
            if len(self.breakpoints) == MAX_BREAKPOINTS:
                raise InputError(f"{MAX_BREAKPOINTS} breakpoints are set", hint="breakpoint reset")
            if (program.name, pc) not in self.breakpoints:
                self.breakpoints.append((program.name, pc))
            yield f"breakpoint at: {view.line(program, pc)}"
        elif self.breakpoints:
            programs = {program.name: program for program in view.programs}
            yield from (f"{n}: {view.line(programs[name], pc)}" for n, (name, pc) in enumerate(self.breakpoints))
        else:
            yield "no breakpoints set"

    def disassemble(self, words: list[str]) -> Iterator[str]:
        """Print one instruction or all."""
        view = self.view()
        yield from (view.line(*view.find(words[0])),) if words else view.listing()

    def dump(self, words: list[str]) -> Iterator[str]:
        """Print the program as a C array."""
        yield from self.view().c_array()

    def stack(self, words: list[str]) -> Iterator[str]:
        """Print the frames' memory."""
        yield from self.view().stack()

    def context(self, words: list[str]) -> Iterator[str]:
        """Print the context, or set the fields that packets start with."""
        if words:
            given = read_ctx(",".join(words))
            self.dp.runtime.skb().load(b"", given)  # refuses what no packet could have
            self.fields, self.history = {**self.fields, **given}, None
        else:
            yield from self.view().context()

    def map(self, words: list[str]) -> Iterator[str]:
        """Print the maps, or one's elements."""
        prog, _ = self.need()
        maps = {m.spec.name: m for m in prog.maps}
        if not words:
            yield from (f"{m.spec.name}: {m.spec.type}, {m.spec.max_entries} entries" for m in maps.values())
            return
        if words[0] not in maps:
            raise InputError(f"no map {words[0]!r}", hint=", ".join(maps) or "the program has none")
        yield from (f"{one_line(key)}: {one_line(value)}" for key, value in maps[words[0]].items())

    def quit(self, words: list[str]) -> Iterator[str]:
        """End."""
        self.done = True
        yield from ()

    def help(self, words: list[str]) -> Iterator[str]:
        """List the commands."""
        yield HELP

    # --- between ---

    def stops(self) -> bool:
        """Tell whether the machine stands at a breakpoint."""
        machine = self.ready().machine
        return (machine.verified.program.name, machine.pc) in self.breakpoints

    def printed(self) -> Iterator[str]:
        """Yield the output of bpf_trace_printk()."""
        return (f"trace: {line.text.rstrip()}" for line in self.env.trace()) if self.env is not None else iter(())


COMMANDS: dict[str, Callable[[Debugger, list[str]], Iterator[str]]] = {
    name: getattr(Debugger, name)
    for name in (
        "load",
        "select",
        "run",
        "step",
        "breakpoint",
        "disassemble",
        "dump",
        "quit",
        "help",
        "next",
        "stack",
        "context",
        "map",
    )
}

"""bpf_dbg's commands over a classic filter and a capture; steps forwards and backwards.

Source:  Documentation/networking/filter.rst, "Stepping"; tools/bpf/bpf_dbg.c (v6.12) for commands and what they show.
Differs: `step` shows the machine after the step, `run` goes on from there, and a packet stays selected once it has its verdict;
         `select 1` is the first packet; the bytes last read are in brackets; extensions run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tcbpf.cbpf.disasm import operand, signed
from tcbpf.cbpf.insn import Classic, Filter
from tcbpf.cbpf.rules import check
from tcbpf.cbpf.step import Extension, State, no_extension, step
from tcbpf.cbpf.text import alternate, to_c
from tcbpf.errors import InputError
from tcbpf.tables.cbpf import CLASSIC, EXTENSIONS, SKF_AD_OFF, U32, Mode

MAX_BREAKPOINTS = 64
_HEX = ("ld", "ldx", "and", "or", "xor", "ret")  # mnemonics whose immediate is shown so; jumps too

HELP = """\
load bpf FILTER      take a filter: bytecode, a file, an expression
load pcap FILE       take a capture
select N             go to packet N, counted from 1, and start over
run [N]              run over the packets from here, or N of them, and count; stops at breakpoints
step [[+-]N]         do N instructions, backwards with -; 0 shows where the machine is
breakpoint [N|reset] stop before instruction N; without N list them
disassemble [N]      the filter, or instruction N
dump                 the filter as a C array
quit"""


class Captured(Protocol):
    """A packet of a capture, of which `wire_len` bytes were on the wire."""

    @property
    def data(self) -> bytes: ...
    @property
    def wire_len(self) -> int: ...


@dataclass(slots=True)
class Debugger:
    """One debugging session; `execute` takes a command line and yields its output.

    `read_filter(text)` and `read_capture(path)` read the argument of `load`; `extension(packet)` returns a
    reader of its metadata.
    Raises:  InputError for a command that cannot run; the session's state is unchanged.
    """

    read_filter: Callable[[str], Filter]
    read_capture: Callable[[str], Sequence[Captured]]
    extension: Callable[[bytes], Extension] = lambda packet: no_extension
    program: Filter = ()
    packets: Sequence[Captured] = ()
    selected: int = 0  # index of the packet
    history: list[State] = field(default_factory=lambda: [State()])
    breakpoints: list[int] = field(default_factory=list)
    stopped: State | None = None  # where `run` stopped, and will not stop again
    passes: int = 0  # of a run that has not ended
    fails: int = 0
    done: bool = False

    def execute(self, line: str) -> Iterator[str]:
        """Run one command, named in full or by an unambiguous prefix."""
        word, _, rest = line.strip().partition(" ")
        if not word:
            return
        yield from COMMANDS[full_name(word, COMMANDS)](self, rest.strip())

    @property
    def state(self) -> State:
        """Where the machine is."""
        return self.history[-1]

    @property
    def packet(self) -> Captured:
        """The selected packet."""
        if not self.packets:
            raise InputError("no pcap file loaded", hint="load pcap FILE")
        return self.packets[self.selected]

    def need_program(self) -> Filter:
        """Return the filter.

        Raises:  InputError when none is loaded.
        """
        if not self.program:
            raise InputError("no bpf program loaded", hint="load bpf FILTER")
        return self.program

    def restart(self) -> None:
        """Reset the machine to the first instruction."""
        self.history = [State()]

    def go_to(self, packet: int) -> None:
        """Select a packet, and reset a run's counts."""
        self.selected, self.passes, self.fails = packet, 0, 0
        self.restart()

    def take(self, program: Filter) -> None:
        """Debug `program` from its start.

        Raises:  FilterError when the kernel would not load it.
        """
        check(program)
        self.program, self.breakpoints = program, []
        self.restart()

    def load(self, what: str) -> Iterator[str]:
        """Load a filter or a capture."""
        kind, _, named = what.partition(" ")
        if kind == "bpf" and named:
            self.take(self.read_filter(named.strip()))
        elif kind == "pcap" and named:
            packets = self.read_capture(named.strip())
            if not packets:
                raise InputError("no packets", where=named)
            self.packets = packets
            self.go_to(0)
        else:
            raise InputError("load what?", hint="load bpf FILTER, load pcap FILE")
        yield from ()

    def select(self, number: str) -> Iterator[str]:
        """Choose a packet, counted from 1."""
        chosen = number_of(number, default=1)
        if not 1 <= chosen <= len(self.packets):
            raise InputError(f"no packet {chosen}", hint=f"1 to {len(self.packets)}" if self.packets else "load pcap FILE")
        self.go_to(chosen - 1)
        yield from ()

    def run(self, number: str) -> Iterator[str]:
        """Run packet after packet until a breakpoint or the end, and count passes and fails."""
        program = self.need_program()
        left = number_of(number, default=len(self.packets))
        if left < 1 and number:
            raise InputError(f"{left} packets", hint="run N with N at least 1")
        while True:
            packet = self.packet
            while self.state.result is None:
                if self.state.pc in self.breakpoints and self.state is not self.stopped:
                    self.stopped = self.state
                    yield from self.show()
                    return
                self.forward(program, packet)
            self.passes, self.fails = self.passes + (self.state.result != 0), self.fails + (self.state.result == 0)
            left -= 1
            if not left or self.selected + 1 == len(self.packets):
                break
            self.selected += 1
            self.restart()
        yield f"bpf passes:{self.passes} fails:{self.fails}"
        self.go_to(0)

    def forward(self, program: Filter, packet: Captured) -> None:
        """Run one instruction."""
        self.history.append(step(program, packet.data, self.state, self.extension(packet.data), wire_len=packet.wire_len))

    def step(self, number: str) -> Iterator[str]:
        """Run N instructions, or undo them."""
        program, packet = self.need_program(), self.packet
        count = number_of(number, default=1)
        for _ in range(abs(count)):
            if count < 0:
                if len(self.history) == 1:
                    break
                self.history.pop()
            elif self.state.result is None:
                self.forward(program, packet)
        yield from self.show()

    def breakpoint(self, where: str) -> Iterator[str]:
        """Set, list or forget breakpoints."""
        program = self.need_program()
        if where == "reset":
            self.breakpoints = []
        elif where:
            pc = self.instruction(where)
            if pc in self.breakpoints:
                raise InputError(f"breakpoint {pc} is set already")
            if len(self.breakpoints) == MAX_BREAKPOINTS:
                raise InputError(f"{MAX_BREAKPOINTS} breakpoints are set", hint="breakpoint reset")
            self.breakpoints.append(pc)
            yield f"breakpoint at: {_line(program, pc)}"
        else:
            yield " ".join(["breakpoints:", *map(str, self.breakpoints)])

    def instruction(self, number: str) -> int:
        """Return the number of an instruction that exists."""
        pc = number_of(number, default=0)
        if not 0 <= pc < len(self.program):
            raise InputError(f"no instruction {pc}", hint=f"0 to {len(self.program) - 1}")
        return pc

    def disassemble(self, number: str) -> Iterator[str]:
        """Print one instruction or all."""
        program = self.need_program()
        chosen = [self.instruction(number)] if number else range(len(program))
        yield from (_line(program, pc) for pc in chosen)

    def dump(self, nothing: str) -> Iterator[str]:
        """Print the filter as a C array."""
        yield from ["/* { op, jt, jf, k }, */", *to_c(self.need_program()).splitlines()]

    def quit(self, nothing: str) -> Iterator[str]:
        """End."""
        self.done = True
        yield from ()

    def help(self, nothing: str) -> Iterator[str]:
        """List the commands."""
        yield HELP

    def show(self) -> Iterator[str]:
        """Print registers, the next instruction (or the result) and the packet, with the bytes last read in brackets."""
        state, program = self.state, self.need_program()
        insn = program[state.pc]
        yield "-- register dump --"
        yield f"pc:       [{state.pc}]"
        yield f"code:     [{insn.code}] jt[{insn.jt}] jf[{insn.jf}] k[{insn.k}]"
        yield f"curr:     {_line(program, state.pc)}"
        if (row := CLASSIC.at(insn.code)) is not None and row.branch and (insn.jt or insn.jf):
            yield f"jt:       {_line(program, state.pc + 1 + insn.jt)}"
            yield f"jf:       {_line(program, state.pc + 1 + insn.jf)}"
        yield f"A:        {_word(state.a)}"
        yield f"X:        {_word(state.x)}"
        if state.result is not None:
            yield f"ret:      {_word(state.result)}!"
        stored = [f"M[{k}]: {_word(word)}" for k, word in enumerate(state.m) if word]
        yield from stored or [f"M[0,15]:  {_word(0)}"]
        yield "-- packet dump --"
        data, length = self.packet.data, self.packet.wire_len
        yield f"len: {length}" if length == len(data) else f"cap: {len(data)}, len: {length}"
        yield from dump_packet(data, state.read)
        if state.pc in self.breakpoints and state.result is None:
            yield "(breakpoint)"


COMMANDS: dict[str, Callable[[Debugger, str], Iterator[str]]] = {
    "load": Debugger.load,
    "select": Debugger.select,
    "run": Debugger.run,
    "step": Debugger.step,
    "breakpoint": Debugger.breakpoint,
    "disassemble": Debugger.disassemble,
    "dump": Debugger.dump,
    "quit": Debugger.quit,
    "help": Debugger.help,
}


def full_name(word: str, names: Collection[str]) -> str:
    """Return the command that begins with `word`.

    Raises:  InputError when there is none, or there are several.
    """
    found = [word] if word in names else [name for name in names if name.startswith(word)]
    if len(found) != 1:
        raise InputError(f"{word!r} is {' and '.join(found) or 'no command'}", hint=", ".join(names))
    return found[0]


def number_of(text: str, *, default: int) -> int:
    """Return the one number of a command."""
    try:
        return int(text, 0) if text else default
    except ValueError:
        raise InputError(f"{text!r} is not a number") from None


def _word(value: int) -> str:
    """Return a 32-bit word as registers are shown: as C's %#08x, and in decimal."""
    return f"[{alternate(value, 8)}][{value}]"


def _line(program: Sequence[Classic], pc: int) -> str:
    """Return one instruction as bpf_dbg shows it: `l0:	ldh [12]`, targets as instruction numbers."""
    insn = program[pc]
    row = CLASSIC.at(insn.code)
    assert row is not None
    if row.mode is Mode.LABEL:
        return f"l{pc}:\t{row.name} {pc + 1 + insn.k}"
    known = EXTENSIONS.at((insn.k - SKF_AD_OFF) & U32) if row.mode is Mode.ABS else None
    hexadecimal = row.mode is Mode.IMM and insn.k != 0 and (row.branch or row.name in _HEX)
    shown = insn if hexadecimal else insn._replace(k=signed(insn.k))
    text = f"#{known.name}" if known else operand(shown, hex_immediate=hexadecimal, spaced=False)
    targets = f", l{pc + 1 + insn.jt}, l{pc + 1 + insn.jf}" if row.branch else ""
    return f"l{pc}:\t{row.name} {text}{targets}".rstrip()


def dump_packet(packet: bytes, read: tuple[int, int] | None) -> Iterator[str]:
    """Yield 16 bytes a line; those of `read` in brackets."""
    first, last = (read[0], read[0] + read[1] - 1) if read else (-1, -1)
    for base in range(0, len(packet), 16):
        cells = ""
        for off, byte in enumerate(packet[base : base + 16], base):
            cells += ("[" if off == first else " " if off != last + 1 or not read else "") + f"{byte:02x}"
            cells += "]" if off == last else ""
        yield f"{base:3}:{cells}"

"""bpf_dbg's commands over a classic filter and a capture; steps forwards and backwards.

Source:  Documentation/networking/filter.rst, "Stepping"; tools/bpf/bpf_dbg.c (v6.12) for commands and what they show.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from tcbpf.cbpf.check import check
from tcbpf.cbpf.disasm import disassemble, operand
from tcbpf.cbpf.insn import Classic, Filter
from tcbpf.cbpf.step import Extension, State, no_extension, step
from tcbpf.cbpf.text import parse, to_c
from tcbpf.errors import InputError
from tcbpf.tables.cbpf import CLASSIC, EXTENSIONS, SKF_AD_OFF, Mode

MAX_BREAKPOINTS = 64

HELP = """\
load bpf CODE        take the filter in bpf_asm's output form; load bpf FILE reads it from a file
load pcap FILE       take a capture
select N             go to packet N and start over
run [N]              run over the rest of the packets, or N of them, and count; stops at breakpoints
step [[+-]N]         do N instructions, backwards with -
breakpoint [N|reset] stop before instruction N; without N list them
disassemble [N]      the filter, or instruction N
dump                 the filter as a C array
quit"""


@dataclass(slots=True)
class Debugger:
    """One debugging session; `execute` takes a command line and yields the lines it prints.

    `read_capture(path)` returns a capture's packets; `extension(packet)` the reader of a packet's metadata.
    Raises:  InputError for a command that cannot be carried out; nothing is lost by it.
    """

    read_capture: Callable[[str], Sequence[bytes]]
    extension: Callable[[bytes], Extension] = lambda packet: no_extension
    program: Filter = ()
    packets: Sequence[bytes] = ()
    selected: int = 0                                        # index of the packet
    history: list[State] = field(default_factory=lambda: [State()])
    breakpoints: list[int] = field(default_factory=list)
    done: bool = False

    def execute(self, line: str) -> Iterator[str]:
        """Carry out one command; an unambiguous beginning of its name is enough."""
        words = shlex.split(line)
        if not words:
            return
        names = [name for name in _COMMANDS if name.startswith(words[0])]
        if not names:
            raise InputError(f"no command {words[0]!r}", hint=", ".join(_COMMANDS))
        yield from _COMMANDS[names[0]](self, words[1:])

    @property
    def state(self) -> State:
        """Where the machine is."""
        return self.history[-1]

    @property
    def packet(self) -> bytes:
        """The selected packet."""
        if not self.packets:
            raise InputError("no pcap file loaded", hint="load pcap FILE")
        return self.packets[self.selected]

    def need_program(self) -> Filter:
        """Return the filter.

        Raises:  InputError when none is loaded.
        """
        if not self.program:
            raise InputError("no bpf program loaded", hint="load bpf CODE")
        return self.program

    def restart(self) -> None:
        """Put the machine before the first instruction."""
        self.history = [State()]

    def take(self, program: Filter) -> None:
        """Debug `program` from its start.

        Raises:  FilterError when the kernel would not load it.
        """
        check(program)
        self.program, self.breakpoints = program, []
        self.restart()

    def load(self, words: list[str]) -> Iterator[str]:
        """Load a filter or a capture."""
        match words:
            case ["bpf", *code] if code:
                self.take(parse(_file_or_text(" ".join(code))))
            case ["pcap", path]:
                packets = self.read_capture(path)
                if not packets:
                    raise InputError("no packets", where=path)
                self.packets, self.selected = packets, 0
                self.restart()
            case _:
                raise InputError("load what?", hint="load bpf CODE, load pcap FILE")
        yield from ()

    def select(self, words: list[str]) -> Iterator[str]:
        """Choose a packet, counted from 1."""
        number = _number(words, default=1)
        if not 1 <= number <= len(self.packets):
            raise InputError(f"no packet {number}", hint=f"1 to {len(self.packets)}")
        self.selected = number - 1
        self.restart()
        yield from ()

    def run(self, words: list[str]) -> Iterator[str]:
        """Run packet after packet until a breakpoint or the end, and count passes and fails."""
        program = self.need_program()
        count = _number(words, default=len(self.packets))
        if count < 1:
            raise InputError(f"{count} packets", hint="run N with N at least 1")
        passes = fails = 0
        while passes + fails < count:
            packet = self.packet
            while self.state.result is None:
                self.forward(program, packet)
                if self.state.result is None and self.state.pc in self.breakpoints:
                    yield from self.show()
                    return
            passes, fails = passes + (self.state.result != 0), fails + (self.state.result == 0)
            if self.selected + 1 == len(self.packets):
                break
            self.selected += 1
            self.restart()
        yield f"bpf passes:{passes} fails:{fails}"

    def forward(self, program: Filter, packet: bytes) -> None:
        """Do one instruction."""
        self.history.append(step(program, packet, self.state, self.extension(packet)))

    def step(self, words: list[str]) -> Iterator[str]:
        """Do N instructions, or undo them."""
        program, packet = self.need_program(), self.packet
        count = _number(words, default=1)
        for _ in range(abs(count)):
            if count < 0:
                if len(self.history) == 1:
                    break
                self.history.pop()
            elif self.state.result is None:
                self.forward(program, packet)
        yield from self.show()

    def breakpoint(self, words: list[str]) -> Iterator[str]:
        """Set, list or forget breakpoints."""
        program = self.need_program()
        if words == ["reset"]:
            self.breakpoints = []
        elif words:
            pc = _number(words, default=0)
            if not 0 <= pc < len(program):
                raise InputError(f"no instruction {pc}", hint=f"0 to {len(program) - 1}")
            if len(self.breakpoints) == MAX_BREAKPOINTS:
                raise InputError(f"{MAX_BREAKPOINTS} breakpoints are set", hint="breakpoint reset")
            if pc not in self.breakpoints:
                self.breakpoints.append(pc)
            yield f"breakpoint at: {_line(program, pc)}"
        else:
            yield from (f"{n}: {_line(program, pc)}" for n, pc in enumerate(self.breakpoints)) \
                if self.breakpoints else ("no breakpoints set",)

    def disassemble(self, words: list[str]) -> Iterator[str]:
        """Print one instruction or all."""
        program = self.need_program()
        if words:
            pc = _number(words, default=0)
            if not 0 <= pc < len(program):
                raise InputError(f"no instruction {pc}", hint=f"0 to {len(program) - 1}")
            yield _line(program, pc)
        else:
            yield from (_line(program, pc) for pc in range(len(program)))

    def dump(self, words: list[str]) -> Iterator[str]:
        """Print the filter as a C array, and as text that assembles to it."""
        yield f"/* {' '.join(disassemble(self.need_program()).split())} */"
        yield from to_c(self.program).splitlines()

    def quit(self, words: list[str]) -> Iterator[str]:
        """End."""
        self.done = True
        yield from ()

    def help(self, words: list[str]) -> Iterator[str]:
        """Say what there is."""
        yield HELP

    def show(self) -> Iterator[str]:
        """Print registers, the instruction to come (or the result) and the packet, the bytes last read in brackets."""
        state, program = self.state, self.need_program()
        insn = program[state.pc]
        yield " -- register dump --"
        yield f"pc:       [{state.pc}]"
        yield f"code:     [{insn.code}] jt[{insn.jt}] jf[{insn.jf}] k[{insn.k}]"
        yield f"curr:     {_line(program, state.pc)}"
        if (row := CLASSIC.at(insn.code)) is not None and row.branch:
            yield f"jt:       {_line(program, state.pc + 1 + insn.jt)}"
            yield f"jf:       {_line(program, state.pc + 1 + insn.jf)}"
        yield f"A:        [{state.a:#010x}][{state.a}]"
        yield f"X:        [{state.x:#010x}][{state.x}]"
        stored = [f"M[{k}]:".ljust(10) + f"[{word:#010x}][{word}]" for k, word in enumerate(state.m) if word]
        yield from stored or ["M[0,15]:  [0x00000000][0]"]
        if state.result is not None:
            yield f"result:   [{state.result:#010x}][{state.result}] {'pass' if state.result else 'fail'}"
        yield " -- packet dump --"
        yield f"len: {len(self.packet)}"
        yield from _dump(self.packet, state.read)
        if state.pc in self.breakpoints and state.result is None:
            yield "(breakpoint)"


_COMMANDS: dict[str, Callable[[Debugger, list[str]], Iterator[str]]] = {
    "load": Debugger.load, "select": Debugger.select, "run": Debugger.run, "step": Debugger.step,
    "breakpoint": Debugger.breakpoint, "disassemble": Debugger.disassemble, "dump": Debugger.dump, "quit": Debugger.quit,
    "help": Debugger.help,
}


def _file_or_text(text: str) -> str:
    """Return a file's contents when `text` names one, and `text` otherwise."""
    try:
        with open(text) as file:
            return file.read()
    except OSError:
        return text


def _number(words: list[str], *, default: int) -> int:
    """Return the one number of a command."""
    if not words:
        return default
    try:
        return int(words[0], 0)
    except ValueError:
        raise InputError(f"{words[0]!r} is not a number") from None


def _line(program: Sequence[Classic], pc: int) -> str:
    """Return one instruction as bpf_dbg shows it: `l0:	ldh [12]`, targets as instruction numbers."""
    insn = program[pc]
    row = CLASSIC.at(insn.code)
    assert row is not None
    if row.mode is Mode.LABEL:
        return f"l{pc}:\t{row.name} l{pc + 1 + insn.k}"
    known = EXTENSIONS.at(insn.k - SKF_AD_OFF) if row.mode is Mode.ABS else None
    text = f"#{known.name}" if known else operand(insn, hex_immediate=insn.k > 0, spaced=False)
    targets = f", l{pc + 1 + insn.jt}, l{pc + 1 + insn.jf}" if row.branch else ""
    return f"l{pc}:\t{row.name} {text}{targets}".rstrip()


def _dump(packet: bytes, read: tuple[int, int] | None) -> Iterator[str]:
    """Yield 16 bytes a line; those of `read` in brackets."""
    first, last = (read[0], read[0] + read[1] - 1) if read else (-1, -1)
    for base in range(0, len(packet), 16):
        cells = ""
        for off, byte in enumerate(packet[base:base + 16], base):
            cells += ("[" if off == first else " " if off != last + 1 or not read else "") + f"{byte:02x}"
            cells += "]" if off == last else ""
        yield f"{base:3}:{cells}"

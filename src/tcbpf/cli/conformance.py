"""`tcbpf conformance-plugin`: the plugin protocol of the public bpf_conformance suite.

The first argument is the memory as blank-separated hex bytes, standard input the program the same way; r0 is printed
in hex.

Source:  the README of bpf_conformance.
Differs: `--engine jit|interp|kernel` chooses the engine.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from tcbpf.errors import InputError, VerifierError
from tcbpf.isa import Insn, assemble, decode, encode
from tcbpf.vm import unverified as checked

# Imports inside functions are for start-up time: our engines need no bpf(2).

ENGINES = ("jit", "interp", "kernel")
USAGE = "tcbpf conformance-plugin [--engine jit|interp|kernel] [MEMORY] < PROGRAM"
_XDP, _ARRAY, _SHORTEST = 6, 2, 14


def main(words: Sequence[str]) -> int:
    """Run the plugin on its arguments and standard input."""
    engine, rest = _arguments(words)
    memory = hex_bytes(rest[0] if rest else "", "the memory")
    insns = decode(hex_bytes(sys.stdin.read(), "the program"))
    if engine == "kernel":
        value = run_kernel(insns, memory)
    else:
        value = (checked.run_jit if engine == "jit" else checked.run_interp)(checked.check(insns), memory)
    print(f"{value:x}")
    return 0


def _arguments(words: Sequence[str]) -> tuple[str, list[str]]:
    engine, rest, words = "jit", [], list(words)
    while words:
        word = words.pop(0)
        if word in ("--engine", "-e"):
            engine = words.pop(0) if words else ""
        elif word.startswith("--engine="):
            engine = word.split("=", 1)[1]
        elif word.startswith("-"):
            raise InputError(f"unknown option {word}", hint=USAGE)
        else:
            rest.append(word)
    if engine not in ENGINES:
        raise InputError(f"no engine {engine!r}", hint="one of " + ", ".join(ENGINES))
    if len(rest) > 1:
        raise InputError(f"unexpected argument {rest[1]!r}", hint="the memory is one argument; " + USAGE)
    return engine, rest


def hex_bytes(text: str, what: str) -> bytes:
    """Return the bytes that blank-separated hex names.

    Raises:  InputError.
    """
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        hint = "two digits a byte, blanks between: b7 00 00 00"
        raise InputError(f"{what} is not hex bytes: {error}", hint=hint) from error


def run_kernel(insns: Sequence[Insn], memory: bytes) -> int:
    """Run on the live kernel and return r0: the memory is a packet, r0 comes back in a map since a verdict has 32 bits.

    Raises:  VerifierError when the kernel refuses the program; SysError without privilege.
    """
    from tcbpf.datapath.kernel import syscall

    value = syscall.map_create(_ARRAY, 4, 8, 1, name=b"r0")
    try:
        program = _wrapped(insns, len(memory), value)
        prog, log = syscall.prog_load(syscall.Load(_XDP, encode(program), b"GPL", b"conformance", log_level=1))
        if prog < 0:
            raise VerifierError(_reason(log), errno=-prog, log=log)
        try:
            syscall.TestRun(prog).run(memory.ljust(_SHORTEST, b"\0"))
        finally:
            os.close(prog)
        return int.from_bytes(syscall.map_lookup(value, bytes(4), 8) or b"", "little")
    finally:
        os.close(value)


def _wrapped(insns: Sequence[Insn], length: int, value_fd: int) -> list[Insn]:
    """Return an XDP program that calls `insns` with r1 and r2 set, and stores r0 in a map's first value."""
    memory = f"""
        r2 = *(u32 *)(r1 +4)    ; data_end
        r1 = *(u32 *)(r1 +0)    ; data
        r3 = r1
        r3 += {length}
        r0 = 0
        if r3 > r2 goto out
        r2 = {length}
    """
    nothing = "r1 = 0\nr2 = 0\n"
    rest = f"""
        call program
        r1 = map[fd:{value_fd}]+0
        *(u64 *)(r1 +0) = r0
    out:
        exit
    program:
    """
    return [*assemble((memory if length else nothing) + rest), *insns]


def _reason(log: str) -> str:
    """Return the verifier's message: the last line that is neither an instruction nor statistics."""
    lines = [line for line in log.splitlines() if line and not line[0].isdigit() and not line.startswith("processed ")]
    return lines[-1] if lines else "the kernel refused the program without a reason"

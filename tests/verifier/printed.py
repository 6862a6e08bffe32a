"""Read the kernel's level 2 log: the scalar it prints for each register after each instruction, and at the start of
each path.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from tcbpf.verifier.values.scalar import HALF_SMAX, HALF_SMIN, SMAX, SMIN, Scalar, const
from tcbpf.verifier.values.tnum import HALF_MAX, MAX

_REGISTER = re.compile(r"\bR(\d+)(?:_\w+)?=P?(scalar\((?:[^()]|\([^()]*\))*\)|-?(?:0x)?[0-9a-f]+)(?=\s|$)")
_ID = re.compile(r"\bR(\d+)(?:_\w+)?=P?scalar\(id=(\d+)")
_INSN = re.compile(r"^(\d+): \([0-9a-f]{2}\) (?:.*?; (R.*))?")
_STATE = re.compile(r"^(\d+): (R.*)$")
_FROM = re.compile(r"^from (\d+) to (\d+): (R.*)$")
_BITS = re.compile(r"var_off=\((0x[0-9a-f]+); (0x[0-9a-f]+)\)")


@dataclass(frozen=True)
class Shown:
    """What one line shows: the state after instruction `pc`, or, of the path `pc` jumped to, before instruction
    `target`.

    Registers with the same id are linked: when one is narrowed so is the other, without being printed.
    """

    pc: int
    registers: dict[int, Scalar]
    target: int | None = None
    ids: dict[int, str] = field(default_factory=dict)


def shown(log: str) -> Iterator[Shown]:
    """Yield the states of a log, in its order.

    An instruction that the kernel has more to say about has its state on a line of its own, after the words; under its own
    number or the next.
    """
    waiting = None
    for line in log.splitlines():
        if match := _FROM.match(line):
            waiting = None
            yield Shown(int(match[1]), _registers(match[3]), int(match[2]), _ids(match[3]))
        elif match := _INSN.match(line):
            waiting = int(match[1])
            if match[2]:
                yield Shown(waiting, _registers(match[2]), ids=_ids(match[2]))
        elif waiting is not None and (match := _STATE.match(line)) and int(match[1]) in (waiting, waiting + 1):
            yield Shown(waiting, _registers(match[2]), ids=_ids(match[2]))


def _registers(text: str) -> dict[int, Scalar]:
    return {int(match[1]): parse(match[2]) for match in _REGISTER.finditer(text)}


def _ids(text: str) -> dict[int, str]:
    return {int(match[1]): match[2] for match in _ID.finditer(text) if match[1] != "0"}


def parse(text: str) -> Scalar:
    """Return the scalar that the kernel printed so: a number, or scalar(...) with what it omits at its default."""
    if not text.startswith("scalar("):
        return const(int(text, 0))
    value, mask = 0, MAX
    if bits := _BITS.search(text):
        value, mask = int(bits[1], 16), int(bits[2], 16)
    bounds = {
        "umin": 0,
        "umax": MAX,
        "smin": SMIN,
        "smax": SMAX,
        "umin32": 0,
        "umax32": HALF_MAX,
        "smin32": HALF_SMIN,
        "smax32": HALF_SMAX,
    }
    for part in _BITS.sub("", text[7:-1]).split(","):
        *names, number = part.split("=")
        for name in names:
            if name in bounds:
                bounds[name] = _bound(name, int(number, 0))
    return Scalar(value, mask, *bounds.values())


def _bound(name: str, number: int) -> int:
    if name.startswith("s") and name.endswith("32"):
        return number if number <= HALF_SMAX else number - HALF_MAX - 1
    if name.startswith("s"):
        return number if number <= SMAX else number - MAX - 1
    return number & MAX

"""What a kind may ask of its surroundings: the command that it is part of, the kernel's devices, the runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from tcbpf.control.args import Words
from tcbpf.control.objects import Action, Bpf


@dataclass(frozen=True, slots=True)
class Ready:
    """What a bpf filter or action is made of: a loaded program, or classic bytecode."""

    prog: Any = None
    bytecode: tuple[tuple[int, int, int, int], ...] = ()
    name: str = ""


class Command(Protocol):
    """A tc command whose options are being taken. Each method raises Quit."""

    def program(self, words: Words, type: str = "sched_cls") -> Callable[[], Ready]:
        """Take the words that say where a program is; return how to load it, once the rest is read."""

    def actions(self, words: Words) -> tuple[Action, ...]:
        """Take the actions that the next words describe."""

    def require_device(self, name: str) -> None:
        """Refuse a device that does not exist."""


class Devices(Protocol):
    """The devices of the kernel's network namespace."""

    def index(self, name: str) -> int:
        """Return the index of a device.

        Raises:  TcError with ENODEV.
        """

    def name(self, index: int) -> str:
        """Return the name of a device."""


class Runtime(Protocol):
    """What the structs of the user datapath refer to."""

    def index(self, name: str) -> int:
        """Return the index of a device.

        Raises:  TcError with ENODEV.
        """

    def program(self, options: Bpf) -> int:
        """Return the address of a program's struct."""

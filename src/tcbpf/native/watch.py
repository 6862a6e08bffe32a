"""What ends a program that runs too long: Ctrl-C, and a time limit.

Machine code does not return to Python before it is done, and Python runs a signal's handler only then. So a thread waits for
the signal, or for the time to pass, and sets a flag that runs poll where the verifier knows no bound: env.stop.
"""

from __future__ import annotations

import os
import select
import signal
import threading

from tcbpf.errors import InputError, TimeLimit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any, Self

    from tcbpf.native.env import Env

INTERRUPTED, EXPIRED = 1, 2
END = b"\0"


def default_limit() -> float:
    """Return the time limit in seconds that TCBPF_TIMEOUT gives to runs that may be long; 0 for none.

    Raises:  InputError when it is no number.
    """
    text = os.environ.get("TCBPF_TIMEOUT") or "0"
    try:
        return max(0.0, float(text))
    except ValueError:
        raise InputError(f"no number {text!r}", where="TCBPF_TIMEOUT", hint="seconds, 0 for no limit") from None


class Watch:
    """While it is entered, Ctrl-C and the time limit (seconds; 0 for none) end runs in `env`; leaving it raises.

    `machine_code` tells that runs may be long without returning to Python.

    Raises:  TimeLimit; what the handler of SIGINT raises.
    """

    def __init__(self, env: Env, *, timeout: float = 0, machine_code: bool = True, name: str = "the program") -> None:
        self.struct, self.timeout, self.name = env.struct, timeout, name
        self.threaded = bool(timeout) or machine_code
        self._handler: Any = None
        self._caught: tuple[int, FrameType | None] | None = None
        self._woken = -1

    def __enter__(self) -> Self:
        self.struct.stop = 0
        if threading.current_thread() is threading.main_thread() and callable(signal.getsignal(signal.SIGINT)):
            self._handler = signal.signal(signal.SIGINT, self._signal)
        if self.threaded:
            self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            self._woken = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False) if self._handler else -1
            self._thread = threading.Thread(target=self._wait, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        if self.threaded:
            if self._handler:
                signal.set_wakeup_fd(self._woken)
            os.write(self._write, END)
            self._thread.join()
            os.close(self._read)
            os.close(self._write)
        if self._handler:
            signal.signal(signal.SIGINT, self._handler)
        why, self.struct.stop = self.struct.stop, 0
        if self._caught is not None:
            self._handler(*self._caught)
        elif why == EXPIRED and (kind is None or kind is TimeLimit):
            raise TimeLimit(f"{self.name} was stopped after {self.timeout:g} s, the time limit") from None

    def _signal(self, number: int, frame: FrameType | None) -> None:
        """Stand for the handler of SIGINT, which must not raise where C called Python."""
        self._caught = number, frame
        self.struct.stop = INTERRUPTED

    def _wait(self) -> None:
        """Set the flag when a signal comes or the time is over; END ends the waiting."""
        while select.select([self._read], [], [], self.timeout or None)[0]:
            came = os.read(self._read, 64)
            if END in came:
                return
            if signal.SIGINT in came:
                self.struct.stop = INTERRUPTED
            if self._woken >= 0:  # what else waits for signals goes on
                os.write(self._woken, came)
        self.struct.stop = EXPIRED

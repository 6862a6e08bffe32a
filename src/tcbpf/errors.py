"""The exceptions of tcbpf.

TcbpfError
├─ InputError        your text, file or command is wrong: where, what, and what would be right
│  ├─ ObjectError    an object file is damaged or needs something unknown: section and offset
│  ├─ AsmError       assembly text: line and column
│  ├─ CaptureError   a capture that is cut or damaged: what its packets before that gave
│  ├─ FilterError    a classic filter that every kernel refuses: the instruction and the rule
│  └─ CompileError   a source file: the compiler's own words
├─ VerifierError     pc, reason, the kernel's words, source line, log
├─ SysError(OSError) errno and the request; TcError adds the extack, MapError the map
├─ TimeLimit         a run took longer than it was given
├─ NotSupported      probed, never guessed from a version
└─ InternalError     our bug
"""

from __future__ import annotations

import errno as _errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


ENOTSUPP = 524
"""The kernel's own errno, which bpf(2) lets out and libc has no words for."""


class TcbpfError(Exception):
    """Base of all errors that tcbpf raises on purpose; `str()` gives one readable line."""


class InputError(TcbpfError):
    """The user's text, file or command is wrong: `where` the fault is, `what` is wrong, and a `hint` at the right form."""

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        self.what, self.where, self.hint = what, where, hint
        super().__init__((f"{where}: " if where else "") + what + (f" ({hint})" if hint else ""))


class ObjectError(InputError):
    """An object file is damaged or cannot be loaded.

    Units:   offset in bytes from the start of the section.
    """

    def __init__(self, what: str, *, path: str = "", section: str = "", offset: int | None = None, hint: str = "") -> None:
        self.path, self.section, self.offset = path, section, offset
        place = f"{section}+{offset:#x}" if section and offset is not None else section
        super().__init__(what, where=": ".join(part for part in (path, place) if part), hint=hint)


class CaptureError(InputError):
    """A capture is cut short or damaged; `stats` is what its packets up to there gave, None where nothing was counted."""

    stats: Any = None


class AsmError(InputError):
    """Assembly text is wrong at `line` and `column`, both counted from 1."""

    def __init__(self, what: str, *, line: int, column: int, path: str = "<asm>", hint: str = "") -> None:
        self.line, self.column = line, column
        super().__init__(what, where=f"{path}:{line}:{column}", hint=hint)


class FilterError(InputError):
    """A classic filter breaks a rule of bpf_check_classic(); `pc` is the instruction, -1 for the whole program."""

    def __init__(self, what: str, *, pc: int = -1, rule: str = "", hint: str = "") -> None:
        self.pc, self.rule = pc, rule
        super().__init__(what, where=f"instruction {pc}" if pc >= 0 else "", hint=hint)


class CompileError(InputError):
    """A source file did not compile; `diagnostics` holds the compiler's output unchanged."""

    def __init__(self, what: str, *, where: str = "", hint: str = "", diagnostics: str = "") -> None:
        self.diagnostics = diagnostics
        super().__init__(what, where=where, hint=hint)


class VerifierError(TcbpfError):
    """The verifier refused the program.

    `message` is the kernel's sentence, `reason` the name of its row in verifier.words.reasons, `source` "file.c:12: text of the
    line" when the object has line info, `slice` the pcs that led to the failure, `section` and `path` those of the program when
    it comes from an object, `variable` the C variable at fault when known, `state` the registers involved: "R1=pkt(r=14)".

    Units:   pc counts 8-byte slots.
    """

    def __init__(
        self,
        message: str,
        pc: int = -1,
        reason: str = "",
        errno: int = _errno.EACCES,
        source: str = "",
        slice: tuple[int, ...] = (),
        hint: str = "",
        log: str = "",
        section: str = "",
        variable: str = "",
        state: str = "",
        path: str = "",
    ) -> None:
        self.message, self.pc, self.reason, self.errno, self.source = message, pc, reason, errno, source
        self.slice, self.hint, self.log, self.section = slice, hint, log, section
        self.variable, self.state, self.path = variable, state, path
        super().__init__(message)

    def __str__(self) -> str:
        return f"pc {self.pc}: {self.message}" if self.pc >= 0 else self.message


class SysError(TcbpfError, OSError):
    """A datapath refused a request with an errno; `asked` names the request."""

    def __init__(self, errno: int, asked: str, detail: str = "") -> None:
        self.asked, self.detail = asked, detail
        OSError.__init__(self, errno, "Operation is not supported" if errno == ENOTSUPP else os.strerror(errno))

    def __str__(self) -> str:
        return f"{self.asked}: {self.strerror}" + (f" ({self.detail})" if self.detail else "")


class TcError(SysError):
    """A datapath refused a tc request; `extack` is its explanation, or empty, and `hint` a way out of it."""

    def __init__(self, errno: int, asked: str, extack: str = "") -> None:
        self.extack, self.hint = extack, ""
        super().__init__(errno, asked, extack)


class MapError(SysError):
    """A datapath refused a map operation; `map` names the map."""

    def __init__(self, errno: int, asked: str, map: str, detail: str = "") -> None:
        self.map = map
        super().__init__(errno, f"{asked} {map}" if map else asked, detail)


class TimeLimit(TcbpfError):
    """A run took longer than it was given, and was stopped."""


class NotSupported(TcbpfError):
    """A feature is missing from the running kernel, this machine or this release, as a probe found."""


class InternalError(TcbpfError):
    """A bug in tcbpf."""

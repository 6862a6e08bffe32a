"""The verifier's answer on one program."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tcbpf.errors import VerifierError
from tcbpf.obj import Listed
from tcbpf.obj.program import Program
from tcbpf.verifier.words.log_reader import read
from tcbpf.verifier.words.report import source_line


@dataclass(slots=True)
class Report:
    """The verifier's answer on one program."""

    program: Program
    listed: Listed
    error: VerifierError | None = None
    insns_processed: int = 0
    log: str = ""
    time_ms: float = 0
    over_budget: bool = False
    visits: tuple[int, ...] = field(default=())

    @property
    def accepted(self) -> bool:
        """Whether the verdict is yes."""
        return self.error is None

    def as_json(self, path: str, *, log: bool) -> dict[str, Any]:
        """Return the report as one JSON object."""
        error = self.error
        report: dict[str, Any] = {
            "object": path,
            "section": self.listed.section,
            "program": self.listed.name,
            "type": self.program.type,
            "verdict": "accept" if self.accepted else "reject",
            "errno": error.errno if error else 0,
            "message": error.message if error else "",
            "insns": len(self.program.insns),
            "insns_processed": self.insns_processed,
            "time_ms": round(self.time_ms, 3),
        }
        if error:
            report |= {
                "pc": error.pc,
                "reason": error.reason,
                "source": error.source,
                "variable": error.variable,
                "state": error.state,
                "hint": error.hint,
                "slice": [
                    {"pc": pc, "insn": insn, "state": state, "source": line} for pc, insn, state, line in failing_path(self)
                ],
            }
        return report | ({"log": self.log} if log else {})


def failing_path(report: Report) -> list[tuple[int, str, str, str]]:
    """Return (pc, instruction, changed state, source line) of the instructions that caused the refusal, in order."""
    if report.error is None:
        return []
    last = {visit.pc: visit for visit in read(report.log) if not visit.safe}
    return [(pc, last[pc].text, last[pc].state, source_line(report.program, pc)) for pc in report.error.slice if pc in last]

"""What running a program over a capture gives, on either datapath."""

from __future__ import annotations

from types import SimpleNamespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class PcapStats(SimpleNamespace):
    """What a run over a capture counted: `kept` were written to `out`, since the program's type lets them pass; `skipped` were
    not run, since the datapath does not take packets of their size.

    Units:   duration_ns is the loop's, the file's reading included; verdicts counts packets by r0.
    """

    packets: int
    bytes: int
    verdicts: Mapping[int, int]
    duration_ns: int
    kept: int
    skipped: int

    def __init__(
        self, packets: int, bytes: int, verdicts: Mapping[int, int], duration_ns: int, kept: int = 0, skipped: int = 0
    ) -> None:
        super().__init__(packets=packets, bytes=bytes, verdicts=verdicts, duration_ns=duration_ns, kept=kept, skipped=skipped)

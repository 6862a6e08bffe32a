"""The result of running a program over a capture, on either datapath."""

from __future__ import annotations

from types import SimpleNamespace

from tcbpf.errors import CaptureError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any


class PcapStats(SimpleNamespace):
    """What a run over a capture counted: `kept` were written to `out`, since the program's type lets them pass; `skipped` were
    not run, since the datapath does not take packets of their size; of `cut` the capture holds a beginning only.

    Units:   duration_ns is the loop's, the file's reading included; verdicts counts packets by r0.
    """

    packets: int
    bytes: int
    verdicts: Mapping[int, int]
    duration_ns: int
    kept: int
    skipped: int
    cut: int

    def __init__(
        self,
        packets: int,
        bytes: int,
        verdicts: Mapping[int, int],
        duration_ns: int,
        kept: int = 0,
        skipped: int = 0,
        cut: int = 0,
    ) -> None:
        super().__init__(
            packets=packets, bytes=bytes, verdicts=verdicts, duration_ns=duration_ns, kept=kept, skipped=skipped, cut=cut
        )


def whole_or_not(run: Callable[[], Any]) -> tuple[Any, CaptureError | None]:
    """Return what a run over a capture gives; of one that is cut short or damaged, what came before, and the error."""
    try:
        return run(), None
    except CaptureError as error:
        if error.stats is None:
            raise
        return error.stats, error

"""The packet scheduler's clock: bytes at a rate as ticks, and back.

tc 6.1 counts in whole microseconds both ways, so that what it prints of a burst may be some bytes less than what was said.

Source:  include/net/pkt_sched.h; tc/tc_core.c of iproute2 6.1.
"""

from __future__ import annotations

import errno
from functools import lru_cache

from tcbpf.errors import TcError

TICKS_PER_US = 15.625  # one tick is 64 ns; /proc/net/psched says so on every kernel since 2.6.31


def xmit_time(rate: int, size: int, ticks_per_us: float = TICKS_PER_US) -> int:
    """Return how many ticks `size` bytes take at `rate` bytes per second, 0 at no rate."""
    return min(int(int(1e6 * size / rate) * ticks_per_us), 0xFFFFFFFF) if rate else 0


def xmit_size(rate: int, ticks: int, ticks_per_us: float = TICKS_PER_US) -> int:
    """Return how many bytes go in `ticks` at `rate` bytes per second."""
    return int(rate * int(ticks / ticks_per_us) / 1e6)


@lru_cache(maxsize=1)
def ticks_per_us() -> float:
    """Return this kernel's clock, in ticks per microsecond.

    Raises:  TcError.
    """
    try:
        with open("/proc/net/psched", encoding="ascii") as file:
            t2us, us2t, resolution = (int(word, 16) for word in file.read().split()[:3])
    except OSError as error:
        raise TcError(error.errno or errno.ENOENT, "read /proc/net/psched") from None
    if resolution == 1000000000:
        t2us = us2t
    return t2us / us2t * resolution / 1e6

"""The number of possible CPUs: a per-CPU value has a slot for each."""

from __future__ import annotations

import os
from functools import cache


@cache
def possible_cpus() -> int:
    """Return how many CPUs this machine may ever have online.

    Source:  Documentation/ABI/testing/sysfs-devices-system-cpu: a list such as "0-3,8"; the highest number counts.
    """
    try:
        with open("/sys/devices/system/cpu/possible") as file:
            return int(file.read().strip().replace(",", "-").rsplit("-", 1)[-1]) + 1
    except (OSError, ValueError):
        return os.cpu_count() or 1

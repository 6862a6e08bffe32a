"""Rates and sizes as tc(8) reads and prints them: "1mbit", "15k".

Source:  tc/tc_util.c and lib/utils.c of iproute2 6.1.
"""

from __future__ import annotations

import re

_RATES = {
    "": 1,
    "bit": 1,
    "kbit": 10**3,
    "mbit": 10**6,
    "gbit": 10**9,
    "tbit": 10**12,
    "kibit": 1 << 10,
    "mibit": 1 << 20,
    "gibit": 1 << 30,
    "tibit": 1 << 40,
    "bps": 8,
    "kbps": 8 * 10**3,
    "mbps": 8 * 10**6,
    "gbps": 8 * 10**9,
    "tbps": 8 * 10**12,
    "kibps": 8 << 10,
    "mibps": 8 << 20,
    "gibps": 8 << 30,
    "tibps": 8 << 40,
}
_SIZES = {
    "": 1,
    "b": 1,
    "k": 1 << 10,
    "kb": 1 << 10,
    "m": 1 << 20,
    "mb": 1 << 20,
    "g": 1 << 30,
    "gb": 1 << 30,
    "kbit": 128,
    "mbit": 1 << 17,
    "gbit": 1 << 27,
}
_UNIT = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([a-zA-Z]*)")


def read_rate(word: str) -> int | None:
    """Return a rate in bytes per second of "1mbit" or "100kbps" (bytes), or None."""
    return _scaled(word, _RATES, 8)


def read_size(word: str) -> int | None:
    """Return a size in bytes of "15k" or "1mb", or None."""
    return _scaled(word, _SIZES, 1)


def _scaled(word: str, units: dict[str, int], divisor: int) -> int | None:
    match = _UNIT.fullmatch(word)
    unit = units.get(match[2].lower()) if match else None
    return None if match is None or unit is None else int(float(match[1]) * unit / divisor)


def format_rate(rate: int, *, iec: bool = False) -> str:
    """Return bytes per second as tc prints a rate: "512Kbit"."""
    kilo, bits, unit = (1024 if iec else 1000), rate * 8, 0
    while unit < 4 and bits >= kilo and (bits % kilo == 0 or bits >= 1000 * kilo):
        bits //= kilo
        unit += 1
    return f"{bits}{('', 'K', 'M', 'G', 'T')[unit]}{'i' if iec and unit else ''}bit"


def format_size(size: int) -> str:
    """Return bytes as tc prints a size: "1600b", "15Kb"."""
    for unit, scale, slack in (("Mb", 1 << 20, 1024), ("Kb", 1 << 10, 16)):
        if size >= scale and abs(scale * round(size / scale) - size) < slack:
            return f"{round(size / scale)}{unit}"
    return f"{size}b"

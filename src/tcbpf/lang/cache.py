"""Files by content key under $XDG_CACHE_HOME/tcbpf: what can always be made again.

A cache that cannot be read or written is no cache, and no error.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

KEEP = 2000
"""Files kept; the oldest above that go when a new one comes."""


def directory() -> Path:
    """Return the cache's directory, which need not exist."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if os.path.isabs(home) else Path.home() / ".cache") / "tcbpf" / "objects"


def read(key: str, suffix: str) -> bytes | None:
    """Return the file of that key, or None."""
    try:
        return (directory() / (key + suffix)).read_bytes()
    except OSError:
        return None


def write(key: str, suffix: str, data: bytes) -> None:
    """Keep `data` under that key: a reader sees the old file or the new one, never a part."""
    with contextlib.suppress(OSError):
        place = directory()
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        import tempfile  # a warm start does without

        handle, name = tempfile.mkstemp(dir=place, prefix=".new-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.replace(name, place / (key + suffix))
        except OSError:
            os.unlink(name)
            raise
        _trim(place)


def _trim(place: Path) -> None:
    entries = [(entry.stat().st_mtime_ns, entry.path) for entry in os.scandir(place)]
    for _, path in sorted(entries)[: max(0, len(entries) - KEEP)]:
        os.unlink(path)

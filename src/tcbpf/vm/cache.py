"""Machine code on disk, by content: what it was made from names the file.

A file is written beside its name and renamed, so that readers see it whole or not at all; one that is damaged all the same is
seen by its digest and made anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from functools import lru_cache
from pathlib import Path

from tcbpf.vm.blob import Image

_KEEP = 4096                   # files; the oldest go first


def directory() -> Path:
    """Return where the files lie."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(home) / "tcbpf" / "code"


def key(*parts: bytes) -> str:
    """Return the name of what is made from `parts`, from these sources, for this CPU."""
    sha = hashlib.sha256(_sources() + _cpu())
    for part in parts:
        sha.update(len(part).to_bytes(8, "little"))
        sha.update(part)
    return sha.hexdigest()


def load(name: str) -> Image | None:
    """Return the image of that name, or None."""
    try:
        raw = (directory() / name).read_bytes()
    except OSError:
        return None
    return Image.unpack(raw)


def store(name: str, image: Image) -> None:
    """Keep an image; a cache that cannot be written is no error."""
    with contextlib.suppress(OSError):
        where = directory()
        where.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd, scratch = tempfile.mkstemp(dir=where, prefix=".")
        try:
            with open(fd, "wb") as file:
                file.write(image.pack())
            os.replace(scratch, where / name)
        except OSError:
            os.unlink(scratch)
            raise
        _forget(where)


def _forget(where: Path) -> None:
    files = list(os.scandir(where))
    if len(files) > _KEEP:
        for entry in sorted(files, key=lambda entry: entry.stat().st_mtime)[:len(files) - _KEEP // 2]:
            os.unlink(entry.path)


@lru_cache(maxsize=1)
def _sources() -> bytes:
    """Return a hash of the files that decide what code is written."""
    here, sha = Path(__file__).parent, hashlib.sha256()
    for name in ("blind", "blob", "body", "cfg", "frames", "ir", "llvm", "llvmtext", "jit", "plain"):
        sha.update((here / f"{name}.py").read_bytes())
    sha.update((here.parent / "tables" / "insns.py").read_bytes())
    return sha.digest()


@lru_cache(maxsize=1)
def _cpu() -> bytes:
    """Return what the kernel says of the first CPU's model and features."""
    lines = []
    try:
        with open("/proc/cpuinfo", "rb") as file:
            for line in file:
                if line.startswith((b"vendor_id", b"cpu family", b"model", b"stepping", b"flags", b"Features")):
                    lines.append(line)
                if line == b"\n":
                    break
    except OSError:
        return os.uname().machine.encode()
    return b"".join(lines)

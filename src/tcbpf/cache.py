"""An on-disk cache of derived files, keyed by content; losing it is harmless. One directory per kind in $XDG_CACHE_HOME/tcbpf.

An entry's name is a hash of its inputs, and a digest in front of its bytes binds them to that name. An entry that is damaged,
renamed or writable by another user is ignored. A cache that cannot be read or written is a miss, not an error.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import sys
from functools import cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hashlib import sha256 as sha256
    from typing import Any
else:
    try:  # hashlib loads OpenSSL, which takes longer than all that a start hashes
        from _sha256 import sha256
    except ImportError:
        try:
            from _sha2 import sha256  # Python 3.12
        except ImportError:
            from hashlib import sha256

KEEP = 4096  # entries of a kind; the oldest go first
DIGEST = 32
LLVM = "llvmlite/_version.py"
BUILT_ON = (LLVM, "elftools/__init__.py")
"""One file of each package that entries depend on; a new release of the package replaces it."""

APART = (
    *("cli/bench", "cli/dbg", "cli/tc", "cli/verify", "control", "datapath/kernel", "datapath/user"),
    *("lang/include", "maps", "native/_build", "net", "tc", "testing"),
)
"""Directories that no entry is made by; headers, which each compilation hashes itself; build outputs."""

_OTHERS_WRITE = 0o022


def directory(kind: str) -> str:
    """Return the directory of one kind of entry; it may not exist yet."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    return os.path.join(home if os.path.isabs(home) else os.path.expanduser("~/.cache"), "tcbpf", kind)


def name_of(*parts: bytes) -> str:
    """Return the name of the entry derived from `parts`."""
    sha = sha256()
    for part in parts:
        sha.update(len(part).to_bytes(8, "little"))
        sha.update(part)
    return sha.hexdigest()


def load(kind: str, name: str) -> Any:
    """Return a stored value, or None."""
    try:
        with open(os.path.join(directory(kind), name), "rb", buffering=0) as file:
            about = os.fstat(file.fileno())
            raw = file.read()
    except OSError:
        return None
    if about.st_uid != os.geteuid() or about.st_mode & _OTHERS_WRITE:
        return None
    data = raw[DIGEST:]
    if raw[:DIGEST] != _digest(name, data):
        return None
    try:
        return marshal.loads(data)
    except (ValueError, EOFError, TypeError):  # written by another version of Python
        return None


def store(kind: str, name: str, value: Any) -> None:
    """Store a value of numbers, text, bytes, tuples and dictionaries, atomically."""
    place = directory(kind)
    scratch = os.path.join(place, f".{os.getpid()}-{os.urandom(4).hex()}")
    try:
        os.makedirs(place, 0o700, exist_ok=True)
        with open(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            data = marshal.dumps(value)
            file.write(_digest(name, data) + data)
        os.replace(scratch, os.path.join(place, name))
        _forget(place)
    except OSError:
        _unlink(scratch)


def _digest(name: str, data: bytes) -> bytes:
    return sha256(name.encode() + b"\0" + data).digest()


def _forget(place: str) -> None:
    entries = [(entry.stat().st_mtime_ns, entry.path) for entry in os.scandir(place)]
    if len(entries) > KEEP:
        for _, path in sorted(entries)[: len(entries) - KEEP // 2]:
            _unlink(path)


def _unlink(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def file_identity(path: str) -> bytes:
    """Return a file's path, size and times, which change when it does; for a missing file the path alone."""
    try:
        about = os.stat(path)
    except OSError:
        return path.encode()
    return f"{path} {about.st_size} {about.st_mtime_ns} {about.st_ctime_ns}".encode()


@cache
def identity() -> bytes:
    """Return a hash that changes with the part of this package that entries are made by, with Python and with BUILT_ON."""
    here = os.path.dirname(__file__)
    found, places = [sys.version.encode(), *(file_identity(installed(name)) for name in BUILT_ON)], [here]
    apart = {"__pycache__", *(os.path.join(here, name) for name in APART)}
    while places:
        with os.scandir(places.pop()) as entries:
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    about = entry.stat()
                    found.append(f"{entry.path} {about.st_size} {about.st_mtime_ns} {about.st_ctime_ns}".encode())
                elif entry.path not in apart and entry.name not in apart:
                    places.append(entry.path)
    return sha256(b"\0".join(sorted(found))).digest()


def installed(name: str) -> str:
    """Return the path of an installed package's file, without importing the package."""
    return next((path for path in (os.path.join(place, name) for place in sys.path) if os.path.exists(path)), name)

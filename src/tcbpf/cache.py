"""Files by content under $XDG_CACHE_HOME/tcbpf, a directory for each kind: what can always be made again.

An entry's name says what it was made from, and the digest in front of its bytes binds them to that name. One that is damaged,
that lies under another's name or that another user could have written is no entry; a cache that cannot be read or written is
no cache, and no error.
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
"""A file of each package that what is kept depends on, which a new release of it replaces."""

APART = ("__pycache__", "_build", "include")
"""Directories of what is made from the files beside them, and of headers, whose contents are looked at where they are read."""

_OTHERS_WRITE = 0o022


def directory(kind: str) -> str:
    """Return where the entries of a kind lie; it need not exist."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    return os.path.join(home if os.path.isabs(home) else os.path.expanduser("~/.cache"), "tcbpf", kind)


def name_of(*parts: bytes) -> str:
    """Return the name of what is made from `parts`."""
    sha = sha256()
    for part in parts:
        sha.update(len(part).to_bytes(8, "little"))
        sha.update(part)
    return sha.hexdigest()


def load(kind: str, name: str) -> Any:
    """Return the value that `store` kept, or None."""
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
    except (ValueError, EOFError, TypeError):  # another Python's
        return None


def store(kind: str, name: str, value: Any) -> None:
    """Keep a value of numbers, text, bytes, tuples and dictionaries: a reader sees all of it or nothing."""
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
    """Return what changes whenever a file does: its path, size and times; only the path where there is none."""
    try:
        about = os.stat(path)
    except OSError:
        return path.encode()
    return f"{path} {about.st_size} {about.st_mtime_ns} {about.st_ctime_ns}".encode()


@cache
def identity() -> bytes:
    """Return what changes whenever this package does, or Python, or a package that it is built on."""
    found = [("python", sys.version), *(("built on", str(file_identity(installed(name)))) for name in BUILT_ON)]
    places = [os.path.dirname(__file__)]
    while places:
        with os.scandir(places.pop()) as entries:
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    about = entry.stat()
                    found.append((entry.path, f"{about.st_size} {about.st_mtime_ns} {about.st_ctime_ns}"))
                elif entry.name not in APART:
                    places.append(entry.path)
    return sha256(repr(sorted(found)).encode()).digest()


def installed(name: str) -> str:
    """Return the path of a file of an installed package, which is not imported for it."""
    return next((path for path in (os.path.join(place, name) for place in sys.path) if os.path.exists(path)), name)

"""Which C compiler there is: a clang with a BPF target, or the one that pip installed.

What a probe found is remembered by the compiler's identity, so that a warm command starts no process.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

from tcbpf.errors import InputError, NotSupported
from tcbpf.lang import cache

VARIABLE = "TCBPF_CC"
TARGET = "bpfel"


@dataclass(frozen=True, slots=True)
class Compiler:
    """A compiler that takes clang's arguments. `includes` are the directories of its own headers, where it must be told."""

    argv: tuple[str, ...]
    includes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """How messages call it."""
        return "ziglang" if self.includes else " ".join(self.argv)

    def identity(self) -> str:
        """Return what changes when the compiler does: its words, and size and time of its file."""
        path = os.path.realpath(shutil.which(self.argv[0]) or self.argv[0])
        try:
            stat = os.stat(path)
        except OSError:
            return " ".join(self.argv)
        return f"{' '.join(self.argv)} {path} {stat.st_size} {stat.st_mtime_ns}"


def find_compiler() -> Compiler:
    """Return the compiler that TCBPF_CC names, else the first of clang and the pip-installed one with a BPF target.

    TCBPF_CC is a command, or "ziglang" for the pip-installed compiler.

    Raises:  InputError when TCBPF_CC has no BPF target; NotSupported when there is no compiler.
    """
    asked = os.environ.get(VARIABLE, "").strip()
    if asked:
        found = _ziglang() if asked in ("zig", "ziglang") else Compiler(tuple(shlex.split(asked)))
        if found is None or not _has_bpf(found):
            raise InputError(f"{asked!r} cannot compile for BPF", where=VARIABLE, hint="a clang, or ziglang")
        return found
    for candidate in (Compiler(("clang",)) if shutil.which("clang") else None, _ziglang()):
        if candidate is not None and _has_bpf(candidate):
            return candidate
    raise NotSupported("no C compiler for BPF: install clang, or the Python package ziglang")


def _ziglang() -> Compiler | None:
    spec = importlib.util.find_spec("ziglang")
    if spec is None or spec.origin is None:
        return None
    home = Path(spec.origin).parent
    return Compiler((str(home / "zig"), "clang"), (str(home / "lib" / "include"),))


def _has_bpf(compiler: Compiler) -> bool:
    """Return whether the compiler makes BPF objects: asked once, then remembered."""
    if compiler.includes:
        return True
    key = hashlib.sha256(f"probe {compiler.identity()}".encode()).hexdigest()
    known = cache.read(key, ".probe")
    if known is None:
        import subprocess  # a warm start does without

        command = [*compiler.argv, "-target", TARGET, "-x", "c", "-c", "-o", "-", "-"]
        try:
            done = subprocess.run(command, input=b"int f(void) { return 0; }\n", capture_output=True, check=False)
            known = b"yes" if done.returncode == 0 and done.stdout[:4] == b"\x7fELF" else b"no"
        except OSError:
            known = b"no"
        cache.write(key, ".probe", known)
    return known == b"yes"

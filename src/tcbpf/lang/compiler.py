"""The C compiler to use: a clang with a BPF target, or the one that pip installed.

The result of a probe is cached by the compiler's identity, so that a warm command starts no process.
"""

from __future__ import annotations

import os
from importlib.machinery import PathFinder

from tcbpf import cache, filekind
from tcbpf.errors import InputError, NotSupported

# Imports inside functions are for start-up time: a compiler that is known is not asked again.

KIND = "compilers"
VARIABLE = "TCBPF_CC"
TARGET = "bpfel"


class Compiler:
    """A compiler that takes clang's arguments. `includes`: its header directories, for compilers that do not know them."""

    def __init__(self, argv: tuple[str, ...], includes: tuple[str, ...] = ()) -> None:
        self.argv, self.includes = argv, includes

    @property
    def name(self) -> str:
        """The name used in messages."""
        return "ziglang" if self.includes else " ".join(self.argv)

    def identity(self) -> bytes:
        """Return a key that changes with the compiler: its command, and its file's size and times."""
        path = os.path.realpath(which(self.argv[0]) or self.argv[0])
        return " ".join(self.argv).encode() + b"\0" + cache.file_identity(path)


def find_compiler() -> Compiler:
    """Return the compiler that TCBPF_CC names, else the first of clang and the pip-installed one with a BPF target.

    TCBPF_CC is a command, or "ziglang" for the pip-installed compiler.

    Raises:  InputError when TCBPF_CC has no BPF target; NotSupported when there is no compiler.
    """
    asked = os.environ.get(VARIABLE, "").strip()
    if asked:
        found = _ziglang() if asked in ("zig", "ziglang") else Compiler(words(asked))
        if found is None or not _has_bpf(found):
            raise InputError(f"{asked!r} cannot compile for BPF", where=VARIABLE, hint="a clang, or ziglang")
        return found
    for candidate in (Compiler(("clang",)) if which("clang") else None, _ziglang()):
        if candidate is not None and _has_bpf(candidate):
            return candidate
    raise NotSupported("no C compiler for BPF: install clang, or the Python package ziglang")


def words(command: str) -> tuple[str, ...]:
    """Return the words of a command, as a shell splits them."""
    import shlex

    return tuple(shlex.split(command))


def which(command: str) -> str:
    """Return the path of a command, or ""."""
    if os.path.dirname(command):
        return command
    for place in os.environ.get("PATH", os.defpath).split(os.pathsep):
        path = os.path.join(place, command)
        if os.access(path, os.X_OK) and not os.path.isdir(path):
            return path
    return ""


def _ziglang() -> Compiler | None:
    spec = PathFinder.find_spec("ziglang")
    if spec is None or spec.origin is None:
        return None
    home = os.path.dirname(spec.origin)
    return Compiler((os.path.join(home, "zig"), "clang"), (os.path.join(home, "lib", "include"),))


def _has_bpf(compiler: Compiler) -> bool:
    """Tell whether the compiler makes BPF objects; the answer is cached."""
    if compiler.includes:
        return True
    key = cache.name_of(compiler.identity())
    known = cache.load(KIND, key)
    if known is None:
        import subprocess

        command = [*compiler.argv, "-target", TARGET, "-x", "c", "-c", "-o", "-", "-"]
        try:
            done = subprocess.run(command, input=b"int f(void) { return 0; }\n", capture_output=True, check=False)
            known = done.returncode == 0 and filekind.of_bytes(done.stdout) == filekind.OBJECT
        except OSError:
            known = False
        cache.store(KIND, key, known)
    return bool(known)

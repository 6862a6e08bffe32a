"""Compile the runtime: one LLVM bitcode module for the JIT, one shared library for Python.

Standard library only, since the package's build imports this file by path, before anything is installed.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

HERE = os.path.dirname(os.path.realpath(__file__))
SOURCES = os.path.join(HERE, "src")
ENTRY = os.path.join(SOURCES, "runtime.c")  # includes every other file: one translation unit, one module
FLAGS = (
    "-std=gnu11",
    "-O2",
    "-g0",
    "-fno-sanitize=undefined",
    "-fno-stack-protector",
    "-fomit-frame-pointer",
    "-fno-asynchronous-unwind-tables",
    "-fno-strict-aliasing",
    "-fwrapv",
    "-Wall",
    "-Wextra",
    "-Wconversion",
    "-Wshadow",
    "-Wmissing-prototypes",
    "-Wno-unused-parameter",
    "-Werror",
)
#  What ties a function to one CPU or keeps it from being inlined into a function without it.
PINNED = (
    r' "(?:target-cpu|target-features|tune-cpu|no-builtins|frame-pointer|stack-protector-buffer-size)'
    r'(?:"="[^"]*)?"'
)


class BuildError(Exception):
    """The compiler failed; str() is what it wrote."""


def directory() -> str:
    """Return where the artifacts lie: beside the sources, or in the user's cache when that cannot be written."""
    beside = os.path.join(HERE, "_build")
    if os.path.exists(os.path.join(beside, "stamp")) or os.access(HERE, os.W_OK):
        return beside
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(cache, "tcbpf", f"runtime-{digest()[:16]}")


def digest() -> str:
    """Return a hash of everything the artifacts are made from."""
    import hashlib

    sha = hashlib.sha256(" ".join((os.uname().machine, *FLAGS)).encode())
    for path in (os.path.join(HERE, "build.py"), *_sources()):
        with open(path, "rb") as file:
            sha.update(os.path.relpath(path, HERE).encode() + b"\0" + file.read() + b"\0")
    return sha.hexdigest()


def _sources() -> list[str]:
    found = (os.path.join(folder, name) for folder, _, names in os.walk(SOURCES) for name in names)
    return sorted(path for path in found if path.endswith((".c", ".h")))


def build(out: str | Path | None = None) -> str:
    """Bring `runtime.bc` and `libtcbpf.so` up to date and return their directory.

    Returns: at once when the sources' hash is the one of the last build.
    Raises:  BuildError when the compiler fails.
    """
    place = os.fspath(out or directory())
    wanted = digest()
    if _stamp(place) != wanted:
        _make(place, wanted)
    return place


def _stamp(place: str) -> str:
    try:
        with open(os.path.join(place, "stamp")) as file:
            return file.read()
    except FileNotFoundError:
        return ""


# --- with a compiler; nothing from here on is needed when all is up to date, nor what it imports ------------------------


def _make(place: str, wanted: str) -> None:
    import fcntl
    import tempfile
    from pathlib import Path

    out = Path(place)
    out.mkdir(parents=True, exist_ok=True)
    with open(out / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _stamp(place) != wanted:
            with tempfile.TemporaryDirectory(dir=out) as scratch:
                _bitcode(Path(scratch), out / "runtime.bc")
                _library(Path(scratch), out / "libtcbpf.so")
                _replace(Path(scratch) / "stamp", out / "stamp", wanted)


def _replace(scratch: Path, path: Path, text: str) -> None:
    scratch.write_text(text)
    scratch.replace(path)


def _target() -> tuple[str, tuple[str, ...]]:
    machine = os.uname().machine
    if machine == "x86_64":
        return "x86_64-linux-none", ("-mcpu=x86_64_v2",)
    return f"{machine}-linux-none", ()


def _bitcode(scratch: Path, out: Path) -> None:
    """Compile to IR text, unpin it from the CPU that it was optimised for, and write it as bitcode."""
    import re

    target, cpu = _target()
    text, module = scratch / "runtime.ll", scratch / "runtime.bc"
    _zig(
        "cc",
        "-target",
        target,
        *cpu,
        *FLAGS,
        "-fPIC",
        "-S",
        "-emit-llvm",
        ENTRY,
        "-o",
        str(text),
        "-Wno-unused-command-line-argument",
    )
    text.write_text(re.sub(PINNED, "", text.read_text()))
    _zig(
        "clang",
        f"--target={os.uname().machine}-linux-gnu",
        "-Wno-override-module",
        "-x",
        "ir",
        str(text),
        "-c",
        "-emit-llvm",
        "-o",
        str(module),
    )
    module.replace(out)


def _library(scratch: Path, out: Path) -> None:
    target, cpu = _target()
    made = scratch / "libtcbpf.so"
    _zig(
        "cc",
        "-target",
        target,
        *cpu,
        *FLAGS,
        "-fPIC",
        "-shared",
        "-nostdlib",
        "-Wl,-z,defs",
        "-DTCBPF_LIBRARY",
        ENTRY,
        "-o",
        str(made),
    )
    made.replace(out)


def _zig(*args: str) -> None:
    import subprocess
    import sys

    command = (sys.executable, "-m", "ziglang", *args)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command)}\n{done.stderr}")


if __name__ == "__main__":
    print(build())

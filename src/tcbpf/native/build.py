"""Compile the runtime: one LLVM bitcode module for the JIT, one shared library for Python.

Standard library only, since the package's build imports this file by path, before anything is installed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCES = HERE / "src"
ENTRY = SOURCES / "runtime.c"                # includes every other file: one translation unit, one module
FLAGS = (
    "-std=gnu11", "-O2", "-g0", "-fno-sanitize=undefined", "-fno-stack-protector", "-fomit-frame-pointer",
    "-fno-asynchronous-unwind-tables", "-fno-strict-aliasing", "-fwrapv",
    "-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror",
)
#  What ties a function to one CPU or keeps it from being inlined into a function without it.
PINNED = re.compile(r' "(?:target-cpu|target-features|tune-cpu|no-builtins|frame-pointer|stack-protector-buffer-size)'
                    r'(?:"="[^"]*)?"')


class BuildError(Exception):
    """The compiler failed; str() is what it wrote."""


def directory() -> Path:
    """Return where the artifacts lie: beside the sources, or in the user's cache when that cannot be written."""
    beside = HERE / "_build"
    if (beside / "stamp").exists() or os.access(HERE, os.W_OK):
        return beside
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "tcbpf" / f"runtime-{digest()[:16]}"


def digest() -> str:
    """Return a hash of everything the artifacts are made from."""
    sha = hashlib.sha256(" ".join((platform.machine(), *FLAGS)).encode())
    for path in (Path(__file__), *sorted(SOURCES.glob("*.[ch]"))):
        sha.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return sha.hexdigest()


def build(out: Path | None = None) -> Path:
    """Bring `runtime.bc` and `libtcbpf.so` up to date and return their directory.

    Returns: at once when the sources' hash is the one of the last build.
    Raises:  BuildError when the compiler fails.
    """
    out = out or directory()
    stamp, wanted = out / "stamp", digest()
    if _read(stamp) == wanted:
        return out
    out.mkdir(parents=True, exist_ok=True)
    with open(out / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _read(stamp) != wanted:
            with tempfile.TemporaryDirectory(dir=out) as scratch:
                _bitcode(Path(scratch), out / "runtime.bc")
                _library(Path(scratch), out / "libtcbpf.so")
                _replace(Path(scratch) / "stamp", stamp, wanted)
    return out


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def _replace(scratch: Path, path: Path, text: str) -> None:
    scratch.write_text(text)
    scratch.replace(path)


def _target() -> tuple[str, tuple[str, ...]]:
    machine = platform.machine()
    if machine == "x86_64":
        return "x86_64-linux-none", ("-mcpu=x86_64_v2",)
    return f"{machine}-linux-none", ()


def _bitcode(scratch: Path, out: Path) -> None:
    """Compile to IR text, unpin it from the CPU that it was optimised for, and write it as bitcode."""
    target, cpu = _target()
    text, module = scratch / "runtime.ll", scratch / "runtime.bc"
    _zig("cc", "-target", target, *cpu, *FLAGS, "-fPIC", "-S", "-emit-llvm", str(ENTRY), "-o", str(text),
         "-Wno-unused-command-line-argument")
    text.write_text(PINNED.sub("", text.read_text()))
    _zig("clang", f"--target={platform.machine()}-linux-gnu", "-Wno-override-module", "-x", "ir", str(text),
         "-c", "-emit-llvm", "-o", str(module))
    module.replace(out)


def _library(scratch: Path, out: Path) -> None:
    target, cpu = _target()
    made = scratch / "libtcbpf.so"
    _zig("cc", "-target", target, *cpu, *FLAGS, "-fPIC", "-shared", "-nostdlib", "-Wl,-z,defs", "-DTCBPF_LIBRARY",
         str(ENTRY), "-o", str(made))
    made.replace(out)


def _zig(*args: str) -> None:
    command = (sys.executable, "-m", "ziglang", *args)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command)}\n{done.stderr}")


if __name__ == "__main__":
    print(build())

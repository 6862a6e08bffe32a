"""Restricted C to an object file, by the compiler that is there, with headers of our own and a cache by content.

Source:  Paper, "LLVM". SPEC 95, 171, 183.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tcbpf.errors import CompileError, InputError
from tcbpf.lang import assembly, cache
from tcbpf.lang.compiler import TARGET, Compiler, find_compiler
from tcbpf.obj import load
from tcbpf.obj.program import Object

INCLUDE = Path(__file__).parent / "include"
MCPU = "v3"
"""The instruction set when none is said: 32-bit operations and jumps, in every kernel since 5.1."""

FLAGS = ("-O2", "-ffreestanding", "-fno-stack-protector", "-fno-jump-tables", "-Wno-unknown-warning-option", "-Wno-visibility",
         "-Wno-address-of-packed-member")
STDIN = "<stdin>"
EMBEDDED = ("-gdwarf-5", "-gembed-source")
"""For text without a file: where the compiler finds the lines that BTF quotes."""

Defines = Sequence[str] | Mapping[str, str | int | None]


@dataclass(frozen=True, slots=True)
class _Job:
    """One compilation: everything that its result depends on but the headers."""

    compiler: Compiler
    flags: tuple[str, ...]
    name: str                        # the source's path, as messages and debug information call it
    text: bytes
    directory: str

    def key(self) -> str:
        """Return the name of the result in the cache."""
        parts = (self.compiler.identity(), *self.flags, self.name, self.directory)
        return hashlib.sha256("\0".join(parts).encode() + b"\0" + self.text).hexdigest()


def compile(
    path: str | os.PathLike[str], *, mcpu: str = MCPU, include_dirs: Sequence[str | os.PathLike[str]] = (),
    defines: Defines = (), debug: bool = True,
) -> Object:
    """Return the Object that a C source file compiles to; what the compiler warned of is among its `notes`.

    A file whose name ends in ".s" is assembly text: `lang.assembly`.

    Raises:  InputError when the file cannot be read; CompileError; ObjectError; AsmError.
    """
    if os.fspath(path).endswith(".s"):
        return assembly.read(path)
    raw, words = _cached(_job(Path(path), mcpu, include_dirs, defines, debug, ()))
    obj = load(raw, path=os.fspath(path))
    return replace(obj, notes=(words.rstrip(), *obj.notes)) if words else obj


def compile_c(
    source: str | os.PathLike[str], *, mcpu: str = MCPU, include_dirs: Sequence[str | os.PathLike[str]] = (),
    defines: Defines = (), debug: bool = True, extra: Sequence[str] = (),
) -> bytes:
    """Return the ELF bytes that C source compiles to.

    `source` is a path, or a string with a line break in it, which is the text itself (called <stdin> in messages). `defines`
    are "NAME", "NAME=VALUE" or a mapping; `extra` are words for the compiler. `debug` asks for BTF, which maps in `.maps` need.
    A result is kept by content: source, every header that was read, flags and compiler; a header that appears later in front
    of one of those is not noticed.

    Raises:  InputError when the file cannot be read; CompileError with the compiler's own words; NotSupported without one.
    """
    return _cached(_job(source, mcpu, include_dirs, defines, debug, extra))[0]


def _job(
    source: str | os.PathLike[str], mcpu: str, include_dirs: Sequence[str | os.PathLike[str]], defines: Defines, debug: bool,
    extra: Sequence[str],
) -> _Job:
    compiler = find_compiler()
    flags = (
        *FLAGS, *(("-g",) if debug else ()), f"-mcpu={mcpu}", *(f"-I{os.path.abspath(d)}" for d in include_dirs),
        *_defined(defines), *extra, *_search_path(compiler),
    )
    if isinstance(source, str) and "\n" in source:
        return _Job(compiler, (*flags, *(EMBEDDED if debug else ())), STDIN, source.encode(), os.getcwd())
    path = os.path.abspath(source)
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise InputError(error.strerror or str(error), where=os.fspath(source)) from None
    return _Job(compiler, flags, path, text, os.path.dirname(path))


def _defined(defines: Defines) -> list[str]:
    if isinstance(defines, Mapping):
        return [f"-D{name}" if value is None else f"-D{name}={value}" for name, value in defines.items()]
    return [f"-D{text}" for text in defines]


def _search_path(compiler: Compiler) -> list[str]:
    """Return where headers are looked for: ours, the compiler's, then this machine's kernel headers where it has any."""
    system = (f"/usr/include/{os.uname().machine}-linux-gnu", "/usr/include")
    return [
        "-nostdlibinc", "-isystem", str(INCLUDE), *(word for d in compiler.includes for word in ("-isystem", d)),
        *(word for d in system if os.path.isdir(d) for word in ("-idirafter", d)),
    ]


# --- the cache: KEY.json lists what was read and the result's digest; KEY.o is the result ------------------------------


def _cached(job: _Job) -> tuple[bytes, str]:
    """Return the object and the compiler's warnings, kept or made."""
    key = job.key()
    held = _held(key)
    if held is not None:
        return held
    import tempfile  # a warm start does without

    with tempfile.TemporaryDirectory(prefix="tcbpf-") as scratch:
        raw, words, headers = _run(job, scratch)
    manifest = {"object": _digest(raw), "headers": {path: _file_digest(path) for path in headers},
                "warnings": words}
    cache.write(key, ".o", raw)
    cache.write(key, ".json", json.dumps(manifest).encode())
    return raw, words


def _held(key: str) -> tuple[bytes, str] | None:
    """Return the kept object and warnings if it is whole and every header is still what it was."""
    text, raw = cache.read(key, ".json"), cache.read(key, ".o")
    if text is None or raw is None:
        return None
    try:
        manifest = json.loads(text)
        same = manifest["object"] == _digest(raw) and all(_file_digest(p) == d for p, d in manifest["headers"].items())
        words = str(manifest["warnings"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return (raw, words) if same else None


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _file_digest(path: str) -> str:
    try:
        return _digest(Path(path).read_bytes())
    except OSError:
        return ""


# --- the compiler -----------------------------------------------------------------------------------------------------


def _run(job: _Job, scratch: str) -> tuple[bytes, str, list[str]]:
    """Run the compiler and return the object, its warnings and the headers it read."""
    import subprocess

    out, deps = os.path.join(scratch, "out.o"), os.path.join(scratch, "out.d")
    what = ["-x", "c", "-"] if job.name == STDIN else [job.name]
    command = [*job.compiler.argv, "-target", TARGET, *job.flags, "-MD", "-MF", deps, "-MT", "out", "-c", "-o", out, *what]
    done = subprocess.run(command, input=job.text, cwd=job.directory, capture_output=True, check=False)
    words = done.stderr.decode("utf-8", "backslashreplace")
    if done.returncode:
        first = next((line for line in words.splitlines() if "error:" in line), words.strip().split("\n")[-1])
        raise CompileError(first.split("error:", 1)[-1].strip() or "the compiler failed", where=job.name, diagnostics=words,
                           hint=f"said {job.compiler.name}")
    read = _dependencies(Path(deps).read_text(errors="surrogateescape"))
    headers = [os.path.join(job.directory, path) for path in read if path not in (job.name, "-", STDIN)]
    return Path(out).read_bytes(), words, headers


def _dependencies(text: str) -> list[str]:
    """Return the files of a Makefile rule: blank-separated, a backslash quotes a blank, a backslash at a line's end joins."""
    words = text.split(":", 1)[1].replace("\\\n", " ").replace("\\ ", "\0").split()
    return [word.replace("\0", " ").replace("$$", "$") for word in words]

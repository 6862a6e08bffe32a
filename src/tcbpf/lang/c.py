"""Restricted C to an object file, with the installed compiler, our own headers and a cache keyed by content.

Source:  Paper, "LLVM". SPEC 95, 171, 183.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from tcbpf import cache, filekind
from tcbpf.errors import CompileError, InputError
from tcbpf.lang.compiler import TARGET, Compiler, find_compiler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tcbpf.obj.program import Object

    Defines = Sequence[str] | Mapping[str, str | int | None]

# Imports inside functions are for start-up time: what the cache holds needs no compiler, and no reader here.

KIND = "objects"
INCLUDE = os.path.join(os.path.dirname(__file__), "include")
MCPU = "v3"
"""The default instruction set: 32-bit operations and jumps, in every kernel since 5.1."""

FLAGS = (
    "-O2",
    "-ffreestanding",
    "-fno-stack-protector",
    "-fno-jump-tables",
    "-Wno-unknown-warning-option",
    "-Wno-visibility",
    "-Wno-address-of-packed-member",
)
STDIN = "<stdin>"
EMBEDDED = ("-gdwarf-5", "-gembed-source")
"""For text without a file: where the compiler finds the lines that BTF quotes."""


class _Job:
    """One compilation: everything that its result depends on but the headers.

    `name` is the source's path, as messages and debug information call it.
    """

    def __init__(self, compiler: Compiler, flags: tuple[str, ...], name: str, text: bytes, directory: str) -> None:
        self.compiler, self.flags, self.name, self.text, self.directory = compiler, flags, name, text, directory

    def key(self) -> str:
        """Return the name of the result in the cache."""
        words = "\0".join((*self.flags, self.name, self.directory))
        return cache.name_of(self.compiler.identity(), os.fsencode(words), self.text)


def compile(
    path: str | os.PathLike[str],
    *,
    mcpu: str = MCPU,
    include_dirs: Sequence[str | os.PathLike[str]] = (),
    defines: Defines = (),
    debug: bool = True,
) -> Object:
    """Return the Object of a C source file; the compiler's warnings are among its `notes`.

    Assembly text is read by `lang.assembly`.

    Raises:  InputError when the file cannot be read; CompileError; ObjectError; AsmError.
    """
    name = os.fspath(path)
    if filekind.of_path(name) == filekind.ASSEMBLY:
        from tcbpf.lang import assembly

        return assembly.read(name)
    return read(name, *_cached(_job(name, mcpu, include_dirs, defines, debug, ())))


def read(path: str, raw: bytes, warnings: str) -> Object:
    """Return the Object of a compiled C source."""
    from dataclasses import replace

    from tcbpf.obj import load

    obj = load(raw, path=path)
    return replace(obj, notes=(warnings.rstrip(), *obj.notes)) if warnings else obj


def compiled(path: str) -> tuple[bytes, str]:
    """Return the ELF bytes of a C source, and the compiler's warnings.

    Raises:  InputError when the file cannot be read; CompileError; NotSupported without a compiler.
    """
    return _cached(_job(path, MCPU, (), (), True, ()))


def compile_c(
    source: str | os.PathLike[str],
    *,
    mcpu: str = MCPU,
    include_dirs: Sequence[str | os.PathLike[str]] = (),
    defines: Defines = (),
    debug: bool = True,
    extra: Sequence[str] = (),
) -> bytes:
    """Return the ELF bytes of a C source.

    `source` is a path, or a string with a line break in it, which is the text itself (called <stdin> in messages). `defines`
    are "NAME", "NAME=VALUE" or a mapping; `extra` are words for the compiler. `debug` asks for BTF, which maps in `.maps` need.
    A result is kept by content: source, every header that was read, flags and compiler.

    Raises:  InputError when the file cannot be read; CompileError with the compiler's own words; NotSupported without one.
    """
    return _cached(_job(source, mcpu, include_dirs, defines, debug, extra))[0]


def _job(
    source: str | os.PathLike[str],
    mcpu: str,
    include_dirs: Sequence[str | os.PathLike[str]],
    defines: Defines,
    debug: bool,
    extra: Sequence[str],
) -> _Job:
    compiler = find_compiler()
    flags = (
        *FLAGS,
        *(("-g",) if debug else ()),
        f"-mcpu={mcpu}",
        *(f"-I{os.path.abspath(d)}" for d in include_dirs),
        *_defined(defines),
        *extra,
        *_search_path(compiler),
    )
    if isinstance(source, str) and "\n" in source:
        return _Job(compiler, (*flags, *(EMBEDDED if debug else ())), STDIN, source.encode(), os.getcwd())
    path = os.path.abspath(source)
    try:
        with open(path, "rb") as file:
            text = file.read()
    except OSError as error:
        raise InputError(error.strerror or str(error), where=os.fspath(source)) from None
    return _Job(compiler, flags, path, text, os.path.dirname(path))


def _defined(defines: Defines) -> list[str]:
    if isinstance(defines, Mapping):
        return [f"-D{name}" if value is None else f"-D{name}={value}" for name, value in defines.items()]
    return [f"-D{text}" for text in defines]


def _search_path(compiler: Compiler) -> list[str]:
    """Return the header search path: ours, the compiler's, then this machine's kernel headers if it has any."""
    system = (f"/usr/include/{os.uname().machine}-linux-gnu", "/usr/include")
    return [
        "-nostdlibinc",
        "-isystem",
        INCLUDE,
        *(word for d in compiler.includes for word in ("-isystem", d)),
        *(word for d in system if os.path.isdir(d) for word in ("-idirafter", d)),
    ]


# --- the cache: an entry lists the headers that were read, and the places where another would have been found first -------


def _cached(job: _Job) -> tuple[bytes, str]:
    """Return the object and the compiler's warnings, from the cache or by compiling."""
    key = job.key()
    kept = cache.load(KIND, key)
    if kept is not None:
        raw, words, headers, nowhere = kept
        if all(_file_digest(path) == digest for path, digest in headers.items()) and not any(map(os.path.exists, nowhere)):
            return raw, words
    import tempfile
    import time

    began = time.time_ns()
    with tempfile.TemporaryDirectory(prefix="tcbpf-") as scratch:
        raw, words, found = _run(job, scratch)
    headers = {path: _file_digest(path) for path in found}
    if all(_changed(path) <= began for path in (job.name, *found)):  # else nobody knows which text the compiler saw
        cache.store(KIND, key, (raw, words, headers, _passed_over(job, found)))
    return raw, words


def _changed(path: str) -> int:
    """Return when a file was last written, in nanoseconds."""
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def _file_digest(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return cache.sha256(file.read()).digest()
    except OSError:
        return b""


def _passed_over(job: _Job, headers: Iterable[str]) -> tuple[str, ...]:
    """Return the paths where the compiler would have found other headers, had they existed."""
    words = [job.directory, *(word.removeprefix("-I") for word in job.flags if word.startswith(("-I", "/")))]
    names = set()
    for path in headers:  # as the source may have called it
        names |= {path[len(place) + 1 :] for place in words if path.startswith(place + os.sep)} or {os.path.basename(path)}
    places = {*words, *map(os.path.dirname, headers)}
    asked = {os.path.join(place, name) for place in places for name in names}
    return tuple(sorted(path for path in asked if not os.path.exists(path)))


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
        raise CompileError(
            first.split("error:", 1)[-1].strip() or "the compiler failed",
            where=job.name,
            diagnostics=words,
            hint=f"reported by {job.compiler.name}",
        )
    with open(out, "rb") as made, open(deps, errors="surrogateescape") as rule:
        read = _dependencies(rule.read())
        headers = [os.path.join(job.directory, path) for path in read if path not in (job.name, "-", STDIN)]
        return made.read(), words, headers


def _dependencies(text: str) -> list[str]:
    """Return the files of a Makefile rule: blank-separated, a backslash quotes a blank, a backslash at a line's end joins."""
    words = text.split(":", 1)[1].replace("\\\n", " ").replace("\\ ", "\0").split()
    return [word.replace("\0", " ").replace("$$", "$") for word in words]

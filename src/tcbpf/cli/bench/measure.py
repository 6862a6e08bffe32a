"""One program as machine code, three times: ours, the kernel's and a C compiler's.

Every figure is the least of several rounds, the engines taking turns within a round, with the time of an empty program
subtracted. Engines that do not give the same verdict and the same packet are not compared.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import math
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tcbpf.errors import CompileError, InputError, InternalError, SysError
from tcbpf.lang import c
from tcbpf.native import build
from tcbpf.native.runtime import Env, MapFile, Skb
from tcbpf.net import build as frames
from tcbpf.obj.link import link
from tcbpf.obj.program import Object
from tcbpf.verifier import Verified, verify
from tcbpf.vm.executable import Options, compile

ROUNDS, SLICE_NS = 60, 1_000_000  # short, so that some fall between two turns of other processes
_FLAGS = (
    "-O3",
    "-march=native",
    "-flto",
    "-fPIC",
    "-fno-sanitize=undefined",
    "-fno-strict-aliasing",
    "-fwrapv",
    "-fomit-frame-pointer",
    "-fno-stack-protector",
    "-w",
)
_REPEAT = ctypes.CFUNCTYPE(ctypes.c_uint64, *[ctypes.c_void_p] * 4, ctypes.c_uint64)


def packet() -> bytes:
    """Return the packet that the programs run on: TCP with options over IPv4, 130 bytes."""
    options = bytes.fromhex("020405b40402080a010203040506070801030307")
    segment = bytearray(frames.tcp(options + b"GET /index.html?a=1&b=22 HTTP/1.1 Host: example.org", sport=8080, dport=443))
    segment[12] = (20 + len(options)) // 4 << 4
    return frames.ether(frames.ipv4(bytes(segment), protocol=socket.IPPROTO_TCP))


@dataclass
class Subject:
    """One benchmark program, ready to run on every engine there is. `times` are nanoseconds a run, by engine."""

    name: str
    insns: int
    runs: dict[str, Callable[[int], float]]
    compile_ms: float
    times: dict[str, float] = field(default_factory=dict)
    keep: list[Any] = field(default_factory=list)


def sources(directory: Path) -> list[Path]:
    """Return the benchmark programs, the empty one first.

    Raises:  InputError when the directory holds none.
    """
    found = sorted(path for path in directory.glob("*.c") if path.stem not in ("empty", "port", "thousand"))
    if not found or not (directory / "empty.c").exists():
        raise InputError("no benchmark programs", where=str(directory), hint="run in a checkout, or say --programs DIR")
    return [directory / "empty.c", *found]


def prepare(path: Path, kernel: Any) -> Subject:
    """Return one program compiled for every engine; `kernel` is a Kernel datapath or None.

    Raises:  InternalError when the engines' results differ.
    """
    obj = c.compile(path)
    verified = verify(link(obj))
    maps = [MapFile.create(spec.spec) for spec in verified.program.maps]
    took = min(_milliseconds(lambda: compile(verified, maps, Options(cache=False)).close()) for _ in range(3))
    executable = compile(verified, maps, Options(cache=False))
    native = ctypes.CDLL(str(_native(path)))
    repeat = _REPEAT(_address(native, "repeat"))
    for spec, made in zip(verified.program.maps, maps, strict=True):
        ctypes.c_void_p.in_dll(native, spec.spec.name).value = made.address
    frame, env, maps_at = packet(), Env(clock=0), executable.maps_address
    entries = {"jit": ctypes.c_void_p.from_address(executable.address).value or 0, "native": _address(native, "entry")}
    skbs = {engine: Skb().load(frame) for engine in entries}
    results = {}
    for engine, entry in entries.items():
        verdict = repeat(entry, skbs[engine].address, env.address, maps_at, 1) & 0xFFFFFFFF
        results[engine] = verdict, skbs[engine].packet()
    runs = {engine: _timed(repeat, entry, skbs[engine], env, maps_at) for engine, entry in entries.items()}
    keep: list[Any] = [executable, native, skbs, env, maps]
    if kernel is not None:
        prog = kernel.load(obj)
        keep.append(prog)
        run = prog.run(frame)
        results["kernel"] = run.verdict & 0xFFFFFFFF, run.packet
        runs["kernel"] = lambda n: float(prog.run(frame, repeat=n).duration_ns)
    if any(result != results["jit"] for result in results.values()):
        raise InternalError(f"{path}: not the same work: " + ", ".join(f"{e} {v}" for e, (v, _) in results.items()))
    return Subject(path.stem, len(verified.program.insns), runs, took, keep=keep)


def _address(library: ctypes.CDLL, name: str) -> int:
    return ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0


def _timed(repeat: Callable[..., int], fn: int, skb: Skb, env: Env, maps: int) -> Callable[[int], float]:
    def run(n: int) -> float:
        began = time.perf_counter_ns()
        repeat(fn, skb.address, env.address, maps, n)
        return (time.perf_counter_ns() - began) / n

    return run


def measure(subjects: Sequence[Subject], rounds: int = ROUNDS) -> None:
    """Fill in the times of all subjects, in rounds in which each takes its turn on every engine."""
    counts = {}
    for subject in subjects:
        for engine, run in subject.runs.items():
            counts[subject.name, engine] = max(int(SLICE_NS / max(run(1000), 1)), 1000)
    for _ in range(rounds):
        for subject in subjects:
            for engine, run in subject.runs.items():
                took = run(counts[subject.name, engine])
                subject.times[engine] = min(took, subject.times.get(engine, took))


def ratio(subject: Subject, empty: Subject, engine: str) -> float | None:
    """Return our time over another engine's, the empty program's subtracted from both; None without that engine."""
    if engine not in subject.times:
        return None
    ours, theirs = (max(subject.times[e] - empty.times[e], 0.25) for e in ("jit", engine))
    return ours / theirs


def geomean(values: Iterable[float]) -> float:
    """Return the geometric mean."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs))


def loading(path: Path) -> dict[str, float]:
    """Return how long loading a program takes, in milliseconds: cold, and from the code cache, verification aside."""
    verified = _verified(c.compile(path))
    with tempfile.TemporaryDirectory() as home:
        before = os.environ.get("XDG_CACHE_HOME")
        os.environ["XDG_CACHE_HOME"] = home
        try:
            cold = min(_milliseconds(lambda: compile(verified, [], Options(cache=False)).close()) for _ in range(3))
            compile(verified, [], Options()).close()
            cached = min(_milliseconds(lambda: compile(verified, [], Options()).close()) for _ in range(20))
        finally:
            if before is None:
                del os.environ["XDG_CACHE_HOME"]
            else:
                os.environ["XDG_CACHE_HOME"] = before
    return {"insns": float(len(verified.program.insns)), "cold_ms": cold, "cached_ms": cached}


def _verified(obj: Object) -> Verified:
    return verify(link(obj))


def _milliseconds(run: Callable[[], object]) -> float:
    began = time.perf_counter_ns()
    run()
    return (time.perf_counter_ns() - began) / 1e6


class Timed:
    """A command's least wall time in seconds over several runs, and its output from each."""

    def __init__(self, *command: str) -> None:
        self.command, self.seconds, self.printed = command, float("inf"), list[str]()

    def once(self, environment: dict[str, str]) -> None:
        """Run the command.

        Raises:  SysError when it fails.
        """
        began = time.perf_counter()
        done = subprocess.run(self.command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
        self.seconds = min(self.seconds, time.perf_counter() - began)
        self.printed.append(done.stdout)
        if done.returncode != 0:
            raise SysError(errno.EIO, " ".join(self.command), done.stderr.strip().split("\n")[-1])


def in_turns(commands: Sequence[Timed], environment: dict[str, str], times: int = 15) -> None:
    """Run commands in turns, so that all of them meet the same noise."""
    for _ in range(times):
        for command in commands:
            command.once(environment)


def _native(path: Path) -> Path:
    """Return the shared library of one program compiled for this machine, the runtime linked in.

    Raises:  CompileError.
    """
    directory = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tcbpf" / "bench"
    directory.mkdir(parents=True, exist_ok=True)
    headers = b"".join((path.parent / name).read_bytes() for name in ("native.h", "packet.h"))
    runtime = _built(directory, build.digest().encode(), "runtime.o", (str(build.ENTRY), "-c"))
    program = _built(
        directory,
        headers + path.read_bytes(),
        f"{path.stem}.o",
        (str(path), "-c", "-I", str(c.INCLUDE), "-include", str(path.parent / "native.h")),
    )
    return _built(
        directory,
        runtime.name.encode() + program.name.encode(),
        f"{path.stem}.so",
        (str(program), str(runtime), "-shared", "-Wl,-Bsymbolic"),
    )


def _built(directory: Path, content: bytes, name: str, arguments: Sequence[str]) -> Path:
    digest = hashlib.sha256(" ".join((*_FLAGS, *arguments)).encode() + content).hexdigest()[:16]
    made = directory / f"{digest}-{name}"
    if not made.exists():
        scratch = made.with_name(f".{os.getpid()}-{made.name}")
        done = subprocess.run(
            [sys.executable, "-m", "ziglang", "cc", *_FLAGS, *arguments, "-o", str(scratch)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise CompileError("the native form does not compile", where=name, diagnostics=done.stderr)
        scratch.replace(made)
    return made

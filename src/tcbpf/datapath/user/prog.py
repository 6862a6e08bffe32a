"""A loaded program of the user datapath."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING, Any, Self

from tcbpf.control.given import CB_WORDS, repeat_of
from tcbpf.datapath.base import PcapStats, Run
from tcbpf.datapath.capture.loop import run_capture, taken
from tcbpf.datapath.user import progfile
from tcbpf.datapath.user.maps import UserMap
from tcbpf.errors import NotSupported, SysError
from tcbpf.maps.map import Map
from tcbpf.native.library import function, helpers
from tcbpf.native.runtime import Env, Skb
from tcbpf.native.watch import Watch, default_limit
from tcbpf.obj.program import Program
from tcbpf.shared import Shared
from tcbpf.tables.maps import OF_PROGRAMS
from tcbpf.tables.progs import PROG_TYPES
from tcbpf.verifier import verify
from tcbpf.verifier.verified import Verified
from tcbpf.vm.engine import unbounded
from tcbpf.vm.executable import COMPILED, Executable, compile

if TYPE_CHECKING:
    from tcbpf.datapath.user.objects import Objects
    from tcbpf.datapath.user.runtime import Runtime
    from tcbpf.native.runtime import MapFile
    from tcbpf.vm.executable import Options

LINK_LAYER = ("sched_cls", "sched_act")
"""The program types that BPF_PROG_TEST_RUN gives the link header: is_l2 in bpf_prog_test_run_skb()."""


SHORT = 1000
"""So many runs of a program are over before anyone wants to stop them."""


class UserProg(Shared):
    """One program, by its file, which holds it; verified and compiled in every process that runs it.

    A program that this process loads is compiled then; one that it opens, when it first runs.
    """

    def __init__(
        self,
        runtime: Runtime,
        options: Options,
        fd: int,
        record: progfile.ProgRecord,
        maps: tuple[Map, ...],
        files: list[MapFile] | None = None,
        verified: Verified | None = None,
        executable: Executable | None = None,
    ) -> None:
        super().__init__()
        self._compiling = Lock()
        self._runtime, self._options, self._fd, self.record, self.maps = runtime, options, fd, record, maps
        self._files = [raw(m).again() for m in maps] if files is None else files
        self._verified, self._executable = verified, executable

    @classmethod
    def load(cls, objects: Objects, runtime: Runtime, options: Options, program: Program, log_level: int = 0) -> UserProg:
        """Verify and compile a program over live maps, and keep it.

        Raises:  VerifierError; NotSupported, by name, for a helper or an engine that is not here; SysError with EINVAL for a
                 program array that serves others.
        """
        verified = proved(program, log_level)
        missing = sorted(verified.helpers - helpers().keys() - COMPILED)
        if missing:
            raise NotSupported(f"{program.name}: the user datapath has no helper bpf_{missing[0]}")
        maps = tuple(m for m in program.maps if isinstance(m, Map))
        with contextlib.ExitStack() as undo:
            files = [undo.enter_context(contextlib.closing(raw(m).again())) for m in maps]
            executable = None
            if runs_here(program.type):
                executable = undo.enter_context(contextlib.closing(compile(verified, files, options)))
            for used in maps:
                if used.spec.type in OF_PROGRAMS:
                    objects.claim(raw(used).file, f"load a program {program.name}", program.type, program.attach_type)
            fd, record = objects.create_prog(program, tuple(raw(m) for m in maps), verified.insns_processed)
            undo.pop_all()
        return cls(runtime, options, fd, record, maps, files, verified, executable)

    @classmethod
    def adopt(cls, objects: Objects, runtime: Runtime, options: Options, fd: int) -> UserProg:
        """Take a descriptor of a program's file, which is then this object's."""
        try:
            head = objects.head(fd)
            maps = tuple(Map(objects.named_map(id)) for id in head["maps"])
            return cls(runtime, options, fd, objects.record(fd, maps, head), maps)
        except BaseException:
            os.close(fd)
            raise

    @property
    def id(self) -> int:
        """Its number in this home."""
        return self.record.id

    @property
    def name(self) -> str:
        """Its function's name."""
        return self.record.program.name

    @property
    def type(self) -> str:
        """Its program type, by tables.progs."""
        return self.record.program.type

    @property
    def link_header(self) -> bool:
        """True when a run starts at the link header."""
        return self.type in LINK_LAYER or self.record.program.classic

    @property
    def tag(self) -> bytes:
        """The first 8 bytes of the hash of its instructions."""
        return self.record.tag

    @property
    def jited(self) -> bool:
        """True when it runs as machine code."""
        return self._options.engine == "jit"

    @property
    def insns_processed(self) -> int:
        """The instructions that the verifier visited."""
        return self.record.insns_processed

    @property
    def log(self) -> str:
        """The verifier's log."""
        return self.verified.log

    @property
    def verified(self) -> Verified:
        """The program, verified in this process."""
        if self._verified is None:
            self._verified = proved(self.record.program)
        return self._verified

    @property
    def executable(self) -> Executable:
        """The program, compiled in this process.

        Raises:  NotSupported for one that was opened, where no engine here runs it.
        """
        with self.using(), self._compiling:
            if self._executable is None:
                self._executable = compile(self.verified, self._files, self._options)
            return self._executable

    def assembly(self) -> str:
        """Return the machine code that runs, in this processor's assembly text; it is new each time where it is blinded.

        Raises:  NotSupported where the interpreter runs it.
        """
        from tcbpf.vm.jit.jit import Code, shape_of

        if not self.jited:
            raise NotSupported(f"{self.name} is interpreted: there is no machine code")
        with self.using():
            return Code(self.verified, [shape_of(file) for file in self._files], self._options).text()[2]

    def run(self, packet: bytes, ctx: Mapping[str, Any] | None = None, repeat: int = 1, *, timeout: float = 0) -> Run:
        """Run on one packet, as BPF_PROG_TEST_RUN does; `repeat` runs see each other's changes to the packet.

        A program that is not traffic control's gets the packet from its network header on; a classic filter gets all of it, as
        from a packet socket.

        Units:   timeout in seconds, 0 for none.
        Raises:  InputError for a packet that is not bytes, and for a context field that does not exist or does not fit;
                 TimeLimit.
        """
        with self._running() as (executable, env, skb):
            times = repeat_of(repeat)
            skb.load(packet, ctx, link_header=self.link_header)
            start = time.perf_counter_ns()
            with self._watch(env, timeout, times > SHORT):
                verdict = repeated(executable, skb, env, times)
            duration = (time.perf_counter_ns() - start) // times
            self._runtime.flush(env)
            out = bytes(skb.struct.mac_back) + skb.packet()  # a link header that was taken off comes back as zeros
            return Run(ctypes.c_int32(verdict & 0xFFFFFFFF).value, out, reported(skb), duration)

    def run_pcap(self, path: str, *, out: str | None = None, limit: int = 0, timeout: float = 0) -> PcapStats:
        """Run on every packet of a capture; those that pass are written to `out`, which has its name once it is whole.

        Packets are Ethernet frames, or IP packets as a device without a link header has them; a classic filter takes any, which
        then have no protocol: only their bytes and their lengths.

        Raises:  CaptureError, whose `stats` are what came before, for a capture that is cut short or damaged; InputError for a
                 file that is none, or of another link type; OSError for a full disk; TimeLimit.
        """
        with self._running() as (executable, env, skb):
            call, writes = packet_loop(executable, env), self.verified.writes_packet

            def choose(link: int) -> tuple[Callable[[int], int], bool]:
                if not self.record.program.classic:
                    taken(path, link)
                return call, writes

            with self._watch(env, timeout):
                return run_capture(
                    path,
                    choose,
                    skb,
                    type=self.type,
                    out=out,
                    limit=limit,
                    classic=self.record.program.classic,
                    flush=lambda: self._runtime.flush(env),
                )

    def _watch(self, env: Env, timeout: float, repeated: bool = False) -> Watch | contextlib.nullcontext[None]:
        """Return the context that lets Ctrl-C and a time limit end a run; none for one that returns to Python soon enough."""
        long = self.jited and (repeated or unbounded(self.verified))
        if not (timeout or long or not self.jited):
            return contextlib.nullcontext()
        return Watch(env, timeout=timeout or default_limit(), machine_code=long, name=self.name)

    @contextlib.contextmanager
    def _running(self) -> Iterator[tuple[Executable, Env, Skb]]:
        """Yield the program and this thread's context to run it in; neither goes before the end.

        Raises:  SysError with EBADF for a closed program; NotSupported for a type, or on an engine, that does not run here.
        """
        if not runs_here(self.type):
            raise NotSupported(f"{self.name}: the user datapath runs programs on struct __sk_buff, not {self.type}")
        with self.using(), self._runtime.using():
            yield self.executable, self._runtime.env(), self._runtime.skb()

    def fileno(self) -> int:
        """Return the descriptor of the program's file, which holds it; -1 after `close`."""
        return -1 if self._closed else self._fd

    def refusal(self) -> SysError:
        """Return the error of a call after `close`."""
        return SysError(errno.EBADF, f"use program {self.name}", "it was closed")

    def drop(self) -> None:
        """Let go; the program lives while a filter, a pin, a program array or another descriptor holds it."""
        if self._executable is not None:
            self._executable.close()
            self._executable = None
        for file in self._files:
            file.close()
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(OSError, AttributeError, TypeError):
            self.close()


def packet_loop(executable: Executable, env: Env) -> Callable[[int], int]:
    """Return the function that runs the packet loop, at the address of a struct tcbpf_loop, with a program in it."""
    address = ctypes.c_void_p
    if executable.loop:
        call = ctypes.CFUNCTYPE(ctypes.c_uint32, address, address, address)(executable.loop)
        maps = executable.maps_address
        return lambda loop: int(call(loop, env.address, maps))
    general = function("tcbpf_loop_run", ctypes.c_uint32, address, address, address)

    from tcbpf.vm.interp.interp import raise_failure

    def interpreted(loop: int) -> int:
        status = int(general(loop, env.address, executable.address))
        raise_failure()
        return status

    return interpreted


def runs_here(type: str) -> bool:
    """Tell whether the engines run programs of this type."""
    return PROG_TYPES[type].context == "skb"


def proved(program: Program, log_level: int = 0) -> Verified:
    """Verify a program by what its maps are, so that the proof holds none of them.

    Raises:  VerifierError.
    """
    return verify(replace(program, maps=tuple(m.spec for m in program.maps)), log_level=log_level)


def repeated(executable: Executable, skb: Skb, env: Env, times: int) -> int:
    """Run a number of times and return the last r0."""
    if times > 1 and executable.address:
        call = function("tcbpf_repeat", ctypes.c_uint64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64)
        return int(call(env.address, executable.address, skb.address, times))
    verdict = 0
    for _ in range(times):
        verdict = executable.run(skb, env)
    return verdict


def reported(skb: Skb) -> dict[str, Any]:
    """Return every context field after a run; "cb" is five numbers."""
    plain: dict[str, Any] = skb.ctx()
    words = [plain.pop(f"cb[{i}]") for i in range(CB_WORDS)]
    return {**plain, "cb": words}


def raw(entry: Map) -> UserMap:
    """Return a map of this datapath without its typed face."""
    assert isinstance(entry.raw, UserMap)
    return entry.raw

"""Both verdicts on a generated program, quickly: the maps and the type information are made once for all programs."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

from tcbpf.datapath.kernel import Kernel, syscall
from tcbpf.datapath.kernel.log import reason
from tcbpf.datapath.kernel.progs import with_fds, with_ids
from tcbpf.datapath.plan import sized
from tcbpf.errors import TcbpfError, VerifierError
from tcbpf.isa.insn import encode
from tcbpf.maps.map import Map
from tcbpf.obj.program import MapSpec, Program
from tcbpf.tables.progs import PROG_TYPES
from tcbpf.verifier import verify


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one side said: accepted, or refused with a message ("" for no word); `odd` when it was no verdict at all."""

    accept: bool
    message: str = ""
    processed: int = 0
    odd: str = ""
    log: str = ""

    def __str__(self) -> str:
        return self.odd or ("accept" if self.accept else f"reject: {self.message}")


class Oracle:
    """The live kernel, asked about many programs over the same maps."""

    def __init__(self) -> None:
        self._kernel = Kernel()
        self._maps: dict[tuple[Any, ...], Map] = {}
        self._btf: dict[bytes, int] = {}

    def ask(self, program: Program) -> Verdict:
        """Return the kernel's verdict; of a refusal, with its log."""
        own: list[Map] = []
        try:
            return self._verdict(self._request(program, own))
        except TcbpfError as error:
            return Verdict(False, odd=str(error))
        finally:
            for made in own:
                made.raw.close()

    def log(self, program: Program, level: int) -> str:
        """Return the kernel's log of a program, whatever its verdict."""
        own: list[Map] = []
        fd, log = syscall.prog_load(replace(self._request(program, own), log_level=level))
        if fd >= 0:
            os.close(fd)
        for made in own:
            made.raw.close()
        return log

    def _verdict(self, request: syscall.Load) -> Verdict:
        fd, log = syscall.prog_load(request)
        if fd >= 0:
            processed = int(syscall.prog_info(fd).verified_insns)
            os.close(fd)
            return Verdict(True, processed=processed)
        code, again, log = -fd, *syscall.prog_load(replace(request, log_level=syscall.LOG_LEVEL1))
        if again >= 0:
            os.close(again)
            return Verdict(False, odd=f"refused with errno {code}, then accepted")
        found = reason(log)
        if found.message.startswith("number of funcs"):  # changed functions no longer fit their type information
            return Verdict(False, odd=found.message)
        return Verdict(False, found.message, found.processed, log=log)

    def map(self, spec: MapSpec, own: list[Map]) -> Map:
        """Return the live map of a specification; one that belongs to a program is made anew and put to `own`."""
        if spec.type in ("prog_array", "devmap", "cpumap"):  # which take programs like the first that used it, only
            own.append(self._kernel.map_create(sized(spec)))
            return own[-1]
        key = (spec.name, spec.type, spec.key_size, spec.value_size, spec.max_entries, spec.flags, spec.contents, spec.btf)
        if key not in self._maps:
            self._maps[key] = self._kernel.map_create(sized(spec))
        return self._maps[key]

    def _request(self, program: Program, own: list[Map]) -> syscall.Load:
        fds = [self.map(handle.spec, own).raw.fileno() for handle in program.maps]
        btf_fd = 0
        if program.btf is not None and program.raw_func_info:
            raw = program.btf.raw
            if raw not in self._btf:
                self._btf[raw] = syscall.btf_load(raw)
            btf_fd = self._btf[raw]
        return syscall.Load(
            type=PROG_TYPES[program.type].number,
            insns=encode(with_ids(with_fds(program.insns, fds), program.kfuncs)),
            license=program.license.encode(),
            name=b"generated",
            attach_type=program.attach_type,
            btf_fd=btf_fd,
            func_info=program.raw_func_info if btf_fd else b"",
        )


def ask_us(program: Program) -> Verdict:
    """Return our verdict."""
    try:
        return Verdict(True, processed=verify(program).insns_processed)
    except VerifierError as error:
        last = error.log.rstrip().rpartition("\n")[2].split()
        return Verdict(False, error.message, int(last[1]) if last[:1] == ["processed"] else 0, log=error.log)
    except TcbpfError as error:
        return Verdict(False, odd=f"{type(error).__name__}: {error}")
    except Exception as error:  # a crash is what this is here to find
        return Verdict(False, odd=f"crash: {type(error).__name__}: {error}")

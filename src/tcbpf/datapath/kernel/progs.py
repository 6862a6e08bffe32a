"""A program of the live kernel: load it, run it, read it."""

from __future__ import annotations

import errno
import os
import re
import struct
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from typing import Any, Self

from tcbpf.control.given import numbers_of, packet_of, repeat_of
from tcbpf.datapath.base import PcapStats, Run
from tcbpf.datapath.kernel import syscall
from tcbpf.datapath.kernel.btf import fd_of
from tcbpf.datapath.kernel.log import reason
from tcbpf.datapath.kernel.maps import adopt, kernel_name
from tcbpf.errors import CaptureError, InputError, NotSupported, SysError, TimeLimit, VerifierError
from tcbpf.isa.insn import Insn, encode
from tcbpf.maps.map import Map
from tcbpf.obj.btf import Kind
from tcbpf.obj.btf_index import kernel_btf
from tcbpf.obj.program import Program
from tcbpf.tables.helpers import CONVERTED, Helper
from tcbpf.tables.maps import OF_PROGRAMS
from tcbpf.tables.opcodes import (
    ALU64,
    CALL,
    EXIT,
    JMP,
    LD_IMM64,
    MAX_INSNS,
    MAX_INSNS_UNPRIVILEGED,
    MOV,
    PSEUDO_KFUNC_CALL,
    PSEUDO_MAP_FD,
    PSEUDO_MAP_IDX,
    PSEUDO_MAP_IDX_VALUE,
    PSEUDO_MAP_VALUE,
)
from tcbpf.tables.progs import PROG_TYPES, passes
from tcbpf.tables.skb import SKB, SKB_SIZE
from tcbpf.uapi import bpf as uapi
from tcbpf.uapi.packet import ETH_P_IP, ETH_P_IPV6

REPORTED = ("mark", "priority", "ingress_ifindex", "ifindex", "tstamp", "wire_len", "gso_segs", "hwtstamp")
"""The context fields that BPF_PROG_TEST_RUN gives back, beside cb."""

_ETHERTYPE = 12
_ABOUT_BTF = re.compile(r"^(?!exception callback).*(func_info|line_info|btf|BTF)")
_CB = struct.Struct("<5I")
_CB_OFF = 48


class KernelProg:
    """One loaded program, by its fd."""

    def __init__(
        self, fd: int, *, maps: tuple[Map, ...] | None = None, log: str = "", full_name: str = "", classic: bool = False
    ) -> None:
        self._fd, self._maps, self.log, self.classic = fd, maps, log, classic
        self.info = info = syscall.prog_info(fd)
        row = PROG_TYPES.at(info.type)
        self.id, self.type = int(info.id), row.name if row else str(info.type)
        self.name = full_name or info.name.decode(errors="replace")
        self.tag, self.jited = bytes(info.tag), info.jited_prog_len > 0
        self.insns_processed = int(info.verified_insns)
        self._test: syscall.TestRun | None = None

    @property
    def maps(self) -> tuple[Map, ...]:
        """The maps it uses."""
        if self._maps is None:
            opened = (syscall.fd_by_id(uapi.BPF_MAP_GET_FD_BY_ID, id) for id in syscall.prog_maps(self._fd))
            self._maps = tuple(Map(adopt(fd)) for fd in opened)
        return self._maps

    def run(self, packet: bytes, ctx: Mapping[str, Any] | None = None, repeat: int = 1, *, timeout: float = 0) -> Run:
        """Run on one packet with BPF_PROG_TEST_RUN.

        Raises:  InputError for a packet or a context field that this facility does not take.
        """
        packet, times = packet_of(packet), repeat_of(repeat)
        skb, test = self.type != "xdp", self._tester(len(packet))
        before = pack_ctx(ctx, len(packet)) if skb else None
        if ctx and not skb:
            raise InputError(f"a context for a {self.type} program", hint="only programs on struct __sk_buff take one")
        try:
            verdict = test.run(packet, before, times)
        except SysError as error:
            if error.errno == errno.EINVAL:
                raise _refused(packet, ctx or {}) from None
            raise
        signed = verdict - (1 << 32) if verdict >> 31 else verdict
        return Run(signed, test.packet, unpack_ctx(test.ctx) if skb else {}, test.duration_ns)

    def run_pcap(self, path: str, *, out: str | None = None, limit: int = 0, timeout: float = 0) -> PcapStats:
        """Run on every packet of a capture, one BPF_PROG_TEST_RUN each; packets that it does not take are skipped.

        Raises:  CaptureError, whose `stats` are what came before, for a capture that is cut short or damaged; InputError for
                 packets that are no Ethernet frames.
        """
        from tcbpf.net.pcap import Writer, read

        test, verdicts, skb = self._tester(0), Counter[int](), self.type != "xdp"
        packets = total = skipped = cut = 0
        fault: CaptureError | None = None
        start = time.perf_counter_ns()
        with ExitStack() as stack:
            writer = stack.enter_context(Writer(out)) if out else None
            try:
                for record in islice(read(path), limit or None):
                    if timeout and time.perf_counter_ns() - start > timeout * 1e9:
                        raise TimeLimit(f"{self.name} was stopped after {timeout:g} s, the time limit")
                    if untaken(record.data):
                        skipped += 1
                        continue
                    verdict = test.run(record.data, pack_ctx({"wire_len": record.wire_len}, 0) if skb else None)
                    packets, total, cut = packets + 1, total + record.wire_len, cut + (len(record.data) < record.wire_len)
                    verdicts[verdict] += 1
                    if writer and passes(self.type, verdict, classic=self.classic):
                        writer.write(test.packet, record.ts_ns)
            except CaptureError as error:
                fault = error
        counted = {v - (1 << 32) if v >> 31 else v: n for v, n in verdicts.items()}
        kept = writer.count if writer else 0
        stats = PcapStats(packets, total, counted, time.perf_counter_ns() - start, kept, skipped, cut)
        if fault is not None:
            fault.stats = stats
            raise fault
        return stats

    def assembly(self) -> str:
        """Refuse: the kernel hands out machine code as bytes, which are not disassembled here.

        Raises:  NotSupported.
        """
        raise NotSupported(f"{self.name}: the machine code of the kernel's JIT is not read here; --datapath user")

    def fileno(self) -> int:
        """Return the fd."""
        return self._fd

    def close(self) -> None:
        """Drop the fd; the program lives while a filter, a pin or another fd holds it."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        with suppress(OSError, AttributeError, TypeError):
            self.close()

    def _tester(self, size: int) -> syscall.TestRun:
        if self._test is None or size > self._test.largest:
            self._test = syscall.TestRun(self._fd, largest=max(size, 1 << 16), ctx_size=SKB_SIZE)
        return self._test


def load(program: Program, maps: Sequence[Map], *, log_level: int = 0) -> KernelProg:
    """Load `program` over live maps, in the order of program.maps.

    Raises:  VerifierError with the kernel's log; SysError where the load fails for another reason.
    """
    row = PROG_TYPES.get(program.type)
    if row is None:
        raise InputError(f"no program type {program.type!r}", where=program.name, hint=", ".join(PROG_TYPES.names()))
    if program.classic and (calls := [call.name for call in map(converted, program.insns) if call]):
        raise NotSupported(f"bpf(2) loads no call of {calls[0]}: only a classic filter, which the kernel converts, makes it")
    insns = with_ids(with_fds(program.insns, [m.raw.fileno() for m in maps]), program.kfuncs)
    request = syscall.Load(
        type=row.number,
        insns=encode(insns),
        license=program.license.encode(),
        name=kernel_name(program.name),
        attach_type=program.attach_type,
        btf_fd=fd_of(program.btf) if program.raw_func_info else 0,
        func_info=program.raw_func_info,
        line_info=program.raw_line_info,
        log_level=log_level | syscall.LOG_STATS if log_level else 0,
        kernel_version=program.kernel_version,
        flags=program.flags,
    )
    fd, log = _load_or_say_why(request)
    if fd < 0 and request.btf_fd and _is_about_btf(log):
        fd, log = _load_or_say_why(replace(request, btf_fd=0, func_info=b"", line_info=b""))
    if fd < 0:
        raise _refusal(program, -fd, log, [m.spec.name for m in maps if m.spec.type in OF_PROGRAMS])
    return KernelProg(fd, maps=tuple(maps), log=log, full_name=program.name, classic=program.classic)


def _is_about_btf(log: str) -> bool:
    """Tell whether a refusal is about the type information, not the program."""
    why = reason(log)
    return not why.processed and _ABOUT_BTF.search(why.message) is not None


def _load_or_say_why(request: syscall.Load) -> tuple[int, str]:
    """Return (fd or negative errno, log): a refusal has its reason in the log, asked for or not."""
    fd, log = syscall.prog_load(request)
    if fd < 0 and not log:
        again, log = syscall.prog_load(replace(request, log_level=syscall.LOG_LEVEL1))
        if again >= 0:
            os.close(again)
    return fd, log


def converted(insn: Insn) -> Helper | None:
    """Return the row of a call that only the kernel's own conversion of classic programs makes."""
    return CONVERTED.at(insn.imm) if insn.code == JMP | CALL else None


def with_fds(insns: Iterable[Insn], fds: Sequence[int]) -> list[Insn]:
    """Return the instructions with every map index replaced by the map's fd.

    Raises:  VerifierError for an index that names no map, as for a bad fd.
    """
    code = list(insns)
    for pc, insn in enumerate(code):
        if insn.code != LD_IMM64 or insn.src not in (PSEUDO_MAP_IDX, PSEUDO_MAP_IDX_VALUE):
            continue
        if not 0 <= insn.imm < len(fds):
            raise VerifierError(f"fd {insn.imm} is not pointing to valid bpf_map", pc=pc, errno=errno.EBADF)
        source = PSEUDO_MAP_FD if insn.src == PSEUDO_MAP_IDX else PSEUDO_MAP_VALUE
        code[pc] = insn._replace(src=source, imm=fds[insn.imm])
    return code


def with_ids(insns: list[Insn], kfuncs: Sequence[str]) -> list[Insn]:
    """Return the instructions with every index of a kernel function replaced by its BTF id; bare ids stay when there is none.

    Raises:  NotSupported for a function that this kernel has not.
    """
    if not kfuncs:
        return insns
    btf = kernel_btf()
    for pc, insn in enumerate(insns):
        if insn.code == JMP | CALL and insn.src == PSEUDO_KFUNC_CALL and 0 <= insn.imm < len(kfuncs):
            row = btf.find(kfuncs[insn.imm], Kind.FUNC)
            if row is None:
                raise NotSupported(f"this kernel has no function {kfuncs[insn.imm]}")
            insns[pc] = insn._replace(imm=row.id)
    return insns


def pack_ctx(ctx: Mapping[str, Any] | None, length: int) -> bytes:
    """Return struct __sk_buff with these fields, for a packet of `length` bytes.

    Raises:  InputError for a field that BPF_PROG_TEST_RUN does not take, or a number that does not fit.
    """
    raw = bytearray(SKB_SIZE)
    for name, number in numbers_of(ctx, length).items():
        row = SKB[name]
        if not row.test_run:
            known = ", ".join(f.name for f in SKB if f.test_run and not f.name.startswith("cb[")) + ", cb"
            raise InputError(
                f"context field {name!r} cannot be set on the kernel datapath", hint=f"BPF_PROG_TEST_RUN takes {known}"
            )
        raw[row.off : row.off + row.size] = number.to_bytes(row.size, "little")
    return bytes(raw)


def unpack_ctx(raw: bytes) -> dict[str, Any]:
    """Return the fields that BPF_PROG_TEST_RUN gives back."""
    fields: dict[str, Any] = {}
    for name in REPORTED:
        row = SKB[name]
        fields[name] = int.from_bytes(raw[row.off : row.off + row.size], "little")
    fields["cb"] = list(_CB.unpack_from(raw, _CB_OFF))
    return fields


@lru_cache(maxsize=1)
def packet_sizes() -> tuple[Mapping[int, int], int]:
    """Return what BPF_PROG_TEST_RUN takes here, as probed: the shortest frame by EtherType (0: any other), the longest."""
    fd, _ = syscall.prog_load(syscall.Load(PROG_TYPES["sched_cls"].number, encode([Insn(ALU64 | MOV), Insn(JMP | EXIT)])))
    if fd < 0:
        raise syscall.failure(-fd, uapi.BPF_PROG_LOAD)
    try:
        test = syscall.TestRun(fd, largest=1 << 17)

        def taken(ethertype: int, size: int) -> bool:
            try:
                test.run((bytes(_ETHERTYPE) + ethertype.to_bytes(2)).ljust(size, b"\0")[:size])
            except SysError:
                return False
            return True

        low, high = 64, 1 << 17
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if taken(0, middle) else (low, middle)
        return {kind: next(size for size in range(1, 65) if taken(kind, size)) for kind in (0, ETH_P_IP, ETH_P_IPV6)}, low
    finally:
        os.close(fd)


def untaken(packet: bytes) -> str:
    """Return why BPF_PROG_TEST_RUN does not take a packet, or "" when it does."""
    shortest, longest = packet_sizes()
    ethertype = int.from_bytes(packet[_ETHERTYPE : _ETHERTYPE + 2])
    low, kind = shortest.get(ethertype, shortest[0]), {ETH_P_IP: "IPv4 ", ETH_P_IPV6: "IPv6 "}.get(ethertype, "")
    if low <= len(packet) <= longest:
        return ""
    return f"BPF_PROG_TEST_RUN takes {kind}frames of {low} to {longest} bytes here; the user datapath takes any"


def _refused(packet: bytes, ctx: Mapping[str, Any]) -> InputError:
    """Return the error for an EINVAL of BPF_PROG_TEST_RUN."""
    if why := untaken(packet):
        return InputError(f"a packet of {len(packet)} bytes cannot run on the kernel datapath", hint=why)
    return InputError(
        "the kernel refuses this context: " + ", ".join(f"{k}={v}" for k, v in ctx.items()),
        hint="wire_len and gso_segs have limits, and ifindex must name a device",
    )


def _refusal(program: Program, code: int, log: str, arrays: Sequence[str]) -> SysError | VerifierError:
    """Return the error for a load that ended in errno `code`; `arrays` are the program arrays that it uses."""
    found = reason(log)
    if code == errno.E2BIG and not found.message:
        count = len(program.insns)
        limit = MAX_INSNS if count > MAX_INSNS else MAX_INSNS_UNPRIVILEGED
        return VerifierError(
            f"the program has {count} instructions, the limit is {limit}",
            errno=code,
            section=program.section,
            path=program.path,
        )
    if not found.message and code == errno.EINVAL and found.processed and arrays:  # proved: bpf_check_tail_call()
        return SysError(
            code,
            f"load a program {program.name}",
            f"program array {' or '.join(arrays)} is for programs of another type or attach type",
        )
    if not found.message:
        return syscall.failure(code, uapi.BPF_PROG_LOAD, program.name)
    line = max((line for line in program.lines if line.pc <= found.pc), key=lambda line: line.pc, default=None)
    source = f"{line.file}:{line.line}: {line.text.strip()}" if line else found.source
    return VerifierError(
        found.message, pc=found.pc, errno=code, source=source, log=log, section=program.section, path=program.path
    )

"""The directory of a datapath without a home goes with the process, by whatever signal that can be caught it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

BEGIN = """
import ctypes, os, signal, sys, time
import tcbpf
from tcbpf.obj.program import MapSpec
dp = tcbpf.User()
dp.map_create(MapSpec("m", "hash", 4, 4, 4))
print(dp.home, flush=True)
"""
WAIT = "time.sleep(60)"
NATIVE = "ctypes.CDLL(None).sleep(60) and ctypes.CDLL(None).sleep(60)"


def started(rest: str, *, before: str = "") -> tuple[subprocess.Popen[str], Path]:
    program = subprocess.Popen(
        [sys.executable, "-c", before + BEGIN + rest],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert program.stdout is not None
    return program, Path(program.stdout.readline().strip())


@pytest.mark.parametrize("rest", [WAIT, NATIVE])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_removes_it_and_ends_the_process(rest: str, number: int) -> None:
    program, home = started(rest)
    assert home.is_dir()
    program.send_signal(number)
    assert program.wait(20) == -number and not home.exists()


ENDLESS = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
static long none(__u64 i, void *c) { return 0; }
static long inner(__u64 i, void *c) { bpf_loop(1 << 23, none, c, 0); return 0; }
SEC("tc") int p(struct __sk_buff *skb) { __u64 n = 0; bpf_loop(1 << 23, inner, &n, 0); return n & 1; }
char _license[] SEC("license") = "GPL";
"""


@pytest.mark.parametrize("engine", ["jit", "interp"])
def test_a_signal_does_not_wait_for_a_program(tmp_path: Path, engine: str) -> None:
    source = tmp_path / "endless.c"
    source.write_text(ENDLESS)
    program, home = started(
        "from tcbpf.vm.executable import Options\n"
        f"dp = tcbpf.User(options=Options(engine={engine!r}))\nprog = dp.load(tcbpf.compile({str(source)!r}))\n"
        "print(flush=True)\nprog.run(bytes(64))\n"
    )
    assert program.stdout is not None and program.stdout.readline()
    time.sleep(1)
    assert program.poll() is None
    program.terminate()
    assert program.wait(20) == -signal.SIGTERM and not home.exists()


@pytest.mark.parametrize("late", [False, True])
def test_a_program_that_asks_for_the_signal_gets_it(late: bool) -> None:
    asks = "import signal\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
    program, home = started((asks if late else "") + "print(flush=True)\n" + WAIT, before="import sys\n" + asks * (not late))
    assert program.stdout is not None and program.stdout.readline()
    program.terminate()
    assert program.wait(20) == 7 and not home.exists()


def test_a_child_s_signal_ends_the_child_alone() -> None:
    program, home = started(
        "child = os.fork()\n"
        "if not child: time.sleep(60)\n"
        "time.sleep(0.5); os.kill(child, signal.SIGTERM)\n"
        "print(os.waitpid(child, 0)[1], os.path.isdir(dp.home), flush=True)\n"
    )
    assert program.stdout is not None and program.stdout.readline() == f"{signal.SIGTERM} True\n"
    assert program.wait(20) == 0 and not home.exists()

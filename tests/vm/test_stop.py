"""A program that does not end is ended: by Ctrl-C and by a time limit, under every engine, and nothing is left half done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tcbpf.datapath.base import Datapath
from tcbpf.datapath.user import User
from tcbpf.errors import InputError, TimeLimit
from tcbpf.isa import assemble
from tcbpf.lang import compile
from tcbpf.native.env import Env
from tcbpf.native.watch import Watch
from tcbpf.net.generate import generate
from tcbpf.obj.program import Program
from tcbpf.vm.executable import Options

HEAD = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
extern int bpf_iter_num_new(struct bpf_iter_num *, int, int) __ksym;
extern int *bpf_iter_num_next(struct bpf_iter_num *) __ksym;
extern void bpf_iter_num_destroy(struct bpf_iter_num *) __ksym;
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 100000); __type(key, __u32); __type(value, __u64);
} a SEC(".maps");
"""
LONG = {
    "bpf_loop": """
        static long none(__u64 i, void *c) { return 0; }
        static long inner(__u64 i, void *c) { bpf_loop(1 << 23, none, c, 0); (*(__u64 *)c)++; return 0; }
        SEC("tc") int p(struct __sk_buff *skb) { __u64 n = 0; bpf_loop(1 << 23, inner, &n, 0); return n & 1; }
    """,
    "iterator": """
        static __noinline int walk(__u64 *n)
        {
            struct bpf_iter_num it;
            bpf_iter_num_new(&it, 0, 8000000);
            while (bpf_iter_num_next(&it)) { *n = *n << 13 ^ *n >> 7 ^ 1; }
            bpf_iter_num_destroy(&it);
            return 0;
        }
        SEC("tc") int p(struct __sk_buff *skb)
        {
            struct bpf_iter_num it;
            __u64 n = 0;
            bpf_iter_num_new(&it, 0, 8000000);
            while (bpf_iter_num_next(&it)) walk(&n);
            bpf_iter_num_destroy(&it);
            return n & 1;
        }
    """,
    "for_each": """
        static long each(void *map, __u32 *key, __u64 *value, void *c) { (*value)++; return 0; }
        static long again(__u64 i, void *c) { bpf_for_each_map_elem(&a, each, c, 0); return 0; }
        SEC("tc") int p(struct __sk_buff *skb) { __u64 n = 0; bpf_loop(1 << 23, again, &n, 0); return 0; }
    """,
}
ENGINES = pytest.mark.parametrize("engine", ["jit", "interp"])


@pytest.fixture(scope="module", params=LONG)
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "x.c"
    path.write_text(HEAD + LONG[request.param] + 'char _license[] SEC("license") = "GPL";')
    return path


@ENGINES
def test_a_time_limit_ends_a_run(source: Path, engine: str, tmp_path: Path) -> None:
    generate(tmp_path / "in.pcap", 3)
    with User(options=Options(engine=engine)) as dp:
        prog = dp.load(compile(source))
        for run in (
            lambda: prog.run(bytes(64), timeout=0.3),
            lambda: prog.run_pcap(str(tmp_path / "in.pcap"), out=str(tmp_path / "out.pcap"), timeout=0.3),
        ):
            start = time.monotonic()
            with pytest.raises(TimeLimit, match=r"p was stopped after 0.3 s, the time limit"):
                run()
            assert 0.25 < time.monotonic() - start < 20  # the first one compiles
        assert sorted(os.listdir(tmp_path)) == ["in.pcap"]
        with dp.prog_load(Program("q", "sched_cls", assemble("r0 = 7\nexit"), license="GPL")) as after:
            assert after.run(bytes(64), timeout=9).verdict == 7


@pytest.mark.parametrize("engine", ["0", "1"])
def test_ctrl_c_ends_a_run(source: Path, engine: str, tmp_path: Path) -> None:
    generate(tmp_path / "in.pcap", 3)
    words = ["run", str(source), str(tmp_path / "in.pcap"), "--out", str(tmp_path / "out.pcap")]
    program = f"""
import signal, sys
from tcbpf.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the suite was started with: a shell's "&" ignores it
print('go', flush=True)
sys.exit(main({words}))
"""
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path), "TCBPF_JIT_ENABLE": engine}
    for _ in range(2):
        with subprocess.Popen([sys.executable, "-c", program], stdout=-1, stderr=-1, text=True, env=environment) as child:
            assert child.stdout and child.stdout.readline() == "go\n"
            time.sleep(4 if engine == "1" else 3)
            assert child.poll() is None
            child.send_signal(signal.SIGINT)
            try:
                out, err = child.communicate(timeout=10)
            finally:
                child.kill()
            assert (child.returncode, out, err) == (130, "", "")
    assert sorted(os.listdir(tmp_path)) == ["in.pcap"]


@ENGINES
def test_tests_have_a_limit_by_default(source: Path, engine: str, bpf: Datapath, monkeypatch: pytest.MonkeyPatch) -> None:
    assert os.environ["TCBPF_TIMEOUT"] == "10"
    monkeypatch.setenv("TCBPF_TIMEOUT", "0.2")
    monkeypatch.setenv("TCBPF_JIT_ENABLE", "01"[engine == "jit"])
    with pytest.raises(TimeLimit, match=r"p was stopped after 0\.2 s"):
        bpf.load(compile(source)).run(bytes(64))
    monkeypatch.setenv("TCBPF_TIMEOUT", "soon")
    with pytest.raises(InputError, match="no number 'soon'"):
        bpf.load(compile(source)).run(bytes(64))


def test_many_repeats_end_too() -> None:
    program = Program("q", "sched_cls", assemble("r0 = 7\nexit"), license="GPL")
    with User() as dp, dp.prog_load(program) as prog, pytest.raises(TimeLimit):
        prog.run(bytes(64), repeat=2**32 - 1, timeout=0.2)


def test_the_handler_of_a_caller_is_called_and_stays() -> None:
    caught: list[int] = []
    kept, woken = signal.signal(signal.SIGINT, lambda number, frame: caught.append(number)), signal.set_wakeup_fd(-1)
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    try:
        with Watch(Env()) as watch:
            timer.start()
            while not watch.struct.stop:
                pass
        timer.join()
        os.kill(os.getpid(), signal.SIGINT)
        assert caught == [signal.SIGINT] * 2 and watch.struct.stop == 0 and signal.set_wakeup_fd(-1) == -1
    finally:
        signal.signal(signal.SIGINT, kept)
        signal.set_wakeup_fd(woken)

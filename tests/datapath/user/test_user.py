"""The user datapath's own promises: state that outlives processes, maps that processes share, nothing half-done."""

from __future__ import annotations

import array
import errno
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from tcbpf.cbpf.insn import Classic
from tcbpf.control.objects import Bpf, Filter, Link, Qdisc
from tcbpf.control.request import Op, Request
from tcbpf.datapath.base import Prog
from tcbpf.datapath.user import User
from tcbpf.errors import InputError, MapError, NotSupported, SysError
from tcbpf.isa import assemble, encode
from tcbpf.lang import compile_c
from tcbpf.maps.map import Map
from tcbpf.net import build
from tcbpf.net.pcap import Writer
from tcbpf.obj import load
from tcbpf.obj.program import MapSpec, Program
from tcbpf.uapi.tc import TC_H_CLSACT
from tcbpf.vm.executable import Options

INGRESS = 0xFFFFFFF2
COUNT = """
    r1 = 0
    *(u32 *)(r10 -4) = r1
    r2 = r10
    r2 += -4
    r1 = map[idx 0] ll
    call bpf_map_lookup_elem
    if r0 == 0 goto out
    r1 = 1
    lock *(u64 *)(r0 +0) += r1
out:
    r0 = 0
    exit
"""
COUNTER = MapSpec("hits", "array", 4, 8, 1)


def code(text: str, *maps: MapSpec | Map, type: str = "sched_cls", name: str = "prog") -> Program:
    return Program.from_bytes(encode(assemble(textwrap.dedent(text))), maps=maps, license="GPL", type=type, name=name)


def count_program(found: MapSpec | Map = COUNTER) -> Program:
    insns = list(assemble(COUNT.replace("map[idx 0]", "0")))
    at = next(i for i, insn in enumerate(insns) if insn.code == 0x18)
    insns[at] = insns[at]._replace(src=5, imm=0)
    return Program(name="count", type="sched_cls", insns=tuple(insns), maps=(found,), license="GPL")


def hits(m: Map) -> int:
    return int.from_bytes(m.lookup(bytes(4)) or b"", "little")


@pytest.fixture
def home(tmp_path: Path) -> str:
    return str(tmp_path / "home")


@pytest.fixture
def capture(tmp_path: Path) -> str:
    path = tmp_path / "in.pcapng"
    with Writer(path) as out:
        for number in range(10):
            out.write(build.ether(build.ipv4(build.udp(b"x" * number))), number)
    return str(path)


def attach(dp: User, prog: object, dev: str = "em1", pref: int = 0) -> None:
    dp.apply(Request(Op.ADD, Filter(dev, INGRESS, "bpf", pref=pref, options=Bpf(prog=prog, name="x", direct_action=True))))


def devices(dp: User) -> None:
    dp.apply(Request(Op.ADD, Link("em1", kind="veth", peer="em2", up=True)))
    dp.apply(Request(Op.CHANGE, Link("em2", up=True)))
    for dev in "em1", "em2":
        dp.apply(Request(Op.ADD, Qdisc(dev, "clsact", parent=TC_H_CLSACT)))


def python(code: str, *args: str, pass_fds: tuple[int, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *args],
        capture_output=True,
        text=True,
        check=False,
        pass_fds=pass_fds,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )


# ---------------------------------------------------------------- programs


def test_a_program_runs_on_either_engine() -> None:
    for engine in "jit", "interp":
        with User(options=Options(engine=engine)) as dp, dp.prog_load(count_program()) as prog:
            for _ in range(3):
                assert prog.run(bytes(64)).verdict == 0
            assert hits(prog.maps[0]) == 3 and prog.jited == (engine == "jit")


def test_a_run_reports_every_field_that_it_may_set() -> None:
    with User() as dp, dp.prog_load(code("r2 = *(u32 *)(r1 +8)\n*(u32 *)(r1 +32) = r2\nr0 = r2\nexit")) as prog:
        run = prog.run(bytes(range(64)), {"mark": 7, "cb": [1, 2, 3, 4, 5], "vlan_tci": 9})
        assert (run.verdict, run.ctx["priority"], run.ctx["cb"], run.ctx["vlan_tci"]) == (7, 7, [1, 2, 3, 4, 5], 9)
        assert run.packet == bytes(range(64)) and run.ctx["len"] == 64
        for wrong in {"nonsense": 1}, {"cb": [1]}, {"mark": 1 << 32}, {"data": 1}:
            with pytest.raises(InputError):
                prog.run(bytes(64), wrong)


def test_larger_packets_than_the_kernel_tests() -> None:
    with User() as dp, dp.prog_load(code("r0 = *(u32 *)(r1 +0)\nexit")) as prog:
        assert prog.run(bytes(65000)).verdict == 65000


def test_the_tag_is_the_kernels() -> None:
    with User() as dp:
        assert dp.prog_load(code("r0 = 2\nexit")).tag.hex() == "614b434cd8324ecc"


@pytest.mark.kernel
def test_the_tag_of_a_program_with_a_map_is_the_kernels() -> None:
    from tcbpf.datapath.kernel import Kernel

    with User() as user, Kernel() as kernel:
        assert user.prog_load(count_program()).tag == kernel.prog_load(count_program()).tag


def test_a_helper_that_the_runtime_lacks_is_named() -> None:
    with (
        User() as dp,
        pytest.raises(NotSupported, match="no helper bpf_get_current_task"),
    ):
        dp.prog_load(code("call bpf_get_current_task\nr0 = 0\nexit"))


def test_what_a_closed_program_held_is_gone() -> None:
    with User() as dp:
        prog = dp.prog_load(count_program())
        assert [p.id for p in dp.progs()] == [prog.id] and len(dp.all_maps()) == 1
        for found in prog.maps:
            found.raw.close()
        prog.close()
        with pytest.raises(SysError):
            prog.run(bytes(64))
        assert list(dp.progs()) == [] and list(dp.all_maps()) == []


def test_threads_run_one_program_at_once() -> None:
    with User() as dp, dp.prog_load(count_program()) as prog:
        prog.run(bytes(64))
        threads = [threading.Thread(target=prog.run, args=(bytes(64), {}, 20_000)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert hits(prog.maps[0]) == 80_001


# ---------------------------------------------------------------- captures


def test_what_passes_is_kept_as_the_program_left_it(capture: str, tmp_path: Path) -> None:
    from tcbpf.net.pcap import read

    drop_odd = "r0 = *(u32 *)(r1 +0)\nr0 &= 1\nr0 <<= 1\nexit"
    for engine in "jit", "interp":
        with User(options=Options(engine=engine)) as dp, dp.prog_load(code(drop_odd)) as prog:
            stats = prog.run_pcap(capture, out=str(tmp_path / "out.pcapng"))
        assert (stats.packets, dict(stats.verdicts), stats.kept) == (10, {0: 5, 2: 5}, 5)
        kept = list(read(tmp_path / "out.pcapng"))
        assert [(len(p.data), p.ts_ns) for p in kept] == [(42 + n, n) for n in range(0, 10, 2)]


def test_a_limit_and_many_verdicts(tmp_path: Path) -> None:
    with Writer(tmp_path / "in") as out:
        for number in range(1000):
            out.write(bytes(60) + bytes(number))
    with User() as dp, dp.prog_load(code("r0 = *(u32 *)(r1 +0)\nexit")) as prog:
        stats = prog.run_pcap(str(tmp_path / "in"))
        assert stats.verdicts == {60 + n: 1 for n in range(1000)} and stats.bytes == sum(range(60, 1060))
        assert prog.run_pcap(str(tmp_path / "in"), limit=7).packets == 7


@pytest.mark.parametrize("format", ["pcap", "pcapng"])
def test_records_that_straddle_chunks(tmp_path: Path, format: str) -> None:
    with Writer(tmp_path / "in", format=format) as out:
        for number in range(300):
            out.write(bytes(40_000 + number))
    with User() as dp, dp.prog_load(code("r0 = 0\nexit")) as prog:
        stats = prog.run_pcap(str(tmp_path / "in"))
    assert stats.packets == 300 and stats.bytes == sum(40_000 + n for n in range(300))


@pytest.mark.parametrize("size", [600_000, 1_048_000])
def test_blocks_larger_than_the_room_before_a_chunk(tmp_path: Path, size: int) -> None:
    """A block of another kind than a packet may be of any size; it is skipped."""
    with Writer(tmp_path / "in") as out:
        for number in range(20):
            out.write(bytes(100 + number))
            length = size + 12
            head = (0xBAD).to_bytes(4, "little") + length.to_bytes(4, "little")
            out.append(head + bytes(size) + length.to_bytes(4, "little"), 0)
    with User() as dp, dp.prog_load(code("r0 = 0\nexit")) as prog:
        assert prog.run_pcap(str(tmp_path / "in")).bytes == sum(range(100, 120))


def test_a_pipe_is_read_as_it_comes(tmp_path: Path, capture: str) -> None:
    pipe, whole = tmp_path / "pipe", Path(capture).read_bytes()
    os.mkfifo(pipe)
    for raw, wanted in (whole, None), (whole[:-7], "cut short"):
        feeder = threading.Thread(target=pipe.write_bytes, args=(raw,))
        feeder.start()
        with User() as dp, dp.prog_load(code("r0 = 0\nexit")) as prog:
            if wanted is None:
                assert prog.run_pcap(str(pipe)).packets == 10
            else:
                with pytest.raises(InputError, match=wanted):
                    prog.run_pcap(str(pipe))
        feeder.join()


def test_damaged_captures_say_where(capture: str, tmp_path: Path) -> None:
    whole = Path(capture).read_bytes()
    cases = {"cut": (whole[:-5], "packet 10"), "foreign": (whole.replace(b"\x01\x00\x00\x00", b"\x01\x00\x00\x00", 1), "")}
    pcap = (
        bytes.fromhex("d4c3b2a1020004000000000000000000ffff000071000000") + bytes(8) + bytes.fromhex("0100000001000000") + b"x"
    )
    cases |= {
        "foreign": (pcap, "link type 113"),
        "empty": (b"", "offset 0"),
        "other": (b"hello, world", "is not a capture"),
        "version": (pcap[:4] + b"\7\0" + pcap[6:], "pcap version 7"),
    }
    with User() as dp, dp.prog_load(code("r0 = 0\nexit")) as prog:
        for name, (raw, words) in cases.items():
            (tmp_path / name).write_bytes(raw)
            with pytest.raises(InputError, match=words):
                prog.run_pcap(str(tmp_path / name), out=str(tmp_path / "out"))
            assert (tmp_path / "out").exists() == (name == "cut")
            (tmp_path / "out").unlink(missing_ok=True)


def test_a_full_disk_is_an_error_and_nothing_is_left(tmp_path: Path, capture: str) -> None:
    import resource

    with Writer(tmp_path / "large") as out:
        for _ in range(2000):
            out.write(bytes(1000))
    before = set(os.listdir(tmp_path))
    with User() as dp, dp.prog_load(code("r0 = 0\nexit")) as prog:
        prog.run(bytes(64))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
        try:
            with pytest.raises(OSError) as caught:
                prog.run_pcap(str(tmp_path / "large"), out=str(tmp_path / "out.pcapng"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.filename == str(tmp_path / "out.pcapng")
    assert set(os.listdir(tmp_path)) == before


# ---------------------------------------------------------------- what outlives a process


def test_a_filter_keeps_its_program_and_its_maps(home: str, capture: str) -> None:

    with User(home) as dp:
        devices(dp)
        attach(dp, dp.prog_load(count_program()))
    for times in 1, 2:
        with User(home) as dp:
            assert [p.name for p in dp.progs()] == ["count"]
            assert dp.replay(capture, "em1", ingress=True).verdicts == {0: 10}
            assert hits(dp.all_maps()[0]) == 10 * times
    with User(home) as dp:
        dp.apply(Request(Op.DELETE, Filter("em1", INGRESS, "", protocol=0)))
    with User(home) as dp:
        assert list(dp.progs()) == [] and list(dp.all_maps()) == []


def test_ids_are_not_used_again(home: str) -> None:
    seen = []
    for _ in range(3):
        with User(home) as dp:
            prog = dp.prog_load(count_program())
            seen.append((prog.id, prog.maps[0].raw.id))
    assert seen == [(1, 1), (2, 2), (3, 3)]


def test_a_pin_outlives_its_maker_and_is_shared(home: str) -> None:
    path = "/sys/fs/bpf/tc/globals/hits"
    with User(home) as dp:
        m = dp.map_create(COUNTER)
        dp.obj_pin(path, m)
        dp.obj_pin("/sys/fs/bpf/count", dp.prog_load(count_program(m)))
    with User(home) as dp:
        prog, m = dp.obj_get("/sys/fs/bpf/count"), dp.obj_get(path)
        assert isinstance(m, Map) and not isinstance(prog, Map)
        prog.run(bytes(64))
        assert hits(m) == hits(prog.maps[0]) == 1 and prog.maps[0].raw.id == m.raw.id
        del prog, m
        Path(home, "bpf/count").unlink()
        Path(home, "bpf/tc/globals/hits").unlink()
    with User(home) as dp:
        assert list(dp.all_maps()) == []
        with pytest.raises(SysError) as caught:
            dp.obj_get(path)
        assert caught.value.errno == errno.ENOENT


def test_two_processes_count_in_one_map(home: str) -> None:
    with User(home) as dp:
        m = dp.map_create(COUNTER)
        dp.obj_pin("/sys/fs/bpf/hits", m)
        dp.obj_pin("/sys/fs/bpf/count", dp.prog_load(count_program(m)))
        child = """
            import sys
            from tcbpf.datapath.user import User
            with User(sys.argv[1]) as dp:
                print(dp.obj_get("/sys/fs/bpf/count").run(bytes(64), repeat=50_000).verdict)
        """
        running = [
            subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(child), home],
                stdout=subprocess.PIPE,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            )
            for _ in range(2)
        ]
        for one in running:
            assert one.communicate()[0] == b"0\n"
        assert hits(m) == 100_000


def test_a_descriptor_passed_on_is_the_map(home: str) -> None:
    left, right = socket.socketpair()
    with User(home) as dp:
        m = dp.map_create(COUNTER)
        m.update(bytes(4), (5).to_bytes(8, "little"))
        left.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [m.raw.fileno()]))])
        m.raw.close()
    _, extra, _, _ = right.recvmsg(1, 64)
    fd = int.from_bytes(extra[0][2][:4], "little")
    with User(home) as dp:
        assert [hits(one) for one in dp.all_maps()] == [5]
        os.close(fd)
    with User(home) as dp:
        assert list(dp.all_maps()) == []


TAIL = """
    r2 = 0 ll
    r3 = 1
    call bpf_tail_call
    r0 = 100
    exit
"""


def tail_program(jumps: MapSpec | Map) -> Program:
    insns = list(assemble(textwrap.dedent(TAIL)))
    insns[0] = insns[0]._replace(src=5, imm=0)
    return Program(name="tail", type="sched_cls", insns=tuple(insns), maps=(jumps,), license="GPL")


def test_a_graft_from_another_process_is_seen(home: str) -> None:
    with User(home) as dp:
        jumps = dp.map_create(MapSpec("jumps", "prog_array", 4, 4, 4))
        dp.obj_pin("/sys/fs/bpf/jumps", jumps)
        prog = dp.prog_load(tail_program(jumps))
        assert prog.run(bytes(64)).verdict == 100
        for number in 7, 8:
            done = python(
                """
                import sys
                from tcbpf.datapath.user import User
                from tcbpf.isa import assemble, encode
                from tcbpf.obj.program import Program
                with User(sys.argv[1]) as dp:
                    prog = dp.prog_load(Program.from_bytes(encode(assemble(f"r0 = {sys.argv[2]}\\nexit"))))
                    dp.obj_get("/sys/fs/bpf/jumps").update(bytes([1, 0, 0, 0]), prog.fileno().to_bytes(4, "little"))
            """,
                home,
                str(number),
            )
            assert done.returncode == 0, done.stderr
            assert prog.run(bytes(64)).verdict == number
        assert jumps.lookup(bytes([1, 0, 0, 0])) == (3).to_bytes(4, "little")
        assert jumps.delete(bytes([1, 0, 0, 0])) and prog.run(bytes(64)).verdict == 100


@pytest.mark.parametrize("engines", [("jit", "interp"), ("interp", "jit")])
def test_one_engine_runs_all_of_an_array(home: str, engines: tuple[str, str]) -> None:
    """What one process loaded as machine code another interprets, whole: the two never mix in one run."""
    with User(home, options=Options(engine=engines[0])) as one, User(home, options=Options(engine=engines[1])) as other:
        jumps = one.map_create(MapSpec("jumps", "prog_array", 4, 4, 4))
        target, caller = one.prog_load(code("r0 = 77\nexit")), one.prog_load(tail_program(jumps))
        jumps.update(bytes([1, 0, 0, 0]), target.fileno().to_bytes(4, "little"))
        there = other.prog_by_id(caller.id)
        assert caller.run(bytes(64)).verdict == there.run(bytes(64)).verdict == 77
        assert (caller.jited, there.jited) == (engines[0] == "jit", engines[1] == "jit")
        assert [type(one.prog_by_id(p.id).executable) for p in (caller, target)] == [type(caller.executable)] * 2
        assert [type(other.prog_by_id(p.id).executable) for p in (caller, target)] == [type(there.executable)] * 2
        assert type(caller.executable) is not type(there.executable)
        assert other.map_by_id(jumps.raw.id).raw.owner_type == 3


def test_an_array_of_programs_takes_one_type(home: str) -> None:
    with User(home) as dp:
        jumps = dp.map_create(MapSpec("jumps", "prog_array", 4, 4, 4))
        one = dp.prog_load(code("r0 = 1\nexit"))
        jumps.update(bytes(4), one.fileno().to_bytes(4, "little"))
        other = dp.prog_load(code("r0 = 1\nexit", type="sched_act"))
        for fd, wanted in (other.fileno(), errno.EINVAL), (12345, errno.EBADF), (jumps.raw.fileno(), errno.EINVAL):
            with pytest.raises(MapError) as caught:
                jumps.update(bytes(4), fd.to_bytes(4, "little"))
            assert caught.value.errno == wanted


IN_MAP = """
    r1 = 1
    *(u32 *)(r10 -4) = r1
    r2 = r10
    r2 += -4
    r1 = 0 ll
    call bpf_map_lookup_elem
    if r0 == 0 goto out
    r1 = 0
    *(u32 *)(r10 -4) = r1
    r2 = r10
    r2 += -4
    r1 = r0
    call bpf_map_lookup_elem
    if r0 == 0 goto out
    r0 = *(u32 *)(r0 +0)
    exit
out:
    r0 = 99
    exit
"""


def test_a_map_in_a_map_is_found_by_its_number(home: str) -> None:
    with User(home) as dp:
        outer = dp.map_create(MapSpec("outer", "array_of_maps", 4, 4, 4, inner=COUNTER))
        insns = [i._replace(src=5) if i.code == 0x18 else i for i in assemble(textwrap.dedent(IN_MAP))]
        prog = dp.prog_load(Program(name="p", type="sched_cls", insns=tuple(insns), maps=(outer,), license="GPL"))
        assert prog.run(bytes(64)).verdict == 99
        for number in 5, 6:
            inner = dp.map_create(COUNTER)
            inner.update(bytes(4), number.to_bytes(8, "little"))
            outer.update(bytes([1, 0, 0, 0]), inner.raw.fileno().to_bytes(4, "little"))
            assert outer.lookup(bytes([1, 0, 0, 0])) == inner.raw.id.to_bytes(4, "little")
            del inner
            assert prog.run(bytes(64)).verdict == number
        for shape in MapSpec("x", "array", 4, 4, 1), MapSpec("x", "hash", 4, 8, 1), MapSpec("x", "array", 4, 8, 2):
            wrong = dp.map_create(shape)
            with pytest.raises(MapError) as caught:
                outer.update(bytes(4), wrong.raw.fileno().to_bytes(4, "little"))
            assert caught.value.errno == errno.EINVAL


def test_an_array_that_no_user_holds_is_emptied(home: str) -> None:
    with User(home) as dp:
        devices(dp)
        jumps = dp.map_create(MapSpec("jumps", "prog_array", 4, 4, 4))
        attach(dp, dp.prog_load(tail_program(jumps)))
        with dp.prog_load(code("r0 = 9\nexit")) as target:
            jumps.update(bytes([1, 0, 0, 0]), target.fileno().to_bytes(4, "little"))
        del jumps
    with User(home) as dp:
        assert [p.name for p in dp.progs()] == ["tail"] and dp.progs()[0].run(bytes(64)).verdict == 100


def attach_one(home: str) -> None:
    """Do all that `tc filter add` does."""
    with User(home) as dp:
        dp.apply(Request(Op.ADD, Link("em1")))
        dp.apply(Request(Op.ADD, Qdisc("em1", "clsact", parent=TC_H_CLSACT)))
        attach(dp, dp.prog_load(count_program()))


def killed_at(step: int, home: str) -> bool:
    """Attach a program in a child that dies at its `step`th call within the datapath; tell whether it died."""
    if (child := os.fork()) == 0:
        calls = itertools.count()

        def count(frame: FrameType, event: str, _: object) -> None:
            if event == "call" and "tcbpf/datapath/user" in frame.f_code.co_filename and next(calls) == step:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.setprofile(count)
        attach_one(home)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL)
    return status != 0


def test_killed_between_any_two_steps_nothing_is_left(home: str) -> None:
    attach_one(f"{home}-first")  # so that children find everything imported and compiled
    step = 0
    while killed_at(step, where := f"{home}-{step}"):
        step += 7
        if not Path(where).exists():
            continue
        with User(where) as dp:
            named = {f.options.id for filters in dp.state().filters.values() for f in filters if isinstance(f.options, Bpf)}
            assert {p.id for p in dp.progs()} == named
            assert {m.raw.id for p in dp.progs() for m in p.maps} == {m.raw.id for m in dp.all_maps()}
    assert step > 100


# ---------------------------------------------------------------- bad input


def test_a_map_too_large_for_memory(home: str) -> None:
    for dp in (User(), User(home)):
        with dp, pytest.raises(MapError, match=r"MiB are available|Cannot allocate"):
            dp.map_create(MapSpec("huge", "array", 4, 1 << 20, 1 << 24))


def test_a_full_disk_under_the_home(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with User(home) as dp:
        m = dp.map_create(COUNTER)
        for name, asked in ("pwrite", "keep program"), ("link", "keep map|keep program"), ("posix_fallocate", "create"):
            with monkeypatch.context() as patch:
                patch.setattr(os, name, full)
                with pytest.raises(SysError, match=asked) as caught:
                    dp.prog_load(count_program(m if name == "pwrite" else COUNTER))
                assert caught.value.errno == errno.ENOSPC
        assert list(dp.progs()) == [] and len(dp.all_maps()) == 1


def test_a_map_type_that_the_runtime_lacks() -> None:
    with User() as dp, pytest.raises(NotSupported, match="no devmap maps"):
        dp.map_create(MapSpec("devices", "devmap", 4, 4, 8))


def test_a_home_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SysError, match="home"):
        User(str(tmp_path / "file" / "home"))


def test_a_file_that_is_no_object(home: str) -> None:
    with User(home) as dp:
        Path(home, "bpf").mkdir(parents=True)
        Path(home, "bpf/junk").write_bytes(b"junk")
        Path(home, "bpf/text").write_text(json.dumps({"format": "other"}))
        for name in "junk", "text":
            with pytest.raises((SysError, InputError)):
                dp.obj_get(f"/sys/fs/bpf/{name}")


def test_a_map_of_another_datapath_is_refused() -> None:
    with User() as one, User() as two:
        m = one.map_create(COUNTER)
        assert two.prog_load(count_program(m)).run(bytes(64)).verdict == 0  # a file serves any process
        assert hits(m) == 1


# ---------------------------------------------------------------- trace


def test_trace_lines_are_read_once(home: str) -> None:
    insns = """
        r1 = 0x6425206968 ll
        *(u64 *)(r10 -8) = r1
        r1 = r10
        r1 += -8
        r2 = 8
        r3 = 42
        call bpf_trace_printk
        r0 = 0
        exit
    """
    with User(home) as writer, User(home) as reader:
        prog = writer.prog_load(code(insns))
        prog.run(bytes(64), repeat=2)
        lines: Iterator[str] = reader.trace_pipe()
        for _ in range(2):
            line = next(lines)
            assert line.endswith("bpf_trace_printk: hi 42") and f"-{os.getpid()}" in line
        assert reader.runtime.trace.take() == []


def test_classic_bytecode_is_a_filter_too(home: str, capture: str) -> None:

    with User(home) as dp:
        devices(dp)
        drop_udp = (Classic(0x30, 0, 0, 23), Classic(0x15, 0, 1, 17), Classic(6, 0, 0, 2), Classic(6, 0, 0, 0))
        dp.apply(
            Request(
                Op.ADD,
                Filter("em1", INGRESS, "bpf", options=Bpf(bytecode=tuple(tuple(i) for i in drop_udp), direct_action=True)),
            )
        )  # type: ignore[misc]
        assert dp.replay(capture, "em1", ingress=True).verdicts == {2: 10}


def test_a_damaged_file_stops_only_who_wants_it(home: str, capture: str) -> None:
    with User(home) as user:
        user.obj_pin("/sys/fs/bpf/kept", user.map_create(COUNTER))
        user.apply(Request(Op.ADD, Qdisc("lo", "clsact", 0xFFFF0000, TC_H_CLSACT)))
        user.apply(Request(Op.ADD, Filter("lo", INGRESS, "bpf", options=Bpf(prog=user.prog_load(count_program())))))
        (kept, used) = user.objects.maps.ids()
    (Path(home) / "maps" / str(used)).write_bytes(b"x" * 100)
    with User(home) as user:
        assert len(user.apply(Request(Op.SHOW, Filter("lo", INGRESS)))) == 2
        with pytest.raises((InputError, SysError), match=f"maps/{used}"):
            user.map_by_id(used)
        user.apply(Request(Op.DELETE, Filter("lo", INGRESS, pref=49152)))
    with User(home) as user:
        found = user.obj_get("/sys/fs/bpf/kept")
        assert isinstance(found, Map) and found.raw.id == kept
        assert user.objects.progs.ids() == [1] and user.objects.maps.ids() == [kept, used]


def test_loaders_that_meet_at_a_pin_share_the_map(home: str) -> None:
    loaded = load(
        compile_c("""
        #include "bpf_api.h"
        struct bpf_elf_map __section("maps") shared = {
            .type = BPF_MAP_TYPE_ARRAY, .size_key = 4, .size_value = 4, .pinning = PIN_GLOBAL_NS, .max_elem = 1 };
        __section_cls_entry int cls(struct __sk_buff *skb) { int k = 0; return map_lookup_elem(&shared, &k) ? 5 : 6; }
        BPF_LICENSE("GPL");
    """)
    )

    class Late(User):
        """One that another loader overtakes between its look for a pin and the pinning."""

        others: list[Prog]

        def obj_pin(self, path: str, obj: Map | Prog) -> None:
            if not self.others:
                self.others.append(first.load(loaded))
            super().obj_pin(path, obj)

    with User(home) as first, Late(home) as second:
        second.others = []
        mine = second.load(loaded)
        assert len({one.maps[0].raw.id for one in (mine, *second.others)}) == 1


def test_a_program_is_compiled_when_it_is_loaded(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise NotSupported("no JIT for this machine")

    monkeypatch.setattr("tcbpf.datapath.user.prog.compile", refuse)
    with User(home=home) as dp:
        with pytest.raises(NotSupported, match="no JIT"):
            dp.prog_load(Program.from_bytes(encode(assemble("r0 = 0\nexit"))))
        assert dp.progs() == []


@pytest.mark.parametrize("name", ["state.db", "maps/1", "progs/1"])
def test_the_files_of_a_home_are_not_unpinned(home: str, name: str) -> None:
    with User(home=home) as dp:
        m = dp.map_create(MapSpec("m", "array", 4, 4, 1))
        dp.obj_pin("/sys/fs/bpf/m", m)
        dp.prog_load(Program.from_bytes(encode(assemble("r0 = 0\nexit"))))
        for path in (f"{home}/{name}", f"{home}/bpf/../{name}"):
            with pytest.raises(SysError):
                dp.obj_unpin(path)
        assert Path(home, name).exists()
        dp.obj_unpin(f"{home}/bpf/m")
        assert not Path(home, "bpf/m").exists() and Path(home, "maps/1").exists()


def test_nothing_is_left_of_a_datapath_that_is_used_after_its_end() -> None:
    dp = User()
    dp.map_create(MapSpec("m", "array", 4, 4, 1))
    place = dp.home
    dp.close()
    with pytest.raises(SysError):
        dp.map_create(MapSpec("m", "array", 4, 4, 1))
    assert not place.exists()

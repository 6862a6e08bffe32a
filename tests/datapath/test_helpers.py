"""Helpers about everything but the packet's bytes, compiled from C: what the live kernel's programs note, ours do."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tcbpf.datapath.base import Datapath
from tcbpf.datapath.kernel import Kernel
from tcbpf.datapath.user import User
from tcbpf.errors import InputError, MapError
from tcbpf.isa import assemble
from tcbpf.lang import compile
from tcbpf.obj.program import Object, Program
from tcbpf.vm.executable import Options

PACKET = bytes.fromhex("020000000002020000000001 0800 45000028 00010000 4011f96e 0a000001 0a000002") + bytes(30)
PROGRAMS = ("numbers", "texts", "packets", "dynptrs", "rings", "events", "blooms", "walks", "locking", "places")


@pytest.fixture(scope="module")
def source() -> Object:
    return compile(Path(__file__).parent / "helpers.c")


@pytest.fixture(params=["jit", "interp"])
def user(request: pytest.FixtureRequest) -> Iterator[User]:
    with User(options=Options(engine=request.param)) as dp:
        yield dp


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with Kernel() as dp:
        yield dp


def noted(dp: Datapath, source: Object, name: str) -> tuple[int, list[int]]:
    verdict = dp.load(source, program=name).run(PACKET).verdict
    count = dp.maps[".bss"][0]["at"]
    return verdict, [dp.maps["notes"][i] for i in range(count)]


@pytest.mark.kernel
@pytest.mark.parametrize("name", PROGRAMS)
def test_same(user: User, kernel: Kernel, source: Object, name: str) -> None:
    mine, theirs = noted(user, source, name), noted(kernel, source, name)
    assert mine[0] == theirs[0]
    assert len(mine[1]) > 4
    assert [(i, a, b) for i, (a, b) in enumerate(zip(*(side[1] for side in (mine, theirs)), strict=True)) if a != b] == []


@pytest.mark.kernel
def test_ticks(user: User, kernel: Kernel) -> None:
    """jiffies64 runs at the host's rate from the kernel's own beginning; its clock was set a moment before the other's."""
    code = Program("ticks", "sched_cls", tuple(assemble("call bpf_jiffies64\nexit")))
    theirs, mine = (dp.prog_load(code).run(PACKET).verdict & 0xFFFFFFFF for dp in (kernel, user))
    assert abs(mine - theirs) < 1000


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("ifindex", "flags", "ctx"),
    [(1, 0, {}), (1, 1, {}), (1, 2, {}), (1 << 20, 0, {}), (1, 0, {"gso_size": 9}), (1, 2, {"gso_size": 9})],
)
def test_a_clone_in_a_test_run(user: User, kernel: Kernel, ifindex: int, flags: int, ctx: dict[str, int]) -> None:
    code = Program("clone", "sched_cls", tuple(assemble(f"r2 = {ifindex}\nr3 = {flags}\ncall bpf_clone_redirect\nexit")))
    mine, theirs = (dp.prog_load(code).run(PACKET, ctx).verdict for dp in (user, kernel))
    assert mine == theirs


def test_a_host_without_sockets(user: User, source: Object) -> None:
    verdict, seen = noted(user, source, "sockets")
    assert (verdict, seen) == (0, [0, 0, 65534, 0, 0, 1])


def records_of(dp: Datapath, source: Object, name: str, map: str, type: str = "", skip: int = 0) -> list[object]:
    prog = dp.load(source, program=name)
    with dp.maps[map].records(type) as records:
        prog.run(PACKET)
        return list(records)[skip:]


@pytest.mark.kernel
def test_records_of_a_ring_buffer(user: User, kernel: Kernel, source: Object) -> None:
    mine, theirs = (records_of(dp, source, "rings", "ring") for dp in (user, kernel))
    assert mine == theirs
    assert [len(record) for record in mine] == [16, 16, 5, *[600] * 6]
    with user.maps["ring"].records() as again:
        assert list(again) == []


def test_typed_records(datapath: Datapath, source: Object) -> None:
    prog = datapath.load(source, program="rings")
    with datapath.maps["ring"].records("struct event") as records:
        prog.run(PACKET)
        assert [records.wait(0), records.wait(1)] == [{"number": n, "text": "hello world"} for n in (0, 2)]
        with pytest.raises(InputError, match="a record of 5 bytes"):
            records.wait()
    with pytest.raises(InputError, match="no type 'nothing' in the BTF"):
        datapath.maps["ring"].records("nothing")
    with pytest.raises(MapError) as caught:
        datapath.maps["hash"].records()
    assert caught.value.errno == errno.ENOTSUP


def test_a_full_ring_goes_round(datapath: Datapath, source: Object) -> None:
    """Records come out whole and in order for as long as the reader keeps up, over many times the ring's size."""
    prog = datapath.load(source, program="rings")
    with datapath.maps["ring"].records() as records:
        for _ in range(50):
            prog.run(PACKET)
            assert [len(record) for record in records] == [16, 16, 5, *[600] * 6]
        assert list(records) == [] and records.wait(0) is None


@pytest.mark.kernel
def test_events(user: User, kernel: Kernel, source: Object) -> None:
    """What is put out while somebody reads; the kernel leaves what it pads with as it was."""
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})
    try:
        mine, theirs = (records_of(dp, source, "events", "perf") for dp in (user, kernel))
    finally:
        os.sched_setaffinity(0, cpus)
    assert [len(record) for record in mine] == [len(record) for record in theirs] == [20, 28, 4, 4]
    for a, b, used in zip(mine, theirs, (16, 25, 1, 0), strict=True):
        assert a[:used] == b[:used] and not any(a[used:])
    assert mine[1][5:25] == PACKET[:20]


@pytest.mark.kernel
def test_events_are_noted_as_the_kernel_says(user: User, kernel: Kernel, source: Object) -> None:
    seen = []
    for dp in (user, kernel):
        prog = dp.load(source, program="events")
        with dp.maps["perf"].records():
            prog.run(PACKET)
        prog.run(PACKET)
        seen.append([dp.maps["notes"][i] for i in range(dp.maps[".bss"][0]["at"])])
    assert seen[0] == seen[1]
    assert seen[0][:2] == [0, 0] and seen[0][7:9] == [-errno.ENOENT] * 2


def test_lost_events(user: User, source: Object) -> None:
    prog = user.load(source, program="events")
    with user.maps["perf"].records() as records:
        for _ in range(2000):
            prog.run(PACKET)
        taken = len(list(records))
        assert records.lost and taken + records.lost == 2000 * 4


def test_a_bloom_filter_forgets_nothing(datapath: Datapath, source: Object) -> None:
    datapath.load(source, program="blooms")
    bloom = datapath.maps["bloom"]
    for value in range(0, 2000, 2):
        bloom.push(value)
    assert all(value in bloom for value in range(0, 2000, 2))
    assert sum(value in bloom for value in range(1, 2000, 2)) < 500


def test_queues_by_hand(datapath: Datapath, source: Object) -> None:
    datapath.load(source, program="blooms")
    queue = datapath.maps["queue"]
    queue.push(1)
    queue.push(2)
    with pytest.raises(MapError) as caught:
        queue.push(3)
    assert caught.value.errno == errno.E2BIG
    queue.push(3, over=True)
    assert (queue.peek(), queue.pop(), queue.pop()) == (2, 2, 3)
    with pytest.raises(KeyError):
        queue.pop()

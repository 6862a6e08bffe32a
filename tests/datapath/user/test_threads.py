"""Maps and programs that several threads share, one of them closing."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tcbpf.datapath.user import User
from tcbpf.errors import SysError
from tcbpf.isa import assemble, encode
from tcbpf.obj.program import MapSpec, Program
from tcbpf.shared import Shared


@pytest.fixture(autouse=True)
def _often() -> Iterator[None]:
    """Switch threads as often as Python can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def together(*calls: Callable[[], object]) -> list[BaseException]:
    """Run calls in threads and return what they raised."""
    raised: list[BaseException] = []

    def run(call: Callable[[], object]) -> None:
        try:
            call()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def key(number: int) -> bytes:
    return number.to_bytes(4, "little")


def test_threads_read_and_write_what_they_mean() -> None:
    with User() as dp:
        m = dp.map_create(MapSpec("m", "hash", 4, 64, 4096))

        def work(thread: int) -> None:
            for number in range(thread * 1000, thread * 1000 + 1000):
                m.raw.update(key(number), bytes([number % 251]) * 64)
                assert m.raw.lookup(key(number)) == bytes([number % 251]) * 64
                assert m.raw.next_key(key(number)) != key(number)

        assert together(*(lambda t=t: work(t) for t in range(4))) == []
        assert {k: m.raw.lookup(key(k)) for k in range(4000)} == {k: bytes([k % 251]) * 64 for k in range(4000)}


def until_closed(call: Callable[[], object]) -> Callable[[], None]:
    def work() -> None:
        while True:
            call()

    return work


@pytest.mark.parametrize("closed", ["object", "datapath"])
def test_a_map_is_closed_under_its_users(closed: str) -> None:
    dp = User()
    m = dp.map_create(MapSpec("m", "hash", 4, 64, 64))

    def close() -> None:
        time.sleep(0.05)
        m.raw.close()
        if closed == "datapath":
            dp.close()

    calls = (lambda: m.raw.update(b"abcd", bytes(64)), lambda: m.raw.lookup(b"abcd"), lambda: list(m.raw_keys()))
    raised = together(*map(until_closed, calls), close)
    assert [getattr(error, "strerror", error) for error in raised] == ["Bad file descriptor"] * 3
    dp.close()


@pytest.mark.parametrize("closed", ["object", "datapath"])
def test_a_program_is_closed_under_its_runs(closed: str) -> None:
    dp = User()
    prog = dp.prog_load(Program.from_bytes(encode(assemble("r0 = 1\nexit"))))

    def close() -> None:
        time.sleep(0.05)
        prog.close() if closed == "object" else dp.close()

    raised = together(*[until_closed(lambda: prog.run(bytes(64)))] * 3, close)
    assert [getattr(error, "strerror", error) for error in raised] == ["Bad file descriptor"] * 3
    prog.close()
    dp.close()


def test_the_last_call_inside_drops_a_closed_object() -> None:
    dropped: list[int] = []

    class One(Shared):
        def drop(self) -> None:
            dropped.append(len(self._inside))

        def refusal(self) -> SysError:
            return SysError(9, "use it")

    one = One()
    with one.using(), one.using():
        one.close()
        one.close()
        with pytest.raises(SysError, match="use it"):
            one.begin()
        assert dropped == []
    assert dropped == [0]
    one.close()
    assert dropped == [0]

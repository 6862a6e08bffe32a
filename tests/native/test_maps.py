"""What maps promise beyond single commands: eviction, sharing between processes, a writer that died, damaged files."""

from __future__ import annotations

import ctypes
import errno
import multiprocessing
import os
from pathlib import Path

import pytest

from tcbpf.errors import InputError, MapError
from tcbpf.native.library import function, helper, struct
from tcbpf.native.runtime import Env, MapFile
from tcbpf.obj.program import MapSpec


def key(number: int) -> bytes:
    return number.to_bytes(4, "little")


def test_lru_evicts_the_least_used() -> None:
    made = MapFile.create(MapSpec("lru", "lru_hash", 4, 4, 100))
    for i in range(100):
        made.update(key(i), key(i))
    for i in range(100, 150):
        for hot in range(10):
            made.update(key(hot), key(hot))  # a use; a look-up by user space is none
        made.update(key(i), key(i))
    assert len(made) == 100
    assert all(made.lookup(key(hot)) == key(hot) for hot in range(10))
    assert made.lookup(key(149)) == key(149)
    assert sum(made.lookup(key(i)) is None for i in range(10, 100)) == 50


def test_too_large() -> None:
    with pytest.raises(MapError) as caught:
        MapFile.create(MapSpec("huge", "array", 4, 1 << 20, 1 << 28))
    assert caught.value.errno == errno.ENOMEM and "MiB are available" in str(caught.value)


def test_named_file_is_the_map(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "pin", os.O_RDWR | os.O_CREAT, 0o600)
    made = MapFile.create(MapSpec("flows", "hash", 4, 8, 10), fd, id=7)
    made.update(key(1), bytes(8))
    made.close()
    again = MapFile.open(str(tmp_path / "pin"))
    assert (again.spec.name, again.id, again.lookup(key(1))) == ("flows", 7, bytes(8))


def test_a_shape_that_does_not_add_up_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "pin"
    made = MapFile.create(MapSpec("m", "hash", 4, 8, 10), os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    start = type(made.struct).s.offset
    made.close()
    whole = path.read_bytes()
    for at in (*range(16), *range(start, start + 4), *range(start + 12, start + 16), *range(start + 20, start + 64)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises((InputError, MapError)):
            MapFile.open(str(path)).close()
    path.write_bytes(whole[:5000])
    with pytest.raises(InputError, match="damaged"):
        MapFile.open(str(path))


@pytest.mark.parametrize("type", ["hash", "lpm_trie"])
def test_processes_share(type: str) -> None:
    size, flags = (4, 0) if type == "hash" else (8, 1)
    made = MapFile.create(MapSpec("shared", type, size, 4, 120, flags))
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=hammer, args=(made.fileno(), type, 50 * i)) for i in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert len(made) == 50


def hammer(fd: int, type: str, first: int) -> None:
    made = MapFile.open(fd)
    keys = [key(i) if type == "hash" else key(32) + i.to_bytes(4, "big") for i in range(first, first + 50)]
    for round in range(200):
        for one in keys:
            made.update(one, key(round))
        for one, kept in zip(keys[::2], keys[1::2], strict=True):
            assert made.delete(one)
            assert made.lookup(kept) == key(round)


@pytest.mark.parametrize("type", ["hash", "lru_hash", "lpm_trie"])
def test_a_dead_writer_stops_nobody(type: str) -> None:
    size, flags = (8, 1) if type == "lpm_trie" else (8, 0)
    made = MapFile.create(MapSpec("m", type, size, 4, 20, flags))
    keys = [key(32) + i.to_bytes(4, "big") for i in range(20)]
    for one in keys:
        made.update(one, one[4:])
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    made.struct.lock = child | (os.stat("/proc/self/ns/pid").st_ino & 0x7FFFFFFF) << 32  # it died with the lock held,
    made.struct.free, made.struct.count, made.struct.seq = 0, 3, 1  # half-way through
    assert made.delete(keys[0])
    assert made.struct.repaired == 1 and len(made) == 19
    made.update(keys[0], b"back")
    assert [made.lookup(one) for one in keys] == [b"back", *(one[4:] for one in keys[1:])]


def test_a_living_holder_is_waited_for_and_reported() -> None:
    made = MapFile.create(MapSpec("m", "hash", 4, 4, 20))
    made.struct.lock = os.getppid() | (os.stat("/proc/self/ns/pid").st_ino & 0x7FFFFFFF) << 32
    with pytest.raises(MapError) as caught:
        made.update(key(1), key(1))
    assert caught.value.errno == errno.EBUSY


def test_a_type_without_a_row_is_refused_everywhere() -> None:
    shape = struct("tcbpf_shape")(type=99, key_size=4, value_size=4, max_entries=4, cpus=1)
    assert function("tcbpf_map_plan", ctypes.c_int64, ctypes.c_void_p)(ctypes.addressof(shape)) == -errno.EINVAL
    map = MapFile.create(MapSpec("m", "hash", 4, 4, 4))
    map.update(bytes(4), bytes(4))
    map.struct.s.type = 99
    for refused in (
        lambda: map.lookup(bytes(4)),
        lambda: map.update(bytes(4), bytes(4)),
        lambda: map.delete(bytes(4)),
        lambda: map.next_key(None),
        lambda: map.pop(bytes(4)),
    ):
        with pytest.raises(MapError) as error:
            refused()
        assert error.value.errno == errno.EINVAL
    key = ctypes.create_string_buffer(4)
    env, at = Env(), ctypes.addressof(key)
    for name, result in (
        ("map_lookup_elem", 0),
        ("map_lookup_percpu_elem", 0),
        ("map_update_elem", -errno.EINVAL),
        ("map_delete_elem", -errno.EINVAL),
        ("map_push_elem", -errno.EINVAL),
        ("map_pop_elem", -errno.EINVAL),
        ("map_peek_elem", -errno.EINVAL),
    ):
        call = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_void_p] * 6)(helper(name))
        assert call(env.address, map.address, at, at, 0, 0) == result, name
    map.close()

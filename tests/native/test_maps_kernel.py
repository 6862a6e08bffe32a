"""Maps against the live kernel's: the same random commands, the same answers and errnos."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from typing import Any

import pytest

from native.kernel_map import KernelMap
from tcbpf.native.runtime import MapFile, possible_cpus
from tcbpf.obj.program import MapSpec

pytestmark = pytest.mark.kernel

NO_PREALLOC = 1
SPECS = (
    MapSpec("array", "array", 4, 12, 5),
    MapSpec("percpu_array", "percpu_array", 4, 12, 3),
    MapSpec("hash", "hash", 3, 5, 6),
    MapSpec("hash_lazy", "hash", 16, 8, 6, NO_PREALLOC),
    MapSpec("percpu_hash", "percpu_hash", 4, 9, 4),
    MapSpec("lpm", "lpm_trie", 8, 4, 7, NO_PREALLOC),
    MapSpec("lpm6", "lpm_trie", 4 + 16, 8, 9, NO_PREALLOC),
    MapSpec("queue", "queue", 0, 4, 3),
    MapSpec("stack", "stack", 0, 4, 3),
)


def answer(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except OSError as error:
        return "errno", errno.ENOTSUP if error.errno == 524 else error.errno


def some_key(chance: random.Random, spec: MapSpec) -> bytes:
    if spec.type == "lpm_trie":
        bits = chance.choice((0, 1, 4, 7, 8, 9, 16, 24, 8 * (spec.key_size - 4), 8 * (spec.key_size - 4) + 1))
        return bits.to_bytes(4, "little") + bytes(chance.choice((0, 0x0A, 0x0B, 0x80)) for _ in range(spec.key_size - 4))
    return chance.randrange(9).to_bytes(spec.key_size, "little") if spec.key_size else b""


def some_command(chance: random.Random, spec: MapSpec) -> Callable[[Any], Any]:
    key = some_key(chance, spec)
    size = (spec.value_size + 7) // 8 * 8 * possible_cpus() if spec.type.startswith("percpu") else spec.value_size
    value, flags = chance.randbytes(size), chance.choice((0, 0, 0, 1, 2, 3, 4, 8))
    if spec.type.startswith("percpu"):  # padding is not a value's
        value = b"".join(
            value[i : i + spec.value_size].ljust((spec.value_size + 7) // 8 * 8, b"\0")
            for i in range(0, size, size // possible_cpus())
        )
        flags &= 3  # BPF_F_CPU and its kin are newer than per-CPU maps
    return chance.choice(
        (
            lambda m: answer(lambda: m.update(key, value, flags)),
            lambda m: answer(lambda: m.update(key, value, flags)),
            lambda m: answer(lambda: m.lookup(key)),
            lambda m: answer(lambda: m.delete(key)),
            lambda m: answer(lambda: m.pop(key)),
            lambda m: contents(m),
        )
    )


def contents(one: Any) -> Any:
    """Return all keys: in the order of the map where the kernel defines one, else sorted."""
    spec = one.spec
    keys, key = list[bytes](), answer(lambda: one.next_key(None))
    while isinstance(key, bytes) and len(keys) < 1000:
        keys.append(key)
        key = answer(lambda at=key: one.next_key(at))
    return (keys if "hash" not in spec.type else sorted(keys)), key


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_same(spec: MapSpec, seed: int) -> None:
    chance = random.Random(seed)
    mine, theirs = MapFile.create(spec), KernelMap(spec)
    try:
        for step in range(250):
            command = some_command(chance, spec)
            assert command(mine) == command(theirs), step
        answers = [answer(one.freeze) for one in (mine, theirs)]
        key, value = some_key(chance, spec), bytes(mine.value_bytes)
        answers += [answer(one.freeze) for one in (mine, theirs)]
        answers += [answer(lambda at=one: at.update(key, value)) for one in (mine, theirs)]
        answers += [answer(lambda at=one: at.delete(key)) for one in (mine, theirs)]
        assert answers[::2] == answers[1::2]
    finally:
        mine.close()
        theirs.close()


CREATE = (
    ("array", 4, 0, 1, 0),
    ("array", 8, 4, 1, 0),
    ("array", 4, 4, 0, 0),
    ("array", 4, 4, 1, 1),
    ("hash", 0, 4, 1, 0),
    ("hash", 4, 0, 1, 0),
    ("hash", 4, 4, 0, 0),
    ("hash", 4, 4, 1, 2),
    ("hash", 4, 1 << 22, 1, 0),
    ("hash", 600, 4, 1, 0),
    ("percpu_hash", 4, 40000, 1, 0),
    ("percpu_array", 4, 40000, 1, 0),
    ("percpu_array", 4, 32768, 1, 0),
    ("lpm_trie", 4, 4, 1, 1),
    ("lpm_trie", 5, 4, 1, 0),
    ("lpm_trie", 260, 4, 1, 1),
    ("lpm_trie", 261, 4, 1, 1),
    ("lpm_trie", 8, 0, 1, 1),
    ("queue", 4, 4, 1, 0),
    ("queue", 0, 4, 0, 0),
    ("queue", 0, 0, 1, 0),
    ("stack", 0, 4, 1, 1),
    ("lru_hash", 4, 4, 10, 1),
    ("lru_hash", 4, 4, 10, 2),
    ("prog_array", 4, 4, 3, 0),
    ("prog_array", 4, 8, 3, 0),
    ("hash", 4, 4, 1, 1 << 20),
    ("array", 4, 4, 1, 1 << 10),
    ("hash", 4, 4, 1, 64),
    ("hash", 4, 4, 10, 128),
    ("array", 4, 4, 1, 8),
    *(
        ("ringbuf", key, value, entries, flags)
        for key, value, entries, flags in (
            (0, 0, 4096, 0),
            (0, 0, 4095, 0),
            (0, 0, 12288, 0),
            (0, 0, 0, 0),
            (4, 0, 4096, 0),
            (0, 4, 4096, 0),
            (0, 0, 4096, 1),
        )
    ),
    *(
        ("bloom_filter", key, value, entries, flags)
        for key, value, entries, flags in (
            (0, 8, 10, 0),
            (4, 8, 10, 0),
            (0, 0, 10, 0),
            (0, 8, 0, 0),
            (0, 8, 10, 1),
            (0, 8, 10, 64),
            (0, (1 << 22) + 1, 10, 0),
        )
    ),
    *(
        ("perf_event_array", key, value, entries, flags)
        for key, value, entries, flags in (
            (4, 4, 8, 0),
            (4, 4, 8, 2048),
            (8, 4, 8, 0),
            (4, 8, 8, 0),
            (4, 4, 0, 0),
            (4, 4, 8, 1),
        )
    ),
    ("sk_storage", 4, 8, 0, 1),
)


@pytest.mark.parametrize("what", CREATE, ids=str)
def test_create(what: tuple[str, int, int, int, int]) -> None:
    spec = MapSpec("m", *what)
    assert answer(lambda: MapFile.create(spec).close()) == answer(lambda: KernelMap(spec).close())

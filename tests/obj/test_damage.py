"""Damaged objects: whatever is done to the bytes, the answer is an object or an ObjectError."""

from __future__ import annotations

import random
import struct
from contextlib import suppress
from pathlib import Path

import pytest

from tcbpf.errors import NotSupported, ObjectError
from tcbpf.lang import compile_c
from tcbpf.obj import SectionError, elf, link, load, programs, tail_programs

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.c"))
RELOCATABLE = """
struct inner { int x, y; };
struct __sk_buff { unsigned len, mark; struct inner in[4]; union { struct { int a, b:3; }; long c; }; }
    __attribute__((preserve_access_index));
enum kind { ONE = 1, TWO = 2 };
__attribute__((section("tc"))) int f(struct __sk_buff *s) { return s->mark + s->in[2].y + s->b + s->a; }
__attribute__((section("action"))) int g(struct __sk_buff *s) {
    return __builtin_preserve_field_info(s->in, 1) + __builtin_btf_type_id(*s, 0) + __builtin_preserve_type_info(*s, 1);
}
"""
WORDS = (0, 1, 2, 8, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)


@pytest.fixture(scope="module")
def objects() -> list[tuple[bytes, list[tuple[int, int]]]]:
    raws = [*(compile_c(path) for path in EXAMPLES), compile_c(RELOCATABLE)]
    return [(raw, interesting(raw)) for raw in raws]


def interesting(raw: bytes) -> list[tuple[int, int]]:
    """Return the byte ranges that a loader reads: headers, and every section but DWARF."""
    (headers,) = struct.unpack_from("<Q", raw, 0x28)
    sections = elf.read(raw).sections
    found = [(0, 64), (headers, headers + 64 * len(sections))]
    for section in sections:
        (start,) = struct.unpack_from("<Q", raw, headers + 64 * section.index + 24)
        if section.data and "debug" not in section.name:
            found.append((start, start + len(section.data)))
    return found


def damaged(raw: bytes, ranges: list[tuple[int, int]], rng: random.Random) -> bytes:
    """Return `raw` with a few bytes or words changed, moved or cut off."""
    out = bytearray(raw)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 8))):
        low, high = rng.choice(ranges)
        at, how = rng.randrange(low, high), rng.random()
        if how < 0.3:
            out[at] = rng.randrange(256)
        elif how < 0.6:
            out[at] ^= 1 << rng.randrange(8)
        elif how < 0.8:
            out[at & ~3 : (at & ~3) + 4] = rng.choice((*WORDS, len(raw), rng.getrandbits(32))).to_bytes(4, "little")
        elif how < 0.9:
            source = rng.randrange(low, high)
            size = min(high - source, high - at, 16)
            out[at : at + size] = out[source : source + size]
        else:
            return bytes(out[: rng.randrange(len(out))])
    return bytes(out)


def use(raw: bytes) -> bool:
    """Load and link everything in it; return whether it loaded."""
    try:
        obj = load(raw, path="x.o")
        tail_programs(obj)
    except ObjectError as error:
        assert error.section or "ELF" in error.what or "compile with" in str(error), str(error)
        assert str(error).startswith("x.o") and "\n" not in str(error)
        return False
    for listed in programs(obj):
        with suppress(ObjectError, SectionError, NotSupported):
            link(obj, program=listed.name)
    return True


def run(objects, rounds: int, seed: int) -> tuple[int, int]:
    rng = random.Random(seed)
    good = sum(use(damaged(*rng.choice(objects), rng)) for _ in range(rounds))
    return good, rounds - good


def test_thousands_of_damaged_objects(objects):
    good, refused = run(objects, 4000, seed=1)
    assert good > 400 and refused > 400  # the damage is neither harmless nor total


@pytest.mark.slow
def test_a_million_damaged_objects(objects):
    for seed in range(100):
        run(objects, 10_000, seed)


def test_every_cut_is_refused(objects):
    raw, _ = min(objects, key=lambda pair: len(pair[0]))
    assert not any(use(raw[:size]) for size in range(0, len(raw), 7))

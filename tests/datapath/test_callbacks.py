"""Functions that helpers call back, over every map that can be walked: machine code, interpreter and live kernel agree."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tcbpf.datapath.base import Datapath
from tcbpf.datapath.kernel import Kernel
from tcbpf.datapath.user import User
from tcbpf.lang import compile
from tcbpf.obj.program import Object
from tcbpf.vm.executable import Options

WALKED = ("array", "percpu_array", "hash", "percpu_hash", "lru_hash", "lru_percpu_hash")
CALLBACKS = ("key32", "key16", "key8", "both", "swap", "own", "third", "refused")
PROGRAMS = (*(f"{kind}_{callback}" for kind in WALKED for callback in CALLBACKS), "loops", "too_many", "contexts")
PACKET = bytes.fromhex("020000000002 020000000001 0800 45000028 00010000 4011f96e 0a000001 0a000002") + bytes(30)
E2BIG = -7


@pytest.fixture(scope="module")
def source() -> Object:
    return compile(Path(__file__).parent / "callbacks.c")


@pytest.fixture(params=["jit", "interp"])
def user(request: pytest.FixtureRequest) -> Iterator[User]:
    with User(options=Options(engine=request.param)) as dp:
        yield dp


def noted(dp: Datapath, source: Object, name: str) -> tuple[int, list[int]]:
    verdict = dp.load(source, program=name).run(PACKET).verdict
    return verdict, [dp.maps["notes"][i] for i in range(dp.maps[".bss"][0]["at"])]


@pytest.mark.kernel
@pytest.mark.parametrize("name", PROGRAMS)
def test_same(user: User, source: Object, name: str) -> None:
    with Kernel() as kernel:
        theirs = noted(kernel, source, name)
    assert len(theirs[1]) > 3
    assert noted(user, source, name) == theirs


def test_the_key_of_an_array_is_its_index(user: User, source: Object) -> None:
    called, squares, *_ = noted(user, source, "array_key32")[1]
    assert (called, squares) == (4, 1 + 4 + 9 + 16)


def test_a_loop_in_place_of_its_call_has_an_error_of_32_bits(user: User, source: Object) -> None:
    inlined, _, _, called, *_ = noted(user, source, "too_many")[1]
    assert (inlined, called) == (E2BIG & 0xFFFFFFFF, E2BIG)


def test_a_subprogram_sees_what_a_helper_did_to_the_context(user: User, source: Object) -> None:
    assert noted(user, source, "contexts")[1][:3] == [105, 3, -5]

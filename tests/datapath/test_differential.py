"""The same map operations on both datapaths, at random: the same answers and errnos."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import open_for_test
from tcbpf.datapath.base import Datapath
from tcbpf.datapath.kernel.maps import possible_cpus
from tcbpf.errors import SysError
from tcbpf.obj.program import MapSpec

pytestmark = pytest.mark.kernel
SETTINGS = settings(max_examples=80)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Datapath, Datapath]]:
    """The user datapath and the kernel's."""
    home = tmp_path_factory.mktemp("home")
    with open_for_test("user", "", home) as user, open_for_test("kernel", "", home) as kernel:
        yield user, kernel


SPECS = (
    MapSpec("m", "hash", 4, 8, 3),
    MapSpec("m", "array", 4, 8, 3),
    MapSpec("m", "percpu_hash", 4, 8, 3),
    MapSpec("m", "percpu_array", 4, 8, 3),
    MapSpec("m", "lpm_trie", 8, 4, 4, flags=1),
    MapSpec("m", "hash", 4, 8, 3, flags=1),
    MapSpec("m", "queue", 0, 4, 3),
    MapSpec("m", "stack", 0, 4, 3),
)
MAP_OPS = st.lists(
    st.tuples(
        st.sampled_from(["lookup", "update", "delete", "keys", "freeze"]),
        st.integers(0, 5),
        st.integers(0, 255),
        st.sampled_from([0, 0, 0, 1, 2, 3, 4, 8]),
    ),
    max_size=12,
)


def key_of(spec: MapSpec, number: int) -> bytes:
    if spec.type == "lpm_trie":
        return (8 * number).to_bytes(4, "little") + bytes([10, number, 0, 0])
    return number.to_bytes(4, "little")[: spec.key_size]


@SETTINGS
@given(spec=st.sampled_from(SPECS), ops=MAP_OPS)
def test_maps(both: tuple[Datapath, Datapath], spec: MapSpec, ops: list[tuple[str, int, int, int]]) -> None:
    first, second = (dp.map_create(spec) for dp in both)
    for word, number, byte, flags in ops:
        said = []
        for m in (first, second):
            size = 8 * possible_cpus() if spec.type.startswith("percpu") else spec.value_size
            try:
                match word:
                    case "lookup":
                        said.append(m.lookup(key_of(spec, number)))
                    case "update":
                        said.append(m.update(key_of(spec, number), bytes([byte]) * size, flags))
                    case "delete":
                        said.append(m.delete(key_of(spec, number)))
                    case "keys":
                        said.append(sorted(m.raw_keys()) if spec.key_size else None)
                    case "freeze":
                        said.append(m.raw.freeze())
            except SysError as error:
                said.append(("errno", error.errno))
        assert said[0] == said[1], (word, number, byte, flags)


CREATED = st.builds(
    MapSpec,
    st.just("m"),
    st.sampled_from(
        [
            "hash",
            "array",
            "percpu_hash",
            "percpu_array",
            "lru_hash",
            "lru_percpu_hash",
            "lpm_trie",
            "queue",
            "stack",
            "prog_array",
        ]
    ),
    st.sampled_from([0, 1, 4, 4, 8, 12, 260, 261, 512]),
    st.sampled_from([0, 1, 4, 4, 8, 40000]),
    st.sampled_from([0, 1, 3, 1000]),
    flags=st.sampled_from([0, 0, 0, 1, 2, 4, 8, 0x10, 0x20, 0x40, 0x80, 0x400, 0x180, 1 << 20]),
)


@SETTINGS
@given(spec=CREATED)
def test_what_maps_there_can_be(both: tuple[Datapath, Datapath], spec: MapSpec) -> None:
    said = []
    for dp in both:
        try:
            dp.map_create(spec).raw.close()
            said.append(True)
        except SysError:
            said.append(False)
    assert said[0] == said[1]

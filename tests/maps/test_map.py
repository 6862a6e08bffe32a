"""A map as Python sees it, over a dictionary in place of a datapath."""

from __future__ import annotations

import copy
import errno
import json
from dataclasses import replace

import pytest

from tcbpf.errors import InputError, MapError
from tcbpf.lang import compile_c
from tcbpf.maps.copied import copied
from tcbpf.maps.map import BPF_ANY, Map, possible_cpus
from tcbpf.obj import MapSpec, load

SOURCE = """
#include <bpf_helpers.h>
struct flow { __u64 packets, bytes; };
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __be32);
	__type(value, struct flow);
} flows SEC(".maps");
int counter = 5, limit = 9;
"""


class Fake:
    """A RawMap that is a dict."""

    id = 1

    def __init__(self, spec: MapSpec) -> None:
        self.spec, self.elements = spec, {}

    def lookup(self, key: bytes) -> bytes | None:
        return self.elements.get(key)

    def update(self, key: bytes, value: bytes, flags: int = BPF_ANY) -> None:
        if self.spec.max_entries == len(self.elements) and key not in self.elements:
            raise MapError(errno.E2BIG, "update", self.spec.name)
        self.elements[key] = value

    def delete(self, key: bytes) -> bool:
        return self.elements.pop(key, None) is not None

    def next_key(self, key: bytes | None) -> bytes | None:
        keys = list(self.elements)
        return next(iter(keys[keys.index(key) + 1 :] if key in keys else keys), None)


@pytest.fixture(scope="module")
def specs():
    return load(compile_c(SOURCE)).maps


def test_an_address_finds_a_flow(specs):
    flows = Map(Fake(specs["flows"]))
    flows["10.0.0.1"] = {"packets": 2, "bytes": 120}
    flows["10.0.0.2"] = {"packets": 1}
    assert flows["10.0.0.1"] == {"packets": 2, "bytes": 120}
    assert flows.lookup(bytes([10, 0, 0, 1])) == (2).to_bytes(8, "little") + (120).to_bytes(8, "little")
    assert dict(flows.items()) == {"10.0.0.1": {"packets": 2, "bytes": 120}, "10.0.0.2": {"packets": 1, "bytes": 0}}
    assert list(flows.keys()) == list(flows) == ["10.0.0.1", "10.0.0.2"] and [v["packets"] for v in flows.values()] == [2, 1]
    assert "10.0.0.2" in flows and flows.get("10.0.0.3", "none") == "none"
    del flows["10.0.0.1"]
    assert next(flows.raw_keys()).hex() == "0a000002"


def test_an_element_that_is_not_there_is_a_key_error_and_a_map_error(specs):
    flows = Map(Fake(specs["flows"]))
    for act in (lambda: flows["1.2.3.4"], lambda: flows.__delitem__("1.2.3.4")):
        with pytest.raises(KeyError) as caught:
            act()
        assert isinstance(caught.value, MapError) and caught.value.errno == errno.ENOENT
        assert "'1.2.3.4'" in str(caught.value) and "flows" in str(caught.value)


def test_a_wrong_key_says_what_a_key_is(specs):
    with pytest.raises(InputError, match="map flows key: 'nonsense' is not an address"):
        Map(Fake(specs["flows"]))["nonsense"]


def test_setting_one_global_variable_keeps_the_others(specs):
    data = Map(Fake(specs[".data"]))
    data.raw.update(bytes(4), specs[".data"].contents)
    data[0] = {"counter": 6}
    assert data[0] == {"counter": 6, "limit": 9}


def test_a_per_cpu_value_is_a_list_of_padded_slots():
    counters = Map(Fake(MapSpec("c", "percpu_array", 4, 4, 2)))
    counters.raw.update(bytes(4), bytes(16))
    assert counters[0] == [0, 0]
    counters[0] = [3, 4]
    assert counters.lookup(bytes(4)) == b"\3" + bytes(7) + b"\4" + bytes(7) and counters[0] == [3, 4]
    counters[0] = 9
    assert counters[0] == [9, 9]
    with pytest.raises(InputError, match="one for each of 2 CPUs"):
        counters[0] = [1, 2, 3]
    empty = Map(Fake(MapSpec("c", "percpu_hash", 4, 4, 2)))
    empty[1] = 1
    assert len(empty[1]) == possible_cpus()


def test_a_member_of_what_was_read_cannot_be_set(specs):
    """It would reach the copy and not the map, of a structure, of one in an array, of a CPU's slot."""
    flows = Map(Fake(specs["flows"]))
    flows["10.0.0.1"] = {"packets": 1, "bytes": 2}
    for read in (flows["10.0.0.1"], flows.get("10.0.0.1"), dict(flows.items())["10.0.0.1"]):
        for change in (lambda v: v.__setitem__("packets", 5), lambda v: v.update(packets=5), lambda v: v.pop("packets")):
            with pytest.raises(TypeError, match="set the whole value"):
                change(read)
        assert read == {"packets": 1, "bytes": 2} and json.loads(json.dumps(read)) == read
    mine = copy.deepcopy(flows["10.0.0.1"])
    mine["packets"] += 1
    flows["10.0.0.1"] = mine
    flows["10.0.0.1"] = {**flows["10.0.0.1"], "bytes": 7}
    assert flows["10.0.0.1"] == {"packets": 2, "bytes": 7}
    counts = Map(Fake(MapSpec("counts", "percpu_array", 4, 4, 1)))
    counts[0] = 3
    with pytest.raises(TypeError, match="set the whole value"):
        counts[0][0] = 5
    with pytest.raises(TypeError, match="set the whole value"):
        copied({"array": [{"a": 1}]})["array"][0]["a"] = 5


def test_the_key_of_a_trie_is_a_prefix():
    trie = Map(Fake(MapSpec("t", "lpm_trie", 8, 4, 9)))
    trie["10.0.0.0/8"] = 1
    assert trie.lookup(bytes([8, 0, 0, 0, 10, 0, 0, 0])) == b"\1\0\0\0" and list(trie) == ["10.0.0.0/8"]
    for wrong in ("10.0.0.0/33", "10.0.0.0/x", "::/8"):
        with pytest.raises(InputError, match="is not a prefix"):
            trie[wrong] = 1


def test_the_walk_ends_when_keys_vanish_under_it(specs):
    flows = Map(Fake(specs["flows"]))
    for i in range(8):
        flows[i] = {}
    for key in flows.raw_keys():
        flows.delete(key)
    assert list(flows.raw_keys()) == []


def test_btf_of_another_size_is_not_believed(specs):
    odd = Map(Fake(replace(specs["flows"], key_size=3)))
    assert odd.decode_key(b"\1\2\3") == "010203"

"""Keys and values by their BTF types: the text of each, the way back, and what a wrong value is told."""

from __future__ import annotations

import pytest

from tcbpf.errors import InputError
from tcbpf.lang import compile_c
from tcbpf.maps.typed import Shape, shape_of
from tcbpf.obj import load

SOURCE = """
#include <linux/in6.h>
#include <linux/if_ether.h>
#include <bpf_helpers.h>

enum color { RED, GREEN = 7, NEGATIVE = -1 };
struct in_addr { __be32 s_addr; };
struct tuple { __be32 saddr, daddr; __be16 sport; __be16 dport; __u8 proto; };
struct many {
	__s8 small; __u16 half; __s64 wide; _Bool yes;
	enum color color;
	char name[8]; __u8 bytes[3]; __u8 h_dest[6]; __u8 src_ip[4];
	struct in6_addr six; struct in_addr four; __be32 seq; __be32 remote_ipv6[4];
	__u32 low:3, middle:7; __s32 sign:4;
	union { __u32 word; __u8 octets[4]; } either;
	union { __u16 first; __u16 second; };
	struct { int x, y; } points[2];
	void *pointer;
};
#define KEEP(type, name) struct type name SEC(".data")
KEEP(tuple, tuple); KEEP(many, many);
enum color color SEC(".data");
__be32 address SEC(".data"); __be16 port SEC(".data"); __u32 plain SEC(".data"); double real SEC(".data");
"""


@pytest.fixture(scope="module")
def btf():
    found = load(compile_c(SOURCE)).btf
    assert found is not None
    return found


def shape(btf, name: str) -> Shape:
    var = btf.find(name, 14)
    return shape_of(btf, var.type, btf.sizeof(var.type))


def test_a_tuple_of_addresses_and_ports_reads_as_text_and_numbers(btf):
    value = {"saddr": "10.0.0.1", "daddr": "192.168.1.2", "sport": 53, "dport": 443, "proto": 17}
    raw = shape(btf, "tuple").encode(value, "key")
    assert raw == bytes([10, 0, 0, 1, 192, 168, 1, 2, 0, 53, 1, 187, 17, 0, 0, 0])
    assert shape(btf, "tuple").decode(raw) == value


def test_every_kind_of_member_goes_in_and_comes_out(btf):
    value = {
        "small": -5,
        "half": 65535,
        "wide": -(1 << 60),
        "yes": True,
        "color": "GREEN",
        "name": "eth0",
        "bytes": [1, 2, 3],
        "h_dest": "aa:bb:cc:dd:ee:ff",
        "src_ip": "1.2.3.4",
        "six": "fe80::1",
        "four": "8.8.8.8",
        "seq": 7,
        "remote_ipv6": "::2",
        "low": 5,
        "middle": 99,
        "sign": -3,
        "either": {"word": 0x04030201, "octets": [1, 2, 3, 4]},
        "first": 9,
        "second": 9,
        "points": [{"x": 1, "y": -1}, {"x": 2, "y": -2}],
        "pointer": 0xFFFF888000000000,
    }
    many = shape(btf, "many")
    assert many.decode(many.encode(value, "v")) == value
    assert many.decode(bytes(many.size))["color"] == "RED"


@pytest.mark.parametrize(
    ("name", "value", "raw"),
    [
        ("address", "10.0.0.1", bytes([10, 0, 0, 1])),
        ("port", 53, b"\0\x35"),
        ("color", "NEGATIVE", b"\xff\xff\xff\xff"),
        ("real", 1.5, b"\0\0\0\0\0\0\xf8\x3f"),
    ],
)
def test_a_value_of_its_own(btf, name, value, raw):
    assert shape(btf, name).encode(value, "v") == raw
    assert shape(btf, name).decode(raw) == value


def test_an_address_is_taken_for_a_plain_word_too(btf):
    assert shape(btf, "plain").encode("10.0.0.1", "k") == bytes([10, 0, 0, 1])
    assert shape(btf, "plain").encode("0x10", "k") == bytes([16, 0, 0, 0])


def test_an_unknown_enumerator_stays_a_number(btf):
    assert shape(btf, "color").decode((3).to_bytes(4, "little")) == 3


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("address", "10.0.0", "is not an address"),
        ("color", "BLUE", "one of RED, GREEN, NEGATIVE"),
        ("plain", 1 << 32, "does not fit into 4 bytes"),
        ("tuple", {"sadr": 1}, "it has saddr, daddr, sport, dport, proto"),
        ("tuple", 5, "a dict with saddr"),
        ("tuple", {"sport": 70000}, "v.sport: 70000 does not fit"),
        ("many", {"name": "much too long"}, "char[8]"),
        ("many", {"middle": 128}, "does not fit into 7 bits"),
        ("many", {"points": [1, 2, 3]}, "list of up to 2"),
        ("many", b"123", "it has"),
    ],
)
def test_a_wrong_value_is_told_what_was_expected(btf, name, value, words):
    with pytest.raises(InputError) as caught:
        shape(btf, name).encode(value, "v")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("size", "value", "raw"),
    [
        (4, 258, b"\2\1\0\0"),
        (8, 1, b"\1" + bytes(7)),
        (4, "10.0.0.1", bytes([10, 0, 0, 1])),
        (3, "0a0b0c", b"\n\x0b\x0c"),
        (16, "::1", bytes(15) + b"\1"),
        (6, "01:02:03:04:05:06", bytes(range(1, 7))),
    ],
)
def test_without_btf_a_value_is_a_number_or_digits(size, value, raw):
    assert Shape(size).encode(value, "k") == raw
    shown = int.from_bytes(raw, "little") if size in (4, 8) else raw.hex()
    assert Shape(size).decode(raw) == shown


def test_without_btf_a_wrong_value_says_how_many_digits():
    with pytest.raises(InputError, match="6 hexadecimal digits"):
        Shape(3).encode("zz", "k")

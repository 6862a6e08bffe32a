"""The Internet checksum against RFC 1071's example and against itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tcbpf.net import build
from tcbpf.net.checksum import checksum, ones_sum, pseudo_header, update


def test_the_example_of_rfc_1071() -> None:
    assert ones_sum(bytes.fromhex("0001f203f4f5f6f7")) == 0xDDF2


def test_a_header_sums_to_zero_with_its_checksum() -> None:
    packet = build.ipv4(build.udp(b"odd"))
    assert checksum(packet[:20]) == 0
    assert checksum(pseudo_header("10.0.0.1", "10.0.0.2", 17, 11) + packet[20:]) == 0


def test_ipv6_pseudo_header() -> None:
    segment = build.tcp(b"x", source="fd00::1", destination="fd00::2")
    assert checksum(pseudo_header("fd00::1", "fd00::2", 6, 21) + segment) == 0


@given(st.binary(min_size=20, max_size=64), st.integers(0, 8), st.binary(min_size=4, max_size=4))
def test_update_equals_computing_again(data: bytes, word: int, new: bytes) -> None:
    at = word * 2
    changed = data[:at] + new + data[at + 4 :]
    if any(changed) and any(data):
        assert update(checksum(data), data[at : at + 4], new) % 0xFFFF == checksum(changed) % 0xFFFF

"""A file is what it begins with; its name decides where the contents do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tcbpf import filekind
from tcbpf.lang.c import compile_c
from tcbpf.net.pcap import PCAP_NS, PCAP_US, Writer


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.c", filekind.C), ("a.s", filekind.ASSEMBLY), ("a.ll", filekind.LLVM), ("a.o", filekind.TEXT)],
)
def test_a_file_that_is_not_there_has_the_kind_of_its_name(name: str, kind: str) -> None:
    assert filekind.of_path(f"/nonexistent/{name}") == kind


def test_the_contents_outrank_the_name(tmp_path: Path) -> None:
    path = tmp_path / "a.c"
    path.write_bytes(compile_c("int f(void) { return 0; }\n"))
    assert filekind.of_path(path) == filekind.OBJECT


@pytest.mark.parametrize(("name", "kind"), [("a.pcap", filekind.PCAP), ("a.pcapng", filekind.PCAPNG)])
def test_captures_that_we_write(tmp_path: Path, name: str, kind: str) -> None:
    with Writer(tmp_path / name) as capture:
        capture.write(b"\0" * 14)
    (tmp_path / "x.bin").write_bytes((tmp_path / name).read_bytes())
    assert filekind.of_path(tmp_path / "x.bin") == kind


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("magic", [PCAP_US, PCAP_NS, 0xA1B2CD34])
def test_captures_of_both_byte_orders(order: str, magic: int) -> None:
    assert filekind.of_bytes(magic.to_bytes(4, order) + bytes(20)) in filekind.CAPTURES  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\x1f\x8b\x08\0\0\0", filekind.GZIP),
        (b"BC\xc0\xde\x35\x14\0\0", filekind.LLVM),
        (bytes.fromhex("b700000002000000 9500000000000000"), filekind.BYTECODE),
        (b"b7 00 00 00 02 00", filekind.TEXT),
        (b"r0 = 2\nexit\n", filekind.TEXT),
        (b"", filekind.TEXT),
    ],
)
def test_contents_without_a_name(head: bytes, kind: str) -> None:
    assert filekind.of_bytes(head) == kind

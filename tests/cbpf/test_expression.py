"""pcap-filter expressions: what tcpdump -ddd prints, we print."""

from __future__ import annotations

import ctypes
import ctypes.util
import random
import shutil
import struct
import subprocess
import sys

import pytest

from cbpf.filters import expressions
from tcbpf.cbpf import Classic, listing, to_bytes, to_dd, to_lines
from tcbpf.cbpf.expression import SWAPPED, compile_expression
from tcbpf.errors import InputError
from tcbpf.tables.cbpf import CLASSIC, SKF_AD_OFF, U32

pytestmark = pytest.mark.usefixtures("libpcap")


tcpdump = pytest.mark.skipif(not shutil.which("tcpdump"), reason="no tcpdump to compare with")


def said(*words):
    return subprocess.run(["tcpdump", *words], capture_output=True, text=True, check=True).stdout


@tcpdump
@pytest.mark.parametrize("optimize", [True, False])
def test_every_expression_compiles_as_tcpdump_has_it(optimize):
    chosen = expressions()[:: 1 if optimize else 4]
    for link, text in chosen:
        theirs = said("-ddd", "-y", link, *([] if optimize else ["-O"]), text)
        assert to_lines(compile_expression(text, link_type=link, optimize=optimize)) == theirs, (link, text)
    assert len(chosen) > 90


@tcpdump
def test_every_form_is_tcpdumps():
    for link, text in expressions()[::9]:
        program = compile_expression(text, link_type=link)
        assert to_dd(program) == said("-dd", "-y", link, text)
        assert listing(program) == said("-d", "-y", link, text)


def test_the_listing_is_libpcaps():
    """bpf_image() over random instructions, known and unknown."""
    image = ctypes.CDLL(ctypes.util.find_library("pcap") or "libpcap.so.0.8").bpf_image
    image.restype = ctypes.c_char_p
    rng, codes = random.Random(8), [row.code for row in CLASSIC if row.code not in ELSEWISE]
    for _ in range(5000):
        code = rng.choice(codes) if rng.random() < 0.9 else rng.randrange(0x100, 0x10000)
        k = rng.choice([0, 1, rng.getrandbits(8), rng.getrandbits(32), SKF_AD_OFF + rng.randrange(70), SKF_AD_OFF - 1, U32])
        insn = Classic(code, rng.randrange(256), rng.randrange(256), k)
        assert listing([insn]) == image(ctypes.create_string_buffer(to_bytes([insn]), 8), 0).decode() + "\n", insn


ELSEWISE = (0x0E, 0x16, 0x81)
"""ret x, ret a and ldx #len: libpcap prints unimp, or no operand."""


def test_errors():
    with pytest.raises(InputError, match="syntax error"):
        compile_expression("tcp porrt 80")
    with pytest.raises(InputError, match="no link type 'FOO'"):
        compile_expression("ip", link_type="FOO")
    assert compile_expression("ip", link_type="ETHERNET") == compile_expression("ip")
    with pytest.raises(InputError, match="ifindex not supported on Ethernet when reading savefiles"):
        compile_expression("ifindex 1", link_type=1)


OF_CAPTURES = (
    "ip",
    "ip6",
    "ip6 and udp port 53",
    "tcp port 80",
    "host 10.0.0.1",
    "inbound",
    "ifindex 3",
    "vlan",
    "len > 100",
    "arp",
)


@tcpdump
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("link", [0, 1, 9, 12, 50, 101, 104, 105, 108, 109, 113, 119, 127, 192, 228, 229, 276, 65000])
def test_of_a_capture_it_is_what_tcpdump_runs_on_it(tmp_path, order, link):
    """libpcap compiles another program for a file: other families of NULL, no metadata that only the kernel has."""
    (tmp_path / "x").write_bytes(struct.pack(order + "IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, link))
    swapped = SWAPPED if (order == "<") != (sys.byteorder == "little") else 0
    for text in OF_CAPTURES:
        done = subprocess.run(["tcpdump", "-ddd", "-r", str(tmp_path / "x"), text], capture_output=True, text=True)
        if done.returncode:
            with pytest.raises(InputError) as caught:
                compile_expression(text, link_type=link | swapped)
            assert caught.value.what in done.stderr
        else:
            assert to_lines(compile_expression(text, link_type=link | swapped)) == done.stdout, text

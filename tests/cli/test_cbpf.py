"""`tcbpf cbpf`, by its output."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest

from tcbpf import cbpf
from tcbpf.cli import main

ARP = "ldh [12]\njne #0x806, drop\nret #-1\ndrop: ret #0\n"


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main(["cbpf", *words])
    return status, *capsys.readouterr()


def test_the_page_shows_every_stage_and_needs_no_network(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page = tmp_path / "arp.html"
    bytecode = cbpf.to_decimal(cbpf.assemble(ARP))
    assert run(capsys, "convert", bytecode, "--html", str(page)) == (0, "", "")
    text = page.read_text()
    shown = html.unescape(re.sub(r"<[^>]*>", "", text))
    assert bytecode in shown
    for stage in ("(001) jeq      #0x806", "3: r0 = *(u16 *)skb[12]", "call i64 @tcbpf_ld_abs(", "llvm.module.flags", "retq"):
        assert stage in shown, stage
    assert "http" not in text and "src=" not in text

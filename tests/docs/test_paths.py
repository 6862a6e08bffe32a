"""The pages that say where things are name files that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLACES = (ROOT, ROOT / "src/tcbpf", ROOT / "src/tcbpf/verifier", ROOT / "tests")
PATH = re.compile(r"`((?:[\w.-]+/)+(?:[\w.-]+\.(?:py|c|h|md|txt|json|in))?)`")


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "CONTRIBUTING.md", "docs/verifier.md"])
def test_every_path_is_there(page: str) -> None:
    named = {name for name in PATH.findall((ROOT / page).read_text()) if "NAME" not in name}
    assert [name for name in sorted(named) if not any((place / name).exists() for place in PLACES)] == []

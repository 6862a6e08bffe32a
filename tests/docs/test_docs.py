"""The generated pages: fresh, and complete."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from tcbpf.tables.helpers import HELPERS
from tcbpf.tables.insns import ALU, ATOMICS, END, JUMP
from tcbpf.tables.maps import MAP_TYPES
from tcbpf.tables.skb import SKB, XDP

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def docs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "scripts/generate_docs.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_reference_pages_are_what_the_tables_say(docs: ModuleType) -> None:
    """scripts/generate_docs.py --check holds deviations.md to its sources too; a change there need not touch the tables."""
    assert [name for name in docs.stale() if name.startswith("reference/")] == []


@pytest.mark.parametrize(
    ("page", "tables"),
    [
        ("instructions", (ALU, END, JUMP, ATOMICS)),
        ("helpers", (HELPERS,)),
        ("maps", (MAP_TYPES,)),
        ("fields", (SKB, XDP)),
    ],
)
def test_every_row_is_on_its_page(docs: ModuleType, page: str, tables: tuple) -> None:
    text = docs.page(f"reference/{page}.md")
    for table in tables:
        for row in table:
            assert f"`{row.name}`" in text or f"| {row.name} |" in text or f"`bpf_{row.name}`" in text


def test_deviations_are_collected(docs: ModuleType) -> None:
    source = (
        '"""Title.\n\n    Returns: 0.\n    Differs: one, which\n        goes on. And\n             on.\n'
        '    Source:  x.\n"""\n/* Differs: two */\n'
    )
    assert docs.differs(source) == ["one, which goes on. And on.", "two"]
    assert docs.differs("nothing\nDiffers: a\n\nnot this") == ["a"]


def test_a_stale_page_is_found(docs: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "deviations.in.md").write_text("# x\n")
    monkeypatch.setattr(docs, "DOCS", tmp_path)
    assert set(docs.stale()) == set(docs.PAGES)
    for name in docs.PAGES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(docs.page(name))
    assert docs.stale() == []
    (tmp_path / "reference/maps.md").write_text("old")
    assert docs.stale() == ["reference/maps.md"]

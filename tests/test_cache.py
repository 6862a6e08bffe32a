"""What is kept is what was stored under that name, by this user, whole; anything else is nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tcbpf import cache

VALUE = (b"bytes", "text", 7, {"a": (1, 2)}, True)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "tcbpf" / "kind"


def test_what_is_stored_is_found(place: Path) -> None:
    assert cache.load("kind", "one") is None
    cache.store("kind", "one", VALUE)
    assert cache.load("kind", "one") == VALUE and cache.load("other", "one") is None
    assert place.stat().st_mode & 0o777 == 0o700 and (place / "one").stat().st_mode & 0o777 == 0o600


def test_parts_are_not_run_together() -> None:
    assert len({cache.name_of(b"ab", b"c"), cache.name_of(b"a", b"bc"), cache.name_of(b"abc"), cache.name_of(b"", b"abc")}) == 4


@pytest.mark.parametrize("at", [0, 10, 32, 40, -1])
def test_any_changed_byte_makes_it_nothing(place: Path, at: int) -> None:
    cache.store("kind", "one", VALUE)
    raw = bytearray((place / "one").read_bytes())
    raw[at] ^= 1
    (place / "one").write_bytes(raw)
    assert cache.load("kind", "one") is None


@pytest.mark.parametrize("damage", [lambda raw: b"", lambda raw: raw[:20], lambda raw: raw[:-1], lambda raw: raw + b"x"])
def test_a_part_of_it_is_nothing(place: Path, damage) -> None:
    cache.store("kind", "one", VALUE)
    (place / "one").write_bytes(damage((place / "one").read_bytes()))
    assert cache.load("kind", "one") is None


def test_an_entry_of_another_name_is_nothing(place: Path) -> None:
    cache.store("kind", "one", VALUE)
    (place / "one").rename(place / "two")
    assert cache.load("kind", "two") is None


def test_what_others_may_write_is_nothing(place: Path) -> None:
    cache.store("kind", "one", VALUE)
    (place / "one").chmod(0o620)
    assert cache.load("kind", "one") is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_another_user_s_entry_is_nothing(place: Path) -> None:
    cache.store("kind", "one", VALUE)
    os.chown(place / "one", 65534, 65534)
    assert cache.load("kind", "one") is None


def test_a_full_disk_leaves_nothing_behind(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.store("kind", "one", VALUE)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    cache.store("kind", "two", VALUE)
    assert os.listdir(place) == ["one"] and cache.load("kind", "one") == VALUE


def test_a_place_that_cannot_be_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    cache.store("kind", "one", VALUE)
    assert cache.load("kind", "one") is None


def test_writers_at_once_leave_one_whole_entry(place: Path) -> None:
    program = (
        "from tcbpf import cache\n"
        "for i in range(200):\n"
        "    cache.store('kind', 'one', (i, bytes([i]) * 5000))\n"
        "    found = cache.load('kind', 'one')\n"
        "    assert found is not None and found[1] == bytes([found[0]]) * 5000\n"
    )
    path = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    writers = [subprocess.Popen([sys.executable, "-c", program], env=path) for _ in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert os.listdir(place) == ["one"]


def test_the_oldest_go_when_there_are_too_many(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "KEEP", 10)
    for i in range(11):
        cache.store("kind", str(i), i)
        os.utime(place / str(i), (i, i))
    cache.store("kind", "new", 1)
    assert sorted(os.listdir(place)) == ["10", "6", "7", "8", "9", "new"]


def test_a_file_s_identity_changes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "x"
    missing = cache.file_identity(str(path))
    path.write_text("a")
    first = cache.file_identity(str(path))
    about = path.stat()
    path.write_text("b")
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert len({missing, first, cache.file_identity(str(path))}) == 3, "even when its time is set back"


def test_the_package_s_identity_is_of_the_files_that_entries_are_made_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "__file__", str(tmp_path / "cache.py"))
    (tmp_path / "room" / "__pycache__").mkdir(parents=True)
    (tmp_path / "room" / "x.py").write_text("a = 1\n")
    first = cache.identity.__wrapped__()
    (tmp_path / "room" / "__pycache__" / "x.pyc").write_text("compiled")
    (tmp_path / "cli" / "tc").mkdir(parents=True)
    (tmp_path / "cli" / "tc" / "x.py").write_text("no entry is made here")
    assert cache.identity.__wrapped__() == first
    (tmp_path / "room" / "x.py").write_text("a = 2\n")
    second = cache.identity.__wrapped__()
    (tmp_path / "y.py").write_text("")
    third = cache.identity.__wrapped__()
    monkeypatch.setattr(cache, "installed", lambda name: str(tmp_path / "elsewhere" / name))
    assert len({first, second, third, cache.identity.__wrapped__()}) == 4


def test_directories_that_make_no_entry_are_there() -> None:
    assert not [name for name in {*cache.APART} - {"native/_build"} if not (Path(cache.__file__).parent / name).is_dir()]

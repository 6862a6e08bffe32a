"""Files that have their name only once they are whole."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tcbpf import files as newfile
from tcbpf.files import NewFile


def test_a_file_appears_whole(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old")
    file = NewFile(tmp_path / "f")
    file.write(b"new")
    file.flush()
    assert (tmp_path / "f").read_text() == "old" and len(os.listdir(tmp_path)) <= 2
    file.keep()
    assert (tmp_path / "f").read_text() == "new" and os.listdir(tmp_path) == ["f"]
    file = NewFile(tmp_path / "f")
    file.write(b"never")
    file.discard()
    assert (tmp_path / "f").read_text() == "new" and os.listdir(tmp_path) == ["f"]


def test_a_pipe_stays_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p")
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "p").read_bytes()))
    reader.start()
    newfile.write(tmp_path / "p", b"data")
    reader.join()
    assert got == [b"data"] and (tmp_path / "p").is_fifo() and os.listdir(tmp_path) == ["p"]


def test_no_directory(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        newfile.write(tmp_path / "no/f", b"x")
    assert caught.value.filename == str(tmp_path / "no/f")

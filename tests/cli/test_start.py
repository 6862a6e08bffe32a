"""The command starts from wherever it was installed: a path with a blank, a link to it, a directory without an interpreter."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(__file__).parents[2] / "bin"


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A directory with a blank in its path, with the commands and an environment's interpreter, as an installer leaves it."""
    place = tmp_path / "my programs" / "bin"
    shutil.copytree(BIN, place)
    (place / "python").symlink_to(Path(sys.executable).resolve())
    (place.parent / "pyvenv.cfg").write_text(f"home = {Path(sys.executable).resolve().parent}\n")
    return place


def said(command: Path, *words: str) -> str:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([command, *words], capture_output=True, text=True, check=True, env=env).stdout


def test_a_blank_in_the_path(installed: Path) -> None:
    assert said(installed / "tcbpf", "--version").startswith("tcbpf ")
    assert said(installed / "tcbpf-tc", "-V").startswith("tc utility")


def test_a_link_to_the_command(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(installed / "tcbpf")
    assert said(tmp_path / "link", "--version").startswith("tcbpf ")


def test_without_an_environment_the_installer_s_script_starts_it(installed: Path) -> None:
    """It is not the python beside the command then that has the package."""
    (installed.parent / "pyvenv.cfg").unlink()
    (installed / "tcbpf-main").write_text('#!/bin/sh\necho "main: $*"\n')
    (installed / "tcbpf-main").chmod(0o755)
    assert said(installed / "tcbpf", "run", "a b") == "main: run a b\n"
    assert said(installed / "tcbpf-tc", "qdisc") == "main: tc qdisc\n"

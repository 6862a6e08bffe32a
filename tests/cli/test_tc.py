"""`tcbpf tc` says what tc(8) says, on both datapaths."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cli.tc_transcript import Command, Said, build, ours, read, theirs
from conftest import open_for_test
from netns import netns
from tcbpf.control.objects import Link
from tcbpf.control.request import Op, Request

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))
KERNEL_TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts/kernel").glob("*.txt"))


@dataclass(frozen=True, slots=True)
class Place:
    """Where commands run: `options` say which datapath, `directory` holds the objects, `netns` is the kernel's."""

    options: list[str]
    directory: Path
    netns: str = ""

    def tc(self, *words: str) -> Said:
        return ours(list(words), self.options, self.directory)


@pytest.fixture(scope="session")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("objects")
    build(directory)
    return directory


@pytest.fixture(params=["user", pytest.param("kernel", marks=pytest.mark.kernel)])
def place(request: pytest.FixtureRequest, tmp_path: Path, objects: Path) -> Iterator[Place]:
    """A datapath with a pair of devices, em1 and em2, both up."""
    if request.param == "kernel":
        with netns() as path:
            make_devices("kernel", path, tmp_path)
            yield Place(["--datapath", "kernel", "-n", path], objects, path)
        return
    make_devices("user", "", tmp_path)
    yield Place(["--datapath", "user", "--home", str(tmp_path)], objects)


def make_devices(name: str, path: str, home: Path) -> None:
    with open_for_test(name, path, home) as dp:
        dp.apply(Request(Op.ADD, Link("em1", kind="veth", peer="em2")))
        for device in ("em1", "em2"):
            dp.apply(Request(Op.CHANGE, Link(device, up=True)))


def compare(commands: list[Command], run: object, path: Path) -> None:
    for command in commands:
        said = run(command.words)  # type: ignore[operator]
        assert said == command.said, f"{path.name}:{command.line}: tc {' '.join(command.words)}"


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda p: p.stem)
def test_transcript(place: Place, path: Path) -> None:
    compare(read(path), lambda words: place.tc(*words), path)


@pytest.mark.kernel
@pytest.mark.parametrize("place", ["kernel"], indirect=True)
@pytest.mark.parametrize("path", KERNEL_TRANSCRIPTS, ids=lambda p: p.stem)
def test_what_only_the_kernel_has(place: Place, path: Path) -> None:
    compare(read(path), lambda words: place.tc(*words), path)


@pytest.mark.kernel
@pytest.mark.parametrize("place", ["kernel"], indirect=True)
@pytest.mark.parametrize("path", [*TRANSCRIPTS, *KERNEL_TRANSCRIPTS], ids=lambda p: p.stem)
def test_the_transcript_is_tcs(place: Place, path: Path) -> None:
    if not shutil.which("tc"):
        pytest.skip("no tc is installed")
    if "iproute2-6.1." not in subprocess.run(["tc", "-V"], capture_output=True, text=True, check=True).stdout:
        pytest.skip("the transcripts are tc 6.1's")
    compare(read(path), lambda words: theirs(words, place.netns, place.directory), path)

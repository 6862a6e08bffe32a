"""Files that live while something holds them; pins are links."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tcbpf.datapath.user import bpffs
from tcbpf.datapath.user import temp_home as private
from tcbpf.datapath.user.object_files import Shelf
from tcbpf.errors import SysError


def made(shelf: Shelf, id: int) -> int:
    fd = shelf.create()
    os.write(fd, b"content")
    shelf.publish(fd, id)
    return fd


def test_a_file_lives_while_a_descriptor_does(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "maps", "map")
    fd = made(shelf, 7)
    assert shelf.ids() == [7] and shelf.sweep(set) == 0
    copy = os.dup(fd)
    os.close(fd)
    assert shelf.sweep(set) == 0
    os.close(copy)
    assert shelf.sweep(lambda: {7}) == 0
    assert shelf.sweep(set) == 1 and shelf.ids() == []
    with pytest.raises(SysError) as caught:
        shelf.open(7)
    assert caught.value.errno == errno.ENOENT


def test_an_unfinished_file_has_no_name(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "maps", "map")
    os.close(shelf.create())
    assert shelf.ids() == [] and list((tmp_path / "maps").iterdir()) == []


def test_a_descriptor_in_another_process_holds(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "maps", "map")
    fd = made(shelf, 1)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[fd]) as child:
        os.close(fd)
        assert shelf.sweep(set) == 0
        child.kill()
    assert shelf.sweep(set) == 1


def test_a_pin_holds(tmp_path: Path) -> None:
    shelf, root = Shelf(tmp_path / "maps", "map"), tmp_path / "bpf"
    fd = made(shelf, 1)
    bpffs.pin(root, "/sys/fs/bpf/tc/globals/flows", fd)
    os.close(fd)
    assert shelf.sweep(set) == 0 and (root / "tc/globals/flows").read_bytes() == b"content"
    os.link(root / "tc/globals/flows", root / "again")
    bpffs.unpin(root, "/sys/fs/bpf/tc/globals/flows")
    assert shelf.sweep(set) == 0
    assert list(bpffs.pins(root).values()) == [["/sys/fs/bpf/again"]]
    (root / "again").unlink()
    assert shelf.sweep(set) == 1


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/sys/fs/bpf/a.b", errno.EPERM),
        ("/sys/fs/bpf/there", errno.EEXIST),
        ("/proc/none", errno.EPERM),
    ],
)
def test_pins_that_are_refused(tmp_path: Path, path: str, code: int) -> None:
    shelf, root = Shelf(tmp_path / "maps", "map"), tmp_path / "bpf"
    fd = made(shelf, 1)
    bpffs.pin(root, "/sys/fs/bpf/there", fd)
    with pytest.raises(SysError) as caught:
        bpffs.pin(root, path, fd)
    if path.startswith("/proc"):
        assert caught.value.errno in (errno.EPERM, errno.ENOENT)
    else:
        assert caught.value.errno == code
    os.close(fd)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/sys/fs/bpf/nothing", errno.ENOENT),
        ("/sys/fs/bpf/directory", errno.EACCES),
        ("/sys/fs/bpf/link", errno.ELOOP),
        ("/sys/fs/bpf/a.b/c", errno.EPERM),
        ("/sys/fs/bpf/directory/../nothing", errno.ENOENT),
    ],
)
def test_pins_that_cannot_be_opened(tmp_path: Path, path: str, code: int) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("nothing")
    with pytest.raises(SysError) as caught:
        bpffs.open_pin(tmp_path, path)
    assert caught.value.errno == code


def test_a_private_directory_goes_with_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private, "base", lambda: tmp_path)
    mine = private.Directory()
    assert mine.path.is_dir()
    code = (
        f"from pathlib import Path; import os, signal; from tcbpf.datapath.user import private;"
        f"private.base = lambda: Path({str(tmp_path)!r}); d = private.Directory(); d.path.stat();"
        f"os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    assert len(list(tmp_path.iterdir())) == 2
    private.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == [mine.path]
    mine.remove()
    assert list(tmp_path.iterdir()) == []

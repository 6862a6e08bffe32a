"""Files that live while something holds them; pins are links."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tcbpf.datapath.user import bpffs, temp_home
from tcbpf.datapath.user.object_files import ObjectFiles
from tcbpf.errors import SysError


def made(files: ObjectFiles, id: int) -> int:
    fd = files.create()
    os.write(fd, b"content")
    files.publish(fd, id)
    return fd


def test_a_file_lives_while_a_descriptor_does(tmp_path: Path) -> None:
    files = ObjectFiles(tmp_path / "maps", "map")
    fd = made(files, 7)
    assert files.ids() == [7] and files.sweep(set) == 0
    copy = os.dup(fd)
    os.close(fd)
    assert files.sweep(set) == 0
    os.close(copy)
    assert files.sweep(lambda: {7}) == 0
    assert files.sweep(set) == 1 and files.ids() == []
    with pytest.raises(SysError) as caught:
        files.open(7)
    assert caught.value.errno == errno.ENOENT


def test_an_unfinished_file_has_no_name(tmp_path: Path) -> None:
    files = ObjectFiles(tmp_path / "maps", "map")
    os.close(files.create())
    assert files.ids() == [] and list((tmp_path / "maps").iterdir()) == []


def test_a_descriptor_in_another_process_holds(tmp_path: Path) -> None:
    files = ObjectFiles(tmp_path / "maps", "map")
    fd = made(files, 1)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[fd]) as child:
        os.close(fd)
        assert files.sweep(set) == 0
        child.kill()
    assert files.sweep(set) == 1


def test_a_pin_holds(tmp_path: Path) -> None:
    files, root = ObjectFiles(tmp_path / "maps", "map"), tmp_path / "bpf"
    fd = made(files, 1)
    bpffs.pin(root, "/sys/fs/bpf/tc/globals/flows", fd)
    os.close(fd)
    assert files.sweep(set) == 0 and (root / "tc/globals/flows").read_bytes() == b"content"
    os.link(root / "tc/globals/flows", root / "again")
    bpffs.unpin(root, "/sys/fs/bpf/tc/globals/flows", lambda fd: True)
    assert files.sweep(set) == 0
    assert list(bpffs.pins(root).values()) == [["/sys/fs/bpf/again"]]
    (root / "again").unlink()
    assert files.sweep(set) == 1


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/sys/fs/bpf/a.b", errno.EPERM),
        ("/sys/fs/bpf/there", errno.EEXIST),
        ("/proc/none", errno.EPERM),
    ],
)
def test_pins_that_are_refused(tmp_path: Path, path: str, code: int) -> None:
    files, root = ObjectFiles(tmp_path / "maps", "map"), tmp_path / "bpf"
    fd = made(files, 1)
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
    monkeypatch.setattr(temp_home, "base", lambda: tmp_path)
    mine = temp_home.TempHome()
    assert mine.path.is_dir()
    code = (
        f"from pathlib import Path; import os, signal; from tcbpf.datapath.user import temp_home;"
        f"temp_home.base = lambda: Path({str(tmp_path)!r}); d = temp_home.TempHome(); d.path.stat();"
        f"os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    assert len(list(tmp_path.iterdir())) == 2
    temp_home.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == [mine.path]
    mine.remove()
    assert list(tmp_path.iterdir()) == []

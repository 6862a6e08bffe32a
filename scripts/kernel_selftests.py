"""The kernel's own verifier tests, as object files: fetched from Debian's packages, compiled here, never committed.

    python scripts/kernel_selftests.py            # prints the directory of the objects

Needs Debian's package archive (apt-get download), dpkg, and the kernel's BTF for vmlinux.h. Everything lies in the cache
directory: nothing is installed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tcbpf.errors import NotSupported

PACKAGES = ("linux-source-6.12", "bpftool", "libc6-dev", "linux-libc-dev")
FILES = (
    "tools/testing/selftests/bpf/*",
    "tools/lib/bpf/*",
    "tools/include/*",
    "include/uapi/linux/bpf.h",
    "scripts/bpf_doc.py",
)
BTF = Path("/sys/kernel/btf/vmlinux")
FLAGS = ("-target", "bpfel-freestanding", "-mcpu=v4", "-g", "-O2", "-D__TARGET_ARCH_x86", "-DENABLE_ATOMICS_TESTS", "-w")


def cache() -> Path:
    """Return the directory that everything lies in."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tcbpf" / "selftests"


def fetch(root: Path) -> Path:
    """Return the kernel's source tree, cut to what is needed.

    Raises:  NotSupported when the packages cannot be had.
    """
    tree = root / "linux"
    if (tree / "complete").exists():
        return tree
    for tool in ("apt-get", "dpkg", "tar"):
        if not shutil.which(tool):
            raise NotSupported(f"the kernel's tests come from Debian's packages: no {tool} here")
    root.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        got = subprocess.run(["apt-get", "download", package], cwd=root, capture_output=True, text=True)
        if got.returncode:
            raise NotSupported(f"apt-get download {package}: {got.stderr.strip().splitlines()[-1]} (try apt-get update)")
        for archive in root.glob(f"{package}_*.deb"):
            subprocess.run(["dpkg", "-x", archive, root / "packages"], check=True)
            archive.unlink()
    (source,) = (root / "packages/usr/src").glob("linux-source-*.tar.xz")
    tree.mkdir(exist_ok=True)
    wanted = [f"*/{name}" for name in FILES]
    subprocess.run(["tar", "-C", tree, "--strip-components=1", "-xf", source, "--wildcards", *wanted], check=True)
    (tree / "complete").touch()
    return tree


def make_headers(root: Path, tree: Path) -> Path:
    """Return a directory with vmlinux.h of the running kernel and libbpf's headers."""
    include = root / "include"
    if (include / "vmlinux.h").exists():
        return include
    if not BTF.exists():
        raise NotSupported(f"the kernel's tests are compiled for the running kernel's types: no {BTF}")
    (include / "bpf").mkdir(parents=True, exist_ok=True)
    for name in ("bpf_helpers.h", "bpf_endian.h", "bpf_tracing.h", "bpf_core_read.h"):
        shutil.copy(tree / "tools/lib/bpf" / name, include / "bpf")
    doc = [sys.executable, tree / "scripts/bpf_doc.py", "--header", "--file", tree / "include/uapi/linux/bpf.h"]
    (include / "bpf/bpf_helper_defs.h").write_bytes(subprocess.run(doc, check=True, capture_output=True).stdout)
    dump = [root / "packages/usr/sbin/bpftool", "btf", "dump", "file", BTF, "format", "c"]
    (include / "vmlinux.h").write_bytes(subprocess.run(dump, check=True, capture_output=True).stdout)
    return include


def compile_all(root: Path, tree: Path, include: Path, sources: Iterable[Path]) -> tuple[list[Path], list[str]]:
    """Return the objects, and the names of the sources that the compiler refused."""
    progs, out = tree / "tools/testing/selftests/bpf/progs", root / "objects"
    out.mkdir(exist_ok=True)
    headers = [
        f"-I{include}",
        f"-I{progs.parent}",
        f"-isystem{tree / 'tools/include/uapi'}",
        *(f"-isystem{place}" for place in system_includes(root)),
    ]

    def compile_one(source: Path) -> tuple[Path, str]:
        target = out / source.with_suffix(".o").name
        if target.exists():
            return target, ""
        command = [sys.executable, "-m", "ziglang", "cc", *FLAGS, *headers, "-c", source, "-o", target]
        done = subprocess.run(command, cwd=progs, capture_output=True, text=True)
        return target, "" if done.returncode == 0 else f"{source.name}: {first_error(done.stderr)}"

    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(compile_one, sorted(sources)))
    return [target for target, failed in done if not failed], [failed for _, failed in done if failed]


def first_error(text: str) -> str:
    """Return the first line of a compiler's output that says error."""
    return next((line for line in text.splitlines() if re.search(r"\berror\b", line)), text[:200])


def system_includes(root: Path) -> list[Path]:
    """Return the directories of the C library's and the kernel's headers: those of the packages, else the machine's."""
    own = root / "packages/usr/include"
    top = own if (own / "linux").exists() else Path("/usr/include")
    return [top, *top.glob("*-linux-gnu")]


def objects(patterns: Sequence[str], *, without: Sequence[str] = (), sections: Sequence[str] = ()) -> list[Path]:
    """Return the object files of the tests whose names match, made on the first call.

    `sections` leaves out sources that have no program in a section that begins so.

    Raises:  NotSupported when they cannot be had.
    """
    root = cache()
    tree = fetch(root)
    include = make_headers(root, tree)
    progs = tree / "tools/testing/selftests/bpf/progs"
    left_out = {path for pattern in without for path in progs.glob(pattern)}
    wanted = re.compile(r'SEC\("\??(?:' + "|".join(map(re.escape, sections)) + ")")
    sources = [path for pattern in patterns for path in progs.glob(pattern) if path not in left_out]
    sources = [path for path in sources if not sections or wanted.search(path.read_text())]
    made, refused = compile_all(root, tree, include, sources)
    for line in refused:
        print(f"not compiled: {line}", file=sys.stderr)
    return made


if __name__ == "__main__":
    print(f"{len(objects(('verifier_*.c', 'test_tc*.c')))} objects in {cache() / 'objects'}")
